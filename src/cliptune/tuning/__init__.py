"""Searching for settings: trials that train, chosen by val, judged on photos that chose nothing."""

"""Metrics, pictures and reports: what a checkpoint is worth on a split."""

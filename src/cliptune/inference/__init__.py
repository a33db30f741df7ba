"""Predictions: for one photo, a list, or a folder of any size."""

"""Where a run's curves, settings and pictures can be followed: one file for each tracker."""

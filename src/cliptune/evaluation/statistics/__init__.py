"""Pure functions on arrays: figures, intervals, calibration, rejection."""

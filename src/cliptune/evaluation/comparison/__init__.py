"""Two or more checkpoints on the same photos."""

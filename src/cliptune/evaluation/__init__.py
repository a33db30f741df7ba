"""What a checkpoint is worth on a split: measured, reported, drawn."""

"""A class more or less in a checkpoint, without training, and what it costs the others."""

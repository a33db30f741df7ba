"""A checkpoint put on the hub: what of it is public, its card, the upload."""

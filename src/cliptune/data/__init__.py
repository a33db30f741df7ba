"""Photos to batches: folders of classes, names, decoding, views, the seeded order."""

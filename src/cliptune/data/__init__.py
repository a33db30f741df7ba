"""Photos: folders of classes, decoding, batches in a seeded order, preparation."""

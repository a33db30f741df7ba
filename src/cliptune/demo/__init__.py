"""The embedded default: a tiny CLIP of our own and drawn dogs, no network."""

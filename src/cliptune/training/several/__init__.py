"""One run in several processes: how they start, what they share, and what ends them all."""

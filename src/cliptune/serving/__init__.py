"""A checkpoint behind HTTP, and a page for people."""

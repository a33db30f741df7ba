"""The version of cliptune, below everything that writes it somewhere."""

__version__ = "0.1.0"

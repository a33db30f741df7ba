"""A checkpoint's answers outside of this package, proved to be the same."""

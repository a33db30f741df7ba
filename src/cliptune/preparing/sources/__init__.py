"""What `prepare` is given: one file for each kind of source, behind `opening`."""

"""The tutorial's files, for those who have the package and not its repository."""

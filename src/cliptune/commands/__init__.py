"""The commands of the command line, by what they are about; `cliptune.cli` puts them together."""

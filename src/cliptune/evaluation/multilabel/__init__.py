"""Checkpoints whose photos show any number of the classes: measured, told, drawn."""

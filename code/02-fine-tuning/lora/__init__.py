"""The tutorial's LoRA commands: doors into the package cliptune."""

"""CLIP-like backbones, LoRA adapters, heads and checkpoints."""

"""What the benchmarks work on: a model of ViT-B's size with random weights, drawn photos."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

WORDS = ["a", "photo", "of", "class", "number"]


def prepare(
    folder: Path, *, photos: int, patch_size: int = 32, given_model: Path | None = None
) -> None:
    """A model of ViT-B's size with random weights or that given, drawn photos, and a checkpoint."""
    if given_model is not None:
        shutil.copytree(given_model, folder / "model")
    else:
        _random_model(folder / "model", patch_size=patch_size)
    _draw_photos(folder, photos)
    subprocess.run(
        [sys.executable, "-m", "cliptune", "train", "--data-dir", folder / "data",
         "--output-dir", folder / "run", "--set", f"output.log_dir={folder / 'logs'}",
         "--set", f"model.name={folder / 'model'}", "--set", "training.num_epochs=1",
         "--set", "training.min_updates=0",
         "--set", "data.cache=false", "--set", "hardware.device=cpu"],
        check=True, capture_output=True,
    )  # fmt: skip


def _random_model(folder: Path, *, patch_size: int) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    whole = CLIPConfig()
    whole.vision_config.patch_size = patch_size
    CLIPModel(whole).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    config = whole.text_config
    words = ["<unk>", ".", *WORDS]
    words += map(str, range(config.vocab_size - len(words) - 2))  # the tower's whole vocabulary
    words += ["<s>", "</s>"]
    start, end = config.bos_token_id, config.eos_token_id  # the last two
    model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # CLIP's own prompts of ten words or so.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", start), ("</s>", end)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>",
        unk_token="<unk>", model_max_length=77,
    ).save_pretrained(folder)  # fmt: skip


def _draw_photos(folder: Path, photos: int) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(photos):
        path = folder / "photos" / str(i % 10) / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        fine = rng.normal(0, 12, (375, 500, 3))
        pixels = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)) + fine
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    for i in range(30):
        split = folder / "data" / ("train" if i < 20 else "val") / f"class number {i % 10}"
        split.mkdir(parents=True, exist_ok=True)
        (split / f"{i}.jpg").write_bytes(
            (folder / "photos" / str(i % 10) / f"{i}.jpg").read_bytes()
        )


def lay_out_training(folder: Path, count: int) -> None:
    """`folder/training`: `count` training and 100 validation photos in ten classes, by links."""
    drawn = sorted((folder / "photos").rglob("*.jpg"))
    for i in range(count + 100):
        split = "train" if i < count else "val"
        path = folder / "training" / split / f"class number {i % 10}" / f"{i}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(drawn[i % len(drawn)], path)

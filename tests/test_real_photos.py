"""On real photos and a small pretrained CLIP, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cliptune.config import load_settings
from cliptune.data.folder import load_split
from cliptune.data.reading import read_image
from cliptune.evaluation.evaluate import evaluate
from cliptune.model.backbone import image_features
from cliptune.model.checkpoint import read_checkpoint
from cliptune.model.restore import load_classifier
from cliptune.training.train import train


@pytest.fixture(scope="module")
def run_dir(small_clip: Path, dogs10: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch on a twentieth of the training photos."""
    folder = tmp_path_factory.mktemp("real")
    for split in ("train", "val"):
        for breed in (dogs10 / split).iterdir():
            (folder / "dogs" / split / breed.name).mkdir(parents=True)
            for photo in sorted(breed.iterdir())[:5]:
                (folder / "dogs" / split / breed.name / photo.name).symlink_to(photo)
    settings = load_settings(
        overrides={
            "model.name": str(small_clip),
            "model.prompts": ["a photo of a {}, a type of dog."],
            "data.data_dir": str(folder / "dogs"),
            "data.num_workers": 0,
            "training.num_epochs": 1,
            "training.min_updates": 0,
            "training.val_in_head": "never",
            "output.output_dir": str(folder / "run"),
            "output.log_dir": str(folder / "logs"),
            "hardware.device": "cpu",
        }
    )
    return train(settings, progress=False).output_dir


@pytest.mark.slow
def test_plain_peft_gives_the_same_image_features_on_real_photos(
    run_dir: Path, small_clip: Path, dogs10: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoImageProcessor, CLIPModel

    processor = AutoImageProcessor.from_pretrained(small_clip, backend="pil")
    theirs = PeftModel.from_pretrained(
        CLIPModel.from_pretrained(small_clip), run_dir / "checkpoint-epoch-1"
    ).eval()
    ours = load_classifier(read_checkpoint(run_dir / "checkpoint-epoch-1"))
    images = [read_image(path) for path in sorted((dogs10 / "test").rglob("*.jpg"))[::25]]
    with torch.no_grad():
        pixel_values = processor(images, return_tensors="pt")["pixel_values"]
        in_float32 = image_features(theirs, pixel_values)
        exact = image_features(theirs.double(), pixel_values.double())
        pixels = torch.stack([torch.from_numpy(ours.preprocess.pixels(i)) for i in images])
        found = ours.image_features(pixels)
    # How much float32 rounds depends on the processor: ours may round as much as theirs, twice.
    assert (found - exact).abs().max() <= 2 * (in_float32 - exact).abs().max()
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_zero_shot_is_neither_chance_nor_perfect_and_training_does_not_break_it(
    run_dir: Path, dogs10: Path
) -> None:
    evaluation = evaluate(
        run_dir, data_dir=dogs10, output_dir=None, num_workers=0, device="cpu", progress=False
    )
    assert evaluation.baseline is not None
    assert 0.5 < evaluation.baseline.accuracy < 0.75
    assert evaluation.accuracy > evaluation.baseline.accuracy - 0.05
    names = load_split(dogs10, "test", class_names=evaluation.class_names).class_names
    assert names == evaluation.class_names

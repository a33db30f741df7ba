"""What an exported folder says of itself: export.json for programs, README.md for people."""

from __future__ import annotations

import importlib.metadata
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliptune._version import __version__
from cliptune.data.images import Preprocess
from cliptune.files import SUMS
from cliptune.inference.export.for_transformers import for_transformers_readme
from cliptune.inference.export.int8 import Int8, int8_text
from cliptune.inference.export.verify import Verified
from cliptune.model.checkpoint import Checkpoint
from cliptune.model.exported.about import FORMAT, classes_told
from cliptune.model.label_answers import AnyAnswers

PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "Pillow")


def told_of(
    checkpoint: Checkpoint,
    preprocess: Preprocess,
    answers: AnyAnswers | None,
    precision: str,
    licence: str | None,
) -> dict[str, Any]:
    """What export.json says, before anything was verified; `licence` is the base model's."""
    record, sums = checkpoint.record, checkpoint.path / SUMS
    return {
        "format": FORMAT,
        "cliptune": __version__,
        "precision": precision,
        **classes_told(record.tree, record.shown_names, answers),
        "preprocess": preprocess.to_dict(),
        "base_model": record.base_model.model_dump(mode="json")
        | {"name": base_name(checkpoint), "licence": licence},
        "checkpoint": {
            "name": checkpoint.path.name,
            "sums": sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else None,
        },
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    """Of those that are installed: a folder for transformers is made without ONNX's."""
    found = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def base_name(checkpoint: Checkpoint) -> str:
    """The base model's name on the hub; of a folder its own name alone, since the file goes on."""
    name = checkpoint.record.base_model.name
    return Path(name).name if Path(name).expanduser().is_absolute() else name


def readme(
    checkpoint: Checkpoint, verified: Verified, about: dict[str, Any], done: Int8 | None
) -> str:
    """README.md, whose first part says how the folder is used."""
    licence, several = about["base_model"]["licence"], checkpoint.record.task == "multilabel"
    classes = f"{len(checkpoint.record.class_names)} classes"
    classes += ", any number to a photo" if several else ""
    terms = f"licence {licence}, which holds" if licence else (
        "its licence is not told where it lies: look it up, since it holds")  # fmt: skip
    made = (
        f"Made by cliptune {__version__} from the checkpoint `{checkpoint.path.name}`.\n"
        f"Base model: `{base_name(checkpoint)}`; {terms} for these weights, too."
    )
    use = _for_onnx(classes, made, about["precision"], several=several)
    if "cosine" in about:
        use = for_transformers_readme(classes, made, several=several)
    beside = "cliptune's own answers in float32" if done is None else "cliptune's by the same graph"
    return f"""{use}
Proved on {verified.photos} photos beside {beside}: the largest difference
of a probability is {verified.largest_difference:.1e} ({verified.tolerance:g} allowed);
{verified.others}.
{"" if done is None else _of_int8(done)}"""


_OUTPUTS = """\
  calibrated; `features` (B, D); and, where the checkpoint tells strangers, `known_score` and
  `known` (B,)."""
_LABEL_OUTPUTS = """\
  calibrated, each class by itself; `features` (B, D); `shown` (B, C), which classes reach their
  thresholds; `known` (B,), whether any does, and `known_score` (B,), how far above the surest
  is."""


def _for_onnx(classes: str, made: str, precision: str, *, several: bool) -> str:
    outputs = _LABEL_OUTPUTS if several else _OUTPUTS
    thresholds = "thresholds" if several else "threshold"
    return f"""# {classes}, as ONNX

{made}

    pip install numpy Pillow onnxruntime
    python run.py photo.jpg

- `model.onnx`: uint8 pixels (B, 3, H, W), any B -> `logits` (B, C); `probabilities` (B, C),
{outputs} In {precision}. A `model.onnx.data` beside it belongs to it.
- `export.json`: the classes in the order of C, how a photo is brought to size, {thresholds} and
  temperature, sums and versions.
- `run.py`: photos to answers with numpy, Pillow and onnxruntime; import `Exported` from it.
  Resizing is Pillow's: another library's gives other pixels, and other answers.
- the other files: what cliptune needs beside these to take this folder as a checkpoint.
"""


def _of_int8(done: Int8) -> str:
    return f"""
In int8 it answers otherwise than the checkpoint; its temperature and threshold were fitted again.
It was judged by onnxruntime: another program rounds otherwise, and answers a little otherwise.

{int8_text(done)}
"""

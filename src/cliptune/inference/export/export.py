"""`cliptune export`: a checkpoint as a folder that answers the same without this package."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cliptune._version import __version__
from cliptune.data.image_files import photos_below
from cliptune.data.naming import display_names
from cliptune.errors import CheckpointError, UserError
from cliptune.files import SUMS, user_path, whole_folder, write_sums
from cliptune.inference.export.verify import TOLERANCE, Verified, verify
from cliptune.inference.predictor import Predictor
from cliptune.model.checkpoint import (
    HEAD,
    MEANS,
    PHOTOS,
    UNSUMMED,
    Checkpoint,
    resolve_checkpoint,
    write_record,
)
from cliptune.model.exported.about import EXPORTED, FORMAT, classes_told
from cliptune.model.exported.classifier import GRAPH
from cliptune.model.exported.graph import AnswerGraph, import_onnx, write_onnx
from cliptune.model.restore import load_answers, load_classifier, saved_settings

MOST_PHOTOS = 200  # that are answered for twice
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "Pillow")


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written."""

    folder: Path
    verified: Verified
    num_bytes: int


def export(
    checkpoint: Path | str,
    output: Path | str,
    *,
    data: Path | str | None = None,
    base_model: str | None = None,
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> Export:
    """Write the checkpoint (or the best of a run folder) as ONNX to the new folder `output`.

    The graph takes uint8 pixels (B, 3, H, W) and gives the probabilities, features and, where the
    checkpoint holds a threshold, "none of these". `data` is a folder of photos on which its answers
    are proved to be the `Predictor`'s, up to 200 of them; None: those the checkpoint was trained
    with, val before others. Nothing is left at `output` unless they are.

    Raises `MissingExtra` without ONNX's packages, `UserError` where `output` is taken, where
    there are no photos, and where an answer differs; `CheckpointError` as of `Predictor`.
    """
    import_onnx()
    found = resolve_checkpoint(user_path(checkpoint))
    if found.exported:
        raise CheckpointError(
            f"{found.path}: this is an exported folder already. Expected the checkpoint it was "
            "made from."
        )
    target = user_path(output)
    if target.exists():
        raise UserError(f"--output {target}: there is something already. Name a new folder.")
    settings = saved_settings(found)
    photos = _photos(settings.data.data_dir, data)
    cache = user_path(cache_dir) if cache_dir else settings.model.cache_dir
    answers, means_CD = load_answers(found)
    classifier = load_classifier(found, base_model=base_model, cache_dir=cache, fast=False)
    about = _about(found, classifier.preprocess.to_dict())
    predictor = Predictor(
        found.path, device="cpu", base_model=base_model, cache_dir=cache, precision="float32"
    )
    with whole_folder(target) as folder:
        graph = AnswerGraph(classifier, answers, means_CD)
        write_onnx(
            graph, folder / GRAPH, size=classifier.preprocess.image_size,
            about=json.dumps(about, ensure_ascii=False),
        )  # fmt: skip
        runner = Path(__file__).with_name("runner.py").read_text(encoding="utf-8")
        _write(folder / "run.py", runner)
        _write(folder / EXPORTED, _json(about))
        verified = verify(folder, predictor, photos, progress=progress)
        _write(folder / EXPORTED, _json(about | {"verified": verified.to_dict()}))
        _write(folder / "README.md", _readme(found, verified))
        _write_checkpoint(folder, found)
    size = sum(path.stat().st_size for path in target.iterdir())
    return Export(folder=target, verified=verified, num_bytes=size)


def _photos(trained_on: Path, data: Path | str | None) -> list[Path]:
    """Up to `MOST_PHOTOS`, spread over the folder."""
    if data is None and not trained_on.is_dir():
        raise UserError(
            f"the photos of training are no longer at {trained_on}. Name a folder of photos, "
            "on which the exported answers are proved to be the same: --data FOLDER"
        )
    folder = user_path(data) if data is not None else trained_on
    if data is None and (folder / "val").is_dir():
        folder = folder / "val"
    paths = photos_below(folder, "--data")
    return [
        paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), MOST_PHOTOS), dtype=int)
    ]


def _about(checkpoint: Checkpoint, preprocess: dict[str, Any]) -> dict[str, Any]:
    """What export.json says, before anything was verified."""
    record, sums = checkpoint.record, checkpoint.path / SUMS
    return {
        "format": FORMAT,
        "cliptune": __version__,
        "precision": "float32",
        **classes_told(display_names(record.class_names, record.display_names), record.answers),
        "preprocess": preprocess,
        "base_model": record.base_model.model_dump(mode="json") | {"name": _base_name(checkpoint)},
        "checkpoint": {
            "name": checkpoint.path.name,
            "sums": sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else None,
        },
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def _write_checkpoint(folder: Path, source: Checkpoint) -> None:
    """What makes `folder` a checkpoint: the files of `source` that its graph does not replace.

    They go on to others with it, so that where things lay on this machine is left out of them.
    """
    for name in (HEAD, MEANS, PHOTOS):
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, folder / name)
    base = source.record.base_model.model_copy(update={"name": _base_name(source)})
    write_record(folder, source.record.model_copy(update={"base_model": base}))
    settings = saved_settings(source).without_folders()
    settings["model"]["name"] = base.name
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    _write(folder / "config.yaml", text)
    write_sums(folder, leave_out=UNSUMMED)


def _base_name(checkpoint: Checkpoint) -> str:
    """The base model's name on the hub; of a folder its own name alone, since the file goes on."""
    name = checkpoint.record.base_model.name
    return Path(name).name if Path(name).expanduser().is_absolute() else name


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _json(about: dict[str, Any]) -> str:
    return json.dumps(about, indent=1, ensure_ascii=False) + "\n"


def _readme(checkpoint: Checkpoint, verified: Verified) -> str:
    record = checkpoint.record
    return f"""# {len(record.class_names)} classes, as ONNX

Made by cliptune {__version__} from the checkpoint `{checkpoint.path.name}`.
Base model: `{_base_name(checkpoint)}`, whose licence holds for these weights, too.

    pip install numpy Pillow onnxruntime
    python run.py photo.jpg

- `model.onnx`: uint8 pixels (B, 3, H, W), any B -> `logits` (B, C); `probabilities` (B, C),
  calibrated; `features` (B, D); and, where the checkpoint tells strangers, `known_score` and
  `known` (B,). In float32.
- `export.json`: the classes in the order of C, how a photo is brought to size, threshold and
  temperature, sums and versions.
- `run.py`: photos to answers with numpy, Pillow and onnxruntime; import `Exported` from it.
  Resizing is Pillow's: another library's gives other pixels, and other answers.
- the other files: what cliptune needs beside these to take this folder as a checkpoint.

Proved on {verified.photos} photos beside cliptune's own answers in float32: the largest difference
of a probability is {verified.largest_difference:.1e} ({TOLERANCE:g} allowed);
{verified.other_labels} other labels, {verified.other_known} other "known".
"""

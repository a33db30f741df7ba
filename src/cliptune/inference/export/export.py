"""`cliptune export`: a checkpoint as a folder that answers the same without this package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from cliptune.data.image_files import photos_below
from cliptune.errors import CheckpointError, UserError
from cliptune.files import user_path, whole_folder, write_sums
from cliptune.hints import check_choice
from cliptune.inference.export.for_transformers import CLASSIFIER, RUNNER, write_for_transformers
from cliptune.inference.export.half import halve
from cliptune.inference.export.int8 import Int8, int8_photos, put_answers, write_int8
from cliptune.inference.export.licence import base_licence
from cliptune.inference.export.programs import program
from cliptune.inference.export.telling import base_name, readme, told_of
from cliptune.inference.export.verify import FORMS, TOLERANCES, Verified, verify
from cliptune.inference.predictor import Predictor
from cliptune.model.checkpoint import (
    HEAD,
    PHOTOS,
    UNSUMMED,
    Checkpoint,
    resolve_checkpoint,
    write_means,
    write_record,
)
from cliptune.model.classifier import Classifier
from cliptune.model.exported.about import EXPORTED
from cliptune.model.exported.classifier import GRAPH
from cliptune.model.exported.graph import AnswerGraph, import_onnx, write_onnx
from cliptune.model.label_answers import AnyAnswers, LabelAnswers
from cliptune.model.restore import (
    load_answers,
    load_classifier,
    load_label_answers,
    saved_settings,
)
from cliptune.storage import folder_here, is_address, local_folder

MOST_PHOTOS = 200  # that are answered for twice
RUNNERS = ("run.py", RUNNER)
PRECISIONS = ("float32", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written."""

    folder: Path
    verified: Verified
    num_bytes: int
    int8: Int8 | None = None

    @property
    def runner(self) -> Path:
        """The program in it that answers for photos."""
        return next(self.folder / name for name in RUNNERS if (self.folder / name).is_file())


def export(
    checkpoint: Path | str,
    output: Path | str,
    *,
    data: Path | str | None = None,
    form: str = "onnx",
    precision: str = "float32",
    max_loss: float = 1.0,
    base_model: str | None = None,
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> Export:
    """Write the checkpoint (or the best of a run folder) to the new folder `output`.

    `form` is "onnx" or "transformers": a folder that plain `transformers` loads, with a head beside
    it. The graph takes uint8 pixels (B, 3, H, W) and gives the probabilities, features and, where
    the checkpoint holds a threshold, "none of these". `data` is a folder of photos on which its
    answers are proved to be the `Predictor`'s, up to 200 of them; None: those the checkpoint was
    trained with, val before others. Nothing is left at `output` unless they are. Of several labels
    to a photo, each class has a probability of its own, and the classes told are proved, too.

    `precision` is "float32"; "fp16", which keeps the weights so and may differ by 0.002; or "int8",
    which is calibrated on photos of train, answers as fitted again on val, and is refused where the
    95 % interval of what it loses there ends above `max_loss` points (of accuracy, or of mean
    average precision where photos have several labels): it answers otherwise than
    the `Predictor` of the checkpoint, and is proved to answer as that of its own folder. Its `data`
    is a folder with splits.

    Raises `MissingExtra` without ONNX's packages, `UserError` where `output` is taken, where
    there are no photos, and where an answer differs or too many do; `CheckpointError` as of
    `Predictor`.
    """
    _check(form, precision)
    found, target = _source(checkpoint), _new_folder(output)
    settings = saved_settings(found)
    ours = None
    if precision == "int8":
        splits = local_folder(settings.data.data_dir if data is None else data)
        ours = int8_photos(found, settings, splits, max_loss=max_loss)
        photos = _some([sample.path for sample in ours.judging])
    else:
        photos = _photos(settings.data.data_dir, data)
    cache = user_path(cache_dir) if cache_dir else settings.model.cache_dir
    licence = base_licence(found, base_model=base_model, cache_dir=cache)
    classifier = load_classifier(found, base_model=base_model, cache_dir=cache, fast=False)
    with whole_folder(target) as folder:
        answering, done = _answering(found), None
        if ours is not None:
            done = write_int8(
                folder, classifier, ours, answers=answering.answers, seed=settings.seed,
                max_loss=max_loss, parents=found.record.tree, progress=progress,
            )  # fmt: skip
            answering = _Answering(done.answers, done.means_CD)
        about = told_of(found, classifier.preprocess, answering.answers, precision, licence)
        _write_form(folder, found, classifier, answering, about, form=form, int8=done)
        where: dict[str, Any] = {"device": "cpu", "base_model": base_model, "cache_dir": cache}
        beside = (  # in int8 it answers by what was fitted again: as the folder itself does
            Predictor(found.path, precision="float32", **where)
            if done is None
            else Predictor(folder, **where)
        )
        verified = verify(
            folder, beside, photos, progress=progress, tolerance=TOLERANCES[precision], form=form
        )
        _tell(folder, found, verified, form=form, int8=done)
    num_bytes = sum(path.stat().st_size for path in target.iterdir())
    return Export(folder=target, verified=verified, num_bytes=num_bytes, int8=done)


@dataclass(frozen=True)
class _Answering:
    """What makes answers of logits and features."""

    answers: AnyAnswers | None
    means_CD: NDArray[np.floating[Any]] | None

    @property
    def several(self) -> bool:
        """Whether photos show any number of the classes."""
        return isinstance(self.answers, LabelAnswers)


def _answering(checkpoint: Checkpoint) -> _Answering:
    if (answers := load_label_answers(checkpoint)) is not None:
        return _Answering(answers, None)
    return _Answering(*load_answers(checkpoint))


def _write_form(
    folder: Path,
    source: Checkpoint,
    classifier: Classifier,
    answering: _Answering,
    about: dict[str, Any],
    *,
    form: str,
    int8: Int8 | None,
) -> None:
    """Write all but the proof; `about` is what the folder says of itself. The graph of `int8` is
    there and lacks its answers."""
    answers, means_CD = answering.answers, answering.means_CD
    if form == "transformers":
        write_for_transformers(folder, source.path, classifier, answers, means_CD, about)
        return
    changes: dict[str, object] = {"label_answers" if answering.several else "answers": answers}
    if int8 is not None:
        about |= {"int8": int8.to_dict()}
        put_answers(folder, classifier, int8, about)
        changes["metrics"] = int8.metrics
    else:
        told = json.dumps(about, ensure_ascii=False)
        size = classifier.preprocess.image_size
        write_onnx(
            AnswerGraph(classifier, answers, means_CD), folder / GRAPH, size=size, about=told
        )
    if about["precision"] == "fp16":
        halve(folder / GRAPH)
    _write(folder / "run.py", program("runner.py", several=answering.several))
    _write_checkpoint(folder, source, changes, means_CD, about)


def _tell(
    folder: Path, source: Checkpoint, verified: Verified, *, form: str, int8: Int8 | None
) -> None:
    """What was proved, for programs and people; and the sums of all."""
    told = folder / (EXPORTED if form == "onnx" else CLASSIFIER)
    said = json.loads(told.read_text(encoding="utf-8")) | {"verified": verified.to_dict()}
    _write(told, _json(said))
    _write(folder / "README.md", readme(source, verified, said, int8))
    write_sums(folder, leave_out=UNSUMMED)


def _source(checkpoint: Path | str) -> Checkpoint:
    found = resolve_checkpoint(user_path(checkpoint))
    if found.exported:
        raise CheckpointError(
            f"{found.path}: this is an exported folder already. Expected the checkpoint it was "
            "made from."
        )
    return found


def _new_folder(output: Path | str) -> Path:
    target = folder_here(output, "--output")
    if target.exists():
        raise UserError(f"--output {target}: there is something already. Name a new folder.")
    return target


def _photos(trained_on: Path, data: Path | str | None) -> list[Path]:
    """Up to `MOST_PHOTOS`, spread over the folder."""
    if data is None and not is_address(trained_on) and not trained_on.is_dir():
        raise UserError(
            f"the photos of training are no longer at {trained_on}. Name a folder of photos, "
            "on which the exported answers are proved to be the same: --data FOLDER"
        )
    folder = local_folder(trained_on if data is None else data)
    if data is None and (folder / "val").is_dir():
        folder = folder / "val"
    return _some(photos_below(folder, "--data"))


def _some(paths: Sequence[Path]) -> list[Path]:
    """Up to `MOST_PHOTOS` of `paths`, spread over them."""
    count = min(len(paths), MOST_PHOTOS)
    return [paths[i] for i in np.linspace(0, len(paths) - 1, count, dtype=int)]


def _check(form: str, precision: str) -> None:
    """Refuse what cannot be exported, before anything is loaded."""
    check_choice("--format", form, FORMS, refusal=UserError)
    if precision == "bf16":
        raise UserError(
            "precision bf16: onnxruntime's CPU has no products in it, and weights kept so would be "
            "as large as in fp16 and eight times as coarse. Take fp16 or int8."
        )
    check_choice("precision", precision, PRECISIONS, refusal=UserError)
    if form == "onnx":
        import_onnx()
    elif precision != "float32":
        raise UserError(
            f"--format transformers is float32; found --{precision}. Whoever loads it chooses: "
            "AutoModel.from_pretrained(folder, dtype=torch.float16)."
        )


def _write_checkpoint(
    folder: Path,
    source: Checkpoint,
    changes: Mapping[str, object],
    means_CD: NDArray[np.floating[Any]] | None,
    about: dict[str, Any],
) -> None:
    """What makes `folder` a checkpoint: the files of `source` that its graph does not replace.

    `changes` to its record and `means_CD` are the graph's own; `about` is for other programs.

    They go on to others with it, so that where things lay on this machine is left out of them.
    """
    _write(folder / EXPORTED, _json(about))
    write_means(folder, means_CD)
    for name in (HEAD, PHOTOS):
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, folder / name)
    base = source.record.base_model.model_copy(update={"name": base_name(source)})
    write_record(folder, source.record.model_copy(update={**changes, "base_model": base}))
    settings = saved_settings(source).without_folders()
    settings["model"]["name"] = base.name
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    _write(folder / "config.yaml", text)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _json(about: dict[str, Any]) -> str:
    return json.dumps(about, indent=1, ensure_ascii=False) + "\n"

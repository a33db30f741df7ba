"""One self-contained folder for a trained classifier: write, read, list, best, prune.

    checkpoint-epoch-3/
        adapter_config.json, adapter_model.safetensors   loadable by `peft` itself
        head.safetensors                                 class weights
        means.safetensors                                mean feature of each class's val photos
        photos.safetensors                               sums of the photos of train and val
        cliptune.json                                    what the tensors mean (`Record`)
        config.yaml, tokenizer and preprocessor files, README.md
        resume/                                          what only training needs
        SHA256SUMS                                       of all these but README.md

An exported folder (`cliptune.inference.export`) is one whose image tower is a graph: export.json,
model.onnx and run.py are there in the place of adapters, and nothing that names a folder of the
machine it was trained on.

Written beside its place and moved there whole. Only safetensors, JSON, YAML and ONNX are ever read.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from cliptune.data.digests import PhotoSums
from cliptune.data.naming import clean_name, display_names
from cliptune.data.parents import Parents
from cliptune.errors import CheckpointError, StorageError, named
from cliptune.files import SUMS, check_sums, delete_folder, user_path, whole_folder, write_sums
from cliptune.foreign_errors import resource_errors, system_reason
from cliptune.hints import not_there
from cliptune.model.answers import Answers
from cliptune.model.classifier import Classifier
from cliptune.model.exported.about import AGAIN, EXPORTED, read_about
from cliptune.model.exported.classifier import GRAPH
from cliptune.model.label_answers import LabelAnswers
from cliptune.model.lora import adapter_state
from cliptune.storage import (
    address_of,
    hub_place,
    joined,
    kept_checkpoint,
    kept_from_hub,
    lists,
    local_folder,
    protocol_of,
    read_bytes,
    subfolders,
)

log = logging.getLogger(__name__)

FORMAT = 1  # of what `Record` holds; all since the first are read (CONTRIBUTING.md, Versions)
RECORD = "cliptune.json"
ADAPTER = "adapter_model.safetensors"
HEAD = "head.safetensors"
MEANS = "means.safetensors"  # absent where val was not measured at this point
PHOTOS = "photos.safetensors"  # earlier checkpoints lack it
NEEDED = (RECORD, "adapter_config.json", ADAPTER, HEAD)
NEEDED_EXPORTED = (RECORD, EXPORTED, GRAPH, HEAD)
UNSUMMED = frozenset({"README.md"})  # may be edited by its owner
NAME = re.compile(r"^checkpoint-(epoch|step)-(\d+)$")


class BaseModelRecord(BaseModel):
    """The base model a checkpoint belongs to."""

    name: str
    revision: str | None
    fingerprint: str


class Record(BaseModel):
    """What `cliptune.json` holds. Metrics are fractions and nats, not percent.

    `display_names` and `prompt_names` have those classes (and parents) alone that are not called by
    default: `cliptune.data.naming` makes the names of all. Earlier checkpoints lack both, and
    `answers`, `prior`, `history` and `lower_case`: their prompts were taken as they were written.
    """

    model_config = ConfigDict(strict=True)

    format: Literal[1] = 1
    class_names: list[str]
    display_names: dict[str, str] = {}
    prompt_names: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    parents: dict[str, str] = {}  # of classes, and of parents that have one
    base_model: BaseModelRecord
    head: Literal["text", "fitted", "linear"]
    prompts: list[str]
    lower_case: bool = False  # whether prompts were lower-cased before they became tokens
    preprocess: dict[str, Any]
    epoch: int  # finished epochs
    update: int  # finished optimizer updates
    strength: float = 1.0  # of what was learned since the fitted head, the share that counts
    val_in_head: bool = False  # then the val figures are those of a head that val is not in
    without_val: bool = False  # there was no photo to measure on
    metrics: dict[str, float | int | None]
    answers: Answers | None = None  # fitted on val, where it was measured at this point
    task: Literal["single", "multilabel"] = "single"  # labels of a photo: one, or any number
    label_answers: LabelAnswers | None = None  # in the place of `answers`, of several labels
    prior: list[Annotated[float, Field(gt=0)]] | None = None  # each class's share of training
    history: list[str] = []  # classes added and removed since training, in words
    versions: dict[str, str]

    @property
    def tree(self) -> Parents:
        """The parents of its classes."""
        return Parents(self.class_names, self.parents)

    @property
    def shown_names(self) -> dict[str, str]:
        """Class or parent -> the name to show."""
        return display_names([*self.class_names, *self.tree.names], self.display_names)

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without parents it is written as it was before there were any."""
        values: dict[str, Any] = handler(self)
        return {key: x for key, x in values.items() if key != "parents" or x}

    @model_validator(mode="after")
    def _clean_names(self) -> Self:
        """Earlier versions wrote names as folders spelt them; they must match folders of today.

        Where they took two spellings for two classes, both stay what they were called.
        """
        cleaned = [clean_name(name) for name in self.class_names]
        if len(set(cleaned)) == len(set(self.class_names)):
            self.class_names = cleaned
            self.display_names = {clean_name(k): v for k, v in self.display_names.items()}
            self.prompt_names = {clean_name(k): v for k, v in self.prompt_names.items()}
        return self


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder and its record."""

    path: Path
    record: Record

    @property
    def exported(self) -> bool:
        """Whether its image tower is an ONNX graph, which needs no base model."""
        return (self.path / EXPORTED).is_file()

    @property
    def val_accuracy(self) -> float | None:
        """Accuracy on val as a fraction, where it was measured at this point."""
        value = self.record.metrics.get("val_accuracy")
        return None if value is None else float(value)


def is_of_several_labels(path: Path | str) -> bool:
    """Whether the checkpoint, or the best of a run, is for any number of labels to a photo."""
    return resolve_checkpoint(user_path(path)).record.task == "multilabel"


def write_checkpoint(
    path: Path,
    classifier: Classifier,
    record: Record,
    *,
    means_CD: NDArray[np.floating[Any]] | None = None,
    photo_sums: PhotoSums | None = None,
    write_extras: Callable[[Path], None],
) -> Checkpoint:
    """Write a checkpoint folder at `path` and return it; `write_extras` adds files to the folder.

    `means_CD` are the directions of the classes' mean features, for `MEANS`, and `photo_sums`
    tell the photos it learned from and was chosen by, for `PHOTOS`.

    Nothing appears at `path` before all is written and on the disk. Raises `ResourceError` on a
    full disk.
    """
    with new_checkpoint_folder(path) as folder:
        _write_adapter(folder, classifier.model, record)
        write_tensors(folder / HEAD, classifier.head.state_dict())
        write_means(folder, means_CD)
        write_photo_sums(folder, photo_sums)
        write_record(folder, record)
        write_extras(folder)
    return Checkpoint(path, record)


@contextmanager
def new_checkpoint_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; with its sums it appears at `path` whole, or not at all.

    Raises `ResourceError` on a full disk.
    """
    left = "; the checkpoint was not written, earlier ones are untouched"
    then = ", then go on with --resume, or run the command again"
    with resource_errors(path, left=left, then=then), whole_folder(path) as folder:
        yield folder
        write_sums(folder, leave_out=UNSUMMED)


def write_record(folder: Path, record: Record) -> None:
    """Write `RECORD` into `folder`."""
    text = json.dumps(record.model_dump(), indent=2, ensure_ascii=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8", newline="\n")


def write_means(folder: Path, means_CD: NDArray[np.floating[Any]] | None) -> None:
    """Write `MEANS` into `folder`, where there are any."""
    if means_CD is not None:
        means = torch.from_numpy(np.asarray(means_CD, dtype=np.float32))
        write_tensors(folder / MEANS, {"means": means})


def write_photo_sums(folder: Path, sums: PhotoSums | None) -> None:
    """Write `PHOTOS` into `folder`, where they are known."""
    if sums is not None:
        parts = {"train": sums.train, "val": sums.val}
        write_tensors(folder / PHOTOS, {k: torch.from_numpy(v) for k, v in parts.items()})


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in the folder `path`, its record checked, its tensors not yet loaded.

    Raises `CheckpointError` when files are missing, damaged or changed since they were written.
    """
    what, needed, remedy = "cliptune checkpoint", NEEDED, "Use another checkpoint of the run"
    if (path / EXPORTED).is_file():
        read_about(path)
        what, needed, remedy = "exported folder", NEEDED_EXPORTED, AGAIN
    missing = [name for name in needed if not (path / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{path}: not a whole {what}: {', '.join(missing)} missing. "
            f"Expected {', '.join(needed)}."
        )
    if faults := check_sums(path, may_lack="resume"):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise CheckpointError(f"{path}: {faults[0]}{more}. {remedy}.")
    return Checkpoint(path, _read_record(path / RECORD))


def _read_record(path: Path) -> Record:
    """Raises `CheckpointError` for a damaged file, or one of a later format."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text)
        later = values.get("format") if isinstance(values, dict) else None
        if isinstance(later, int) and later > FORMAT:
            raise CheckpointError(
                f"{path}: format {later}, and this cliptune reads {FORMAT}. Update cliptune."
            )
        return Record.model_validate_json(text)
    except ValueError as error:  # also of JSON, of UTF-8 and of pydantic
        fault = str(error).splitlines()
        raise CheckpointError(
            f"{path}: damaged or of another format version "
            f"(this cliptune reads format {FORMAT}): "
            f"{'; '.join(line.strip() for line in fault[:3])}"
        ) from None


def resolve_checkpoint(path: Path | str) -> Checkpoint:
    """The checkpoint at the path or address, or the best one of the run folder that is there.

    `hf:owner/name@revision` is one on the hub. What is at an address or on the hub is fetched whole
    and kept. Raises `CheckpointError`, naming those that do exist, when there is none,
    `StorageError`, and `HubError`.
    """
    if place := hub_place(path):
        return read_checkpoint(kept_from_hub(place))
    if (address := address_of(path)) and protocol_of(address) != "file":
        return read_checkpoint(_kept(address))
    path = local_folder(path)
    of_a_run = NAME.match(path.name) and path.is_dir()
    if of_a_run or any((path / name).is_file() for name in (RECORD, EXPORTED)):
        return read_checkpoint(path)
    if path.is_dir():
        checkpoints, faults = read_run(path)
        if best := best_of(checkpoints):
            for damaged in faults:
                log.warning("left out of the choice of the best: %s", damaged)
            return best
        raise CheckpointError(
            f"{path}: no checkpoint in this folder. Expected a checkpoint folder, or a run's "
            f"output folder with checkpoint-epoch-1 and so on in it.{_runs(path)}"
        )
    if path.is_file():
        raise CheckpointError(f"{path}: this is a file. Expected a checkpoint folder.")
    where = not_there(path, "no such checkpoint")
    there = (
        _existing(path.parent)
        if path.parent.is_dir()
        else "Expected a run's output folder, or a checkpoint in it: 'cliptune train' makes one."
    )
    raise CheckpointError(f"{path}: {where} {there}")


def _kept(address: str) -> Path:
    """Where the checkpoint at `address`, or the best one of the run there, is kept."""
    try:
        return kept_checkpoint(address)
    except StorageError as error:
        if not error.missing:
            raise
    of_a_run: list[Checkpoint] = []
    for name in subfolders(address) if lists(address) else ():
        if NAME.match(name):
            content = read_bytes(joined(joined(address, name), RECORD), limit_bytes=2**26)
            with suppress(ValidationError):
                of_a_run.append(Checkpoint(Path(name), Record.model_validate_json(content)))
    of_a_run.sort(key=lambda c: (c.record.update, c.path.name.startswith("checkpoint-epoch")))
    if best := best_of(of_a_run):
        return kept_checkpoint(joined(address, best.path.name))
    raise CheckpointError(
        f"{address}: no {SUMS} there, by which a checkpoint is known to be whole, and no run. "
        "Expected a checkpoint folder as cliptune writes it, or a run's output folder with "
        "checkpoint-epoch-1 and so on in it (which a web server does not list: name the checkpoint "
        "itself)."
    )


def list_checkpoints(run_dir: Path) -> list[Checkpoint]:
    """The whole checkpoints of a run, oldest update first."""
    return read_run(run_dir)[0]


def read_run(run_dir: Path) -> tuple[list[Checkpoint], list[str]]:
    """The whole checkpoints of a run, oldest update first, and what is wrong with the others."""
    found, faults = [], []
    for path in sorted(run_dir.iterdir()) if run_dir.is_dir() else ():
        if NAME.match(path.name) and path.is_dir() and not (path / EXPORTED).is_file():
            try:
                found.append(read_checkpoint(path))
            except CheckpointError as error:
                faults.append(str(error))
    found.sort(key=lambda c: (c.record.update, c.path.name.startswith("checkpoint-epoch")))
    return found, faults


def best_checkpoint(run_dir: Path) -> Checkpoint | None:
    """The best of a run's whole checkpoints, as `best_of` chooses."""
    return best_of(list_checkpoints(run_dir))


# What chooses among the epochs of a run that began with a fitted head, today and before.
CRITERIA = ("val_criterion", "val_scaled_loss")


def best_of(checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """The one with the highest val accuracy, then the lowest val loss, then the earliest.

    Of a run that began with a fitted head: that of the least criterion on val, a log loss
    (`training.validation`): a few dozen photos tell little by accuracy. Without val, the fitted
    head itself.
    """
    measured = [c for c in checkpoints if c.val_accuracy is not None]
    unmeasured = [c for c in checkpoints if c.record.without_val]
    return min(measured, key=_rank, default=unmeasured[-1] if unmeasured else None)


def prune_checkpoints(run_dir: Path, *, keep: int) -> list[Path]:
    """Delete old checkpoints until `keep` are left; returns the deleted ones.

    The newest, from which a run goes on, and the best are never deleted.
    """
    checkpoints = list_checkpoints(run_dir)
    best = best_of(checkpoints)
    protected = {c.path for c in (checkpoints[-1:] + ([best] if best else []))}
    deletable = [c.path for c in checkpoints if c.path not in protected]
    excess = max(0, len(checkpoints) - max(keep, len(protected)))
    deleted = []
    for path in deletable[:excess]:
        try:
            delete_folder(path)
            deleted.append(path)
        except PermissionError as error:  # Windows: a program or a terminal is in the folder
            log.warning("%s: kept, since it cannot be deleted (%s)", path, system_reason(error))
    return deleted


def _write_adapter(folder: Path, model: Any, record: Record) -> None:
    config = model.peft_config["default"]
    config.base_model_name_or_path = record.base_model.name
    config.revision = record.base_model.revision
    inference_mode, config.inference_mode = config.inference_mode, True
    try:
        config.save_pretrained(str(folder))
    finally:
        config.inference_mode = inference_mode
    write_tensors(folder / ADAPTER, adapter_state(model))


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write `tensors` to a safetensors file."""
    from safetensors.torch import save

    # Written by ourselves: a full disk is then the system's own error, with its number.
    cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.write_bytes(save(cpu, {"format": "pt"}))


def _rank(checkpoint: Checkpoint) -> tuple[float, float, int]:
    metrics = checkpoint.record.metrics
    if by := [key for key in CRITERIA if key in metrics]:
        criterion = metrics[by[0]]
        return float("inf") if criterion is None else criterion, 0.0, checkpoint.record.update
    loss = metrics.get("val_loss")
    accuracy = checkpoint.val_accuracy
    assert accuracy is not None
    return -accuracy, float("inf") if loss is None else float(loss), checkpoint.record.update


def _runs(folder: Path) -> str:
    """The runs in `folder`, where it is the one above them."""
    runs = [run.name for run in sorted(folder.iterdir()) if any(run.glob("checkpoint-*"))]
    return f" It holds runs: {named(runs)}." if runs else ""


def _existing(run_dir: Path) -> str:
    checkpoints = list_checkpoints(run_dir)
    if not checkpoints:
        return f"{run_dir} holds none. Train one with 'cliptune train'."
    names = ", ".join(c.path.name for c in checkpoints)
    best = best_of(checkpoints)
    hint = f" The best is {best.path}" if best else ""
    if best and best.val_accuracy is not None:
        hint += f" (val accuracy {best.val_accuracy:.1%})."
    return f"{run_dir} holds: {names}.{hint}"

"""One class more, or one less: what of a checkpoint changes with its classes, and how.

Pure functions on `ClassParts`, then the folder they are written to. Nothing else of a checkpoint
is touched: adapters, tokenizer and settings are copied byte for byte. The graph of an exported
folder keeps its image tower and gets another head.
Shape suffixes: C classes, D feature.
"""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.data.digests import content_sums
from cliptune.data.naming import class_name_fault, clean_name, name_key, spoken_name
from cliptune.errors import CheckpointError, UserError, named
from cliptune.files import SUMS
from cliptune.hints import did_you_mean
from cliptune.model.answers import Answers
from cliptune.model.checkpoint import (
    HEAD,
    MEANS,
    PHOTOS,
    RECORD,
    Checkpoint,
    Record,
    new_checkpoint_folder,
    write_means,
    write_photo_sums,
    write_record,
    write_tensors,
)
from cliptune.model.classifier import Head, empty_head
from cliptune.model.exported.about import EXPORTED
from cliptune.model.exported.changing import write_with_head
from cliptune.model.exported.classifier import GRAPH
from cliptune.model.label_answers import LabelThreshold, usual_answers
from cliptune.model.restore import (
    load_answers,
    load_head,
    load_label_answers,
    load_photo_sums,
    texts_say_nothing,
)
from cliptune.text import command, counted, no_markup

CARD = "README.md"
LEAST_SHARE = 0.1  # of zero-shot in a fitted head, for a class from its prompts
LEAST = 2  # a classifier of one class says nothing


@dataclass(frozen=True)
class ClassParts:
    """What of a checkpoint depends on its classes.

    `head` are the tensors of a head of `cliptune.model.classifier`, one row for each class in the
    order of `record.class_names`; `means_CD` the directions of the classes' mean features, or None
    (of several labels to a photo always: classes are not told from one another).
    """

    record: Record
    head: dict[str, torch.Tensor]
    means_CD: NDArray[np.float32] | None


def read_parts(checkpoint: Checkpoint) -> ClassParts:
    """The parts of `checkpoint`. Raises `CheckpointError` when they are damaged."""
    several = load_label_answers(checkpoint) is not None
    if several and checkpoint.exported:
        raise UserError(
            f"{checkpoint.path}: it has any number of labels to a photo and was exported. Change "
            "the classes of the checkpoint it was made from, and export that."
        )
    head = load_head(checkpoint.path, checkpoint.record).state_dict()
    return ClassParts(checkpoint.record, head, None if several else load_answers(checkpoint)[1])


def head_of(parts: ClassParts) -> Head:
    """The head whose tensors `parts` holds."""
    rows_CD = parts.head["linear.weight" if parts.record.head == "linear" else "offset"]
    head = empty_head(parts.record.head, *rows_CD.shape)
    head.load_state_dict(parts.head)
    return head.requires_grad_(False)


def with_class(
    parts: ClassParts,
    name: str,
    *,
    text_D: torch.Tensor,
    weight_D: torch.Tensor | None = None,
    bias: float = 0.0,
    threshold: LabelThreshold | None = None,
    mean_D: NDArray[np.floating[Any]] | None = None,
    num_photos: int = 0,
    display_name: str | None = None,
    prompt_names: Sequence[str] = (),
    parent: str | None = None,
) -> ClassParts:
    """`parts` with the class `name` as the last one; the rows of the others are as they were.

    `text_D` is the text feature of its prompts, of length 1. Its class weight is that, as in
    zero-shot CLIP, or `weight_D`, placed by `num_photos` photos of mean direction `mean_D`. Where
    photos have several labels it has a `bias`, too, and a `threshold`.

    Raises `CheckpointError` for a head without text features, `UserError` for a name that is
    taken or cannot be one.
    """
    record = parts.record
    if record.head == "linear":
        raise CheckpointError(
            "this checkpoint has a linear head, and a class cannot be added to one. A "
            "linear head was learned from nothing but photos: it knows no prompts, and it answers "
            "by the length of features, which the checkpoint does not keep. Train anew with the "
            "new class, or with model.head: text."
        )
    if record.head == "fitted" and weight_D is None and parts.head["share"] < LEAST_SHARE:
        raise CheckpointError(
            f"the head of this checkpoint takes {float(parts.head['share']):.0%} of its answers "
            f"from text, and a class from its prompts alone needs {LEAST_SHARE:.0%} at least: it "
            "would never be answered. Give photos of it with --images."
        )
    check_new_class(record, name, display_name=display_name, parent=parent)
    if texts_say_nothing(parts.head["features"]):
        raise CheckpointError(
            "the text features of this checkpoint's classes are all the same: its base model had "
            "no tokenizer of its own when it was trained, and a class that has one would not be "
            "told from them rightly. Train anew with the base model's tokenizer in its folder."
        )
    head = _head_with(parts.head, text_D, weight_D, bias)
    means_CD = parts.means_CD
    if means_CD is not None:  # zeros: no photo of it is known
        row_D = np.zeros(means_CD.shape[1]) if mean_D is None else mean_D
        means_CD = np.concatenate([means_CD, np.asarray(row_D, np.float32)[None]])
    source = "its prompts" if num_photos == 0 else counted(num_photos, "photo")
    given = [] if list(prompt_names) == [spoken_name(name)] else list(prompt_names)
    changed = _changed(
        record,
        class_names=[*record.class_names, name],
        display_names=record.display_names | ({name: display_name} if display_name else {}),
        prompt_names=record.prompt_names | ({name: given} if given else {}),
        parents=record.parents | ({name: parent} if parent else {}),
        factors=_factors_with_mean,
        thresholds=lambda thresholds: (*thresholds, threshold),
        prior=None,  # how frequent it is, no training has said
        event=f"class '{name}' added from {source}{_from_where(threshold)}",
    )
    return ClassParts(changed, head, means_CD)


def _from_where(threshold: LabelThreshold | None) -> str:
    """What is to be known of a threshold that no photo has measured."""
    if threshold is None or threshold.photos:
        return ""
    return f", told from {threshold.value:.2f} on, which was not measured"


def _head_with(
    head: dict[str, torch.Tensor],
    text_D: torch.Tensor,
    weight_D: torch.Tensor | None,
    bias: float,
) -> dict[str, torch.Tensor]:
    """The tensors of `head` with a row more, of class weight `weight_D`, or what the text gives."""
    from_text_D = head.get("share", torch.ones(())) * text_D
    learned_D = torch.zeros_like(text_D) if weight_D is None else weight_D - from_text_D
    rows = {"features": text_D, "offset": learned_D}
    if "fitted" in head:
        rows = {
            "features": text_D, "fitted": learned_D, "offset": torch.zeros_like(text_D),
            "bias": torch.tensor(bias),
        }  # fmt: skip
    return head | {key: _with_row(head[key], row) for key, row in rows.items()}


def without_class(parts: ClassParts, name: str) -> ClassParts:
    """`parts` without the class `name`; the rows of the others are as they were.

    Raises `UserError` for an unknown class, and where fewer than two classes would be left.
    """
    record = parts.record
    index = class_index(record, name)
    name = record.class_names[index]
    if len(record.class_names) <= LEAST:
        raise UserError(
            f"class '{name}' cannot be removed: this checkpoint knows "
            f"{counted(len(record.class_names), 'class')}, and a classifier needs at least {LEAST}."
        )
    head = {
        key: tensor if tensor.ndim == 0 else torch.cat([tensor[:index], tensor[index + 1 :]])
        for key, tensor in parts.head.items()
    }
    means_CD = None if parts.means_CD is None else np.delete(parts.means_CD, index, axis=0)
    changed = _changed(
        record,
        class_names=[each for each in record.class_names if each != name],
        display_names={k: v for k, v in record.display_names.items() if k != name},
        prompt_names={k: v for k, v in record.prompt_names.items() if k != name},
        parents={k: v for k, v in record.parents.items() if k != name},
        factors=lambda factors: factors[:index] + factors[index + 1 :],
        thresholds=lambda thresholds: thresholds[:index] + thresholds[index + 1 :],
        prior=None if record.prior is None else record.prior[:index] + record.prior[index + 1 :],
        event=f"class '{name}' removed",
    )
    return ClassParts(changed, head, means_CD)


def class_index(record: Record, name: str) -> int:
    """The place of the class `name`, however it is spelt. Raises `UserError` for an unknown one."""
    for spelt in (name, clean_name(name)):
        if spelt in record.class_names:
            return record.class_names.index(spelt)
    matches = [i for i, known in enumerate(record.class_names) if _key(known) == _key(name)]
    if len(matches) == 1:
        return matches[0]
    by_key = {_key(known): known for known in record.class_names}
    near = difflib.get_close_matches(_key(name), list(by_key), n=3)
    hint = f"Nearest: {', '.join(by_key[key] for key in near)}. " if near else ""
    shown = ", ".join(record.class_names[:12]) + (", …" if len(record.class_names) > 12 else "")
    raise UserError(
        f"this checkpoint has no class '{name}'. {hint}"
        f"Its {counted(len(record.class_names), 'class')}: {shown}."
    )


def check_new_class(
    record: Record, name: str, *, display_name: str | None = None, parent: str | None = None
) -> None:
    """Raise `UserError` where `name` cannot be a class folder's name, or is taken.

    "Golden retriever" is taken where there is golden_retriever, or that as a parent of classes;
    `display_name` where another class is shown so. `parent` is to be one of those there are.
    """
    if parent is not None and parent not in (parents := record.tree.names):
        there = f"Its parents: {named(parents)}." if parents else "Its classes have none."
        raise UserError(
            f"--parent {parent}: this checkpoint has no such parent of classes."
            f"{did_you_mean(parent, parents)} {there}"
        )
    if fault := class_name_fault(name):
        raise UserError(
            f"class name {name!r}: {fault}. Expected the name a folder of its photos could have "
            "on every system, as 'cliptune prepare' wants it."
        )
    for above in record.tree.names:
        if _key(above) == _key(name):
            raise UserError(
                f"class '{name}': that is what classes of this checkpoint are called together, as "
                f"their parent '{above}'. Choose another name."
            )
    for known in record.class_names:
        if _key(known) == _key(name):
            raise UserError(
                f"class '{name}': this checkpoint already knows '{known}'. Choose another name, "
                "or remove that class first: "
                f"{command('cliptune', 'remove-class', 'CHECKPOINT', known)}"
            )
    shown = record.shown_names
    for known, shown_name in shown.items():
        if name_key(shown_name) == name_key(display_name or spoken_name(name)):
            raise UserError(
                f"class '{name}' would be shown as '{display_name or spoken_name(name)}', and so "
                f"is '{known}'; name them apart with --display-name."
            )


def write_changed(
    path: Path, source: Checkpoint, parts: ClassParts, *, placed_by: Sequence[Path] = ()
) -> Checkpoint:
    """Write `source` with the classes of `parts` to the new folder `path`; `source` stays as it is.

    The photos `placed_by` count among those it learned from.
    `resume/` is left behind: what an optimizer knew of other classes cannot be gone on from.
    Raises `UserError` where `path` exists, `ResourceError` on a full disk.
    """
    check_new_folder(path)
    written = {RECORD, HEAD, MEANS, PHOTOS, SUMS, CARD}
    if source.exported:
        written |= {EXPORTED, GRAPH}
    sums = load_photo_sums(source)
    if sums is not None:
        sums = sums.with_others(content_sums(placed_by), sums.val)
    with new_checkpoint_folder(path) as folder:
        for entry in sorted(source.path.iterdir()):
            if entry.is_file() and entry.name not in written:
                shutil.copyfile(entry, folder / entry.name)
        write_tensors(folder / HEAD, parts.head)
        write_means(folder, parts.means_CD)
        write_photo_sums(folder, sums)
        write_record(folder, parts.record)
        if source.exported:
            write_with_head(
                source.path, folder, head_of(parts),
                tree=parts.record.tree, names=parts.record.shown_names,
                answers=parts.record.answers, means_CD=parts.means_CD,
            )  # fmt: skip
        (folder / CARD).write_text(_card(source, parts.record), encoding="utf-8", newline="\n")
    return Checkpoint(path, parts.record)


def check_new_folder(path: Path) -> None:
    """Raise `UserError` where there is something at `path`."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists already. Name another folder with --output.")


def _changed(
    record: Record,
    *,
    class_names: list[str],
    display_names: dict[str, str],
    prompt_names: dict[str, list[str]],
    parents: dict[str, str],
    factors: Any,
    thresholds: Any,
    prior: list[float] | None,
    event: str,
) -> Record:
    """`record` with other classes. Figures of val go: they were those of the classes before.

    So do prediction sets, and how sure is sure: no photo has said what they hold of these classes.
    """
    answers = record.answers
    if answers is not None:
        answers = answers.model_copy(
            update={
                "note": "; ".join(filter(None, [answers.note, f"{event} since"])),
                "factors": None if answers.factors is None else factors(answers.factors),
                "sets": None,  # what they promise was fitted on the classes before
                "sure": None,
            }
        )
    several = record.label_answers
    if record.task == "multilabel":
        several = several or usual_answers(len(record.class_names))
        several = several.model_copy(update={"thresholds": thresholds(several.thresholds)})
    return Record.model_validate(
        record.model_dump()
        | {
            "class_names": class_names,
            "display_names": display_names,
            "prompt_names": prompt_names,
            "parents": parents,
            "metrics": {},
            "prior": prior,
            "answers": None if answers is None else Answers.model_dump(answers),
            "label_answers": None if several is None else several.model_dump(),
            "history": [*record.history, event],
        }
    )


def _factors_with_mean(factors: tuple[float, ...]) -> tuple[float, ...]:
    return (*factors, float(np.mean(factors)))


def _card(source: Checkpoint, record: Record) -> str:
    """The model card, which may have been edited, and what happened to the classes since."""
    card = source.path / CARD
    before = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    title = "## Classes changed after training"
    before = before.partition(f"\n{title}\n")[0].rstrip()
    events = "\n".join(f"- {no_markup(event)}" for event in record.history)
    names = ", ".join(no_markup(name) for name in record.class_names)
    return f"""{before}

{title}

What stands above describes the checkpoint as it was trained, its figures too. Since then, without
any training:

{events}

Its {counted(len(record.class_names), "class")} now: {names}.
""".lstrip()


def _with_row(tensor_CD: torch.Tensor, row_D: torch.Tensor) -> torch.Tensor:
    return torch.cat([tensor_CD, row_D.to(tensor_CD)[None]])


def _key(name: str) -> str:
    return name_key(spoken_name(clean_name(name)))

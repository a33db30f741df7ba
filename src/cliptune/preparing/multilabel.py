"""Photos with any number of labels to train/, val/ and test/, with `labels.csv` in each."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cliptune._version import __version__
from cliptune.data.manifest import Manifest, PrepareOptions, SourceRecord
from cliptune.data.multilabel import LABELS_FILE, parted, write_labels
from cliptune.data.splits import SPLITS
from cliptune.errors import DataError, named
from cliptune.files import user_path
from cliptune.foreign_errors import disk_errors
from cliptune.language import amount
from cliptune.language import translated as _
from cliptune.locks import alone
from cliptune.preparing.building import (
    build,
    check_apart,
    check_nothing_in_the_way,
    finish_or_clear,
    place_tree,
    work_folder,
    write_manifest,
)
from cliptune.preparing.download import ELSEWHERE
from cliptune.preparing.grouping import numbers_in_words, refuse_parted
from cliptune.preparing.sources.hub_dataset import HUB_PREFIX
from cliptune.preparing.sources.several_labels import SeveralLabels, photos_with_labels
from cliptune.preparing.splitting import Shares
from cliptune.text import counted, wrap


@dataclass(frozen=True)
class MultilabelPrepared:
    """What `prepare_multilabel` made: `counts` is split -> label -> photos."""

    output_dir: Path
    photos: dict[str, int]
    counts: dict[str, dict[str, int]]
    without: int  # photos that show none of the classes
    note: str = ""  # on groups, where there are some

    def summary(self) -> str:
        """A few lines for people."""
        classes = {name for counts in self.counts.values() for name in counts}
        text = _("{folder}: {photos} ({splits}), {classes}, any number to a photo").format(
            folder=self.output_dir,
            photos=amount(sum(self.photos.values()), "photo"),
            splits=", ".join(f"{number:,} {split}" for split, number in self.photos.items()),
            classes=amount(len(classes), "class"),
        )
        if self.without:
            photos = amount(self.without, "photo")
            text += _("; {photos} without a label").format(photos=photos)
        return text + (f"\n{wrap(_(self.note))}" if self.note else "")


def prepare_multilabel(
    output_dir: Path | str,
    source: Path | str,
    *,
    root: Path | str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    group: str | None = None,
    train_ratio: float = 0.7,
    val_ratio: float | None = None,
    link: bool = False,
    resize: int | None = None,
    seed: int = 42,
    progress: bool = True,
) -> MultilabelPrepared:
    """Make `output_dir` of a list, of COCO's .json or VOC's folder; see `sources.several_labels`.

    Splits of the source are kept, if it has them for all photos; otherwise each class is shared out
    as nearly as can be, by `train_ratio`, `val_ratio` and `seed` (`data.multilabel.parted`).
    `group`, a column or an expression as for `prepare`, keeps photos that belong together in one
    split, and `dataset.json` holds their groups.

    Raises `DataError` for a source with faults, whose own splits part a group, or of too few
    groups for the splits, and for an `output_dir` that holds photos.
    """
    output_dir = user_path(output_dir)
    if not str(source).startswith(HUB_PREFIX):
        source = user_path(source)
    shares = Shares(train_ratio=train_ratio, val_ratio=val_ratio, seed=seed)
    options = PrepareOptions(
        image_column=image_column, label_column=label_column, train_ratio=train_ratio,
        val_ratio=val_ratio, link=link, resize=resize, multilabel=True, group=group,
    )  # fmt: skip
    if isinstance(source, Path) and not source.exists():
        raise DataError(f"--source {source}: nothing is there. Expected a list or a folder.")
    check_apart(source, output_dir)
    found = photos_with_labels(
        source, root=user_path(root) if root else None, image_column=image_column,
        label_column=label_column, group=group,
    )  # fmt: skip
    if found.groups and found.splits:
        refuse_parted(list(found.labels), found.splits, found.groups, where=source, mend="Leave")
    splits = found.splits or _shared_out(found, shares, where=source)
    _refuse_missing(found, splits, source)
    with disk_errors(output_dir, then=ELSEWHERE), alone(output_dir):
        finish_or_clear(output_dir)
        check_nothing_in_the_way(output_dir)
        work = work_folder(output_dir)
        plan = {photo: PurePosixPath(splits[photo]) / photo for photo in found.labels}
        try:
            files = build(found.store, plan, work, link=link, resize=resize, progress=progress)
            for split in SPLITS:
                rows = {str(p): found.labels[p] for p in found.labels if splits[p] == split}
                if rows:
                    write_labels(work / split / LABELS_FILE, rows)
            counts = _counts(found, splits)
            named_groups = {plan[photo].as_posix(): g for photo, g in found.groups.items()}
            groups = {name: named_groups[name] for name in files} if named_groups else {}
            manifest = Manifest(
                cliptune=__version__,
                source=SourceRecord(
                    name=source.name if isinstance(source, Path) else source, kind=found.kind,
                    splits="source" if found.splits else "random",
                ),
                options=options, seed=seed, counts=counts, files=files, groups=groups,
            )  # fmt: skip
            write_manifest(manifest, work)
            place_tree(work, output_dir)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    photos = {split: list(splits.values()).count(split) for split in SPLITS}
    without = sum(not labels for labels in found.labels.values())
    note = ""
    if found.groups:
        own = {split: [p for p in found.labels if splits[p] == split] for split in SPLITS}
        note = numbers_in_words(own, found.groups)
    return MultilabelPrepared(output_dir, photos, counts, without, note)


def _shared_out(found: SeveralLabels, shares: Shares, *, where: object) -> dict[PurePosixPath, str]:
    """A split for each photo: a question of their paths, labels, groups and the seed alone."""
    photos = sorted(found.labels)
    names = sorted({name for labels in found.labels.values() for name in labels})
    targets_NC = np.array([[name in found.labels[photo] for name in names] for photo in photos])
    val = (1 - shares.train_ratio) / 2 if shares.val_ratio is None else shares.val_ratio
    of_each = np.array([shares.train_ratio, val, 1 - shares.train_ratio - val])
    groups_N = None
    if found.groups:
        numbers = {group: i for i, group in enumerate(dict.fromkeys(found.groups.values()))}
        if len(numbers) < len(SPLITS):
            raise DataError(
                f"{where}: --group: {counted(len(numbers), 'group')}: {named(sorted(numbers))}. "
                f"Expected {len(SPLITS)} or more, one for each of train, val and test."
            )
        groups_N = np.array([numbers[found.groups[photo]] for photo in photos])
    targets_NC = targets_NC.reshape(len(photos), -1)
    parts_N = parted(targets_NC, of_each, seed=shares.seed, groups_N=groups_N)
    return {photo: SPLITS[part] for photo, part in zip(photos, parts_N, strict=True)}


def _refuse_missing(
    found: SeveralLabels, splits: Mapping[PurePosixPath, str], source: Path | str
) -> None:
    """Raise `DataError` where train lacks a label that another split has, or there is no train."""
    of_train = {name for photo in found.labels if splits[photo] == "train"
                for name in found.labels[photo]}  # fmt: skip
    others = {name for labels in found.labels.values() for name in labels} - of_train
    if len(of_train) < 2:
        raise DataError(
            f"{source}: photos for train have {counted(len(of_train), 'label')}; expected two or "
            "more, each on some photo of train."
        )
    if others:
        raise DataError(
            f"{source}: labels that no photo for train has: {named(sorted(others))}. Add photos, "
            "leave these labels out, or choose another --seed."
        )


def _counts(found: SeveralLabels, splits: Mapping[PurePosixPath, str]) -> dict[str, dict[str, int]]:
    names = sorted({name for labels in found.labels.values() for name in labels})
    return {
        split: {
            name: sum(splits[p] == split and name in found.labels[p] for p in found.labels)
            for name in names
        }
        for split in SPLITS
    }

"""Photos of a Hugging Face dataset, by its name on the hub or from local Parquet files.

Read by the `datasets` library (extra `hub`); it runs no code of a dataset's authors.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image

from cliptune.data.image_files import IMAGE_FORMATS, IMAGE_SUFFIXES
from cliptune.errors import DataError, HubError, MissingExtra, listing
from cliptune.preparing.sources.labels import label_text, take_splits
from cliptune.preparing.sources.layouts import (
    ClassLayout,
    canonical_split,
    check_splits_known,
    name_classes,
)
from cliptune.preparing.sources.tables import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    find_column,
)

HUB_PREFIX = "hf:"
SUFFIX_OF_FORMAT = {formats[0]: suffix for suffix, formats in reversed(IMAGE_FORMATS.items())}


class HubPhotos:
    """The photos in some `rows` of a `datasets.DatasetDict`, under `<split>/<row>.<ending>`."""

    def __init__(
        self, splits: Any, *, rows: Mapping[str, Sequence[int]], image_column: str, where: str
    ) -> None:
        self._splits, self._column, self._where = splits, image_column, where
        self._rows: dict[PurePosixPath, tuple[str, int]] = {}
        self.num_others = 0
        self.photos: list[PurePosixPath] = []
        for split, indices in rows.items():
            cells = splits[split].select_columns([image_column]).select(indices)
            for index, row in zip(indices, cells, strict=True):
                name = f"{index:06d}{self._suffix(row[image_column], split, index)}"
                photo = PurePosixPath(split, name)
                self._rows[photo] = (split, index)
                self.photos.append(photo)

    def read(self, photos: Collection[PurePosixPath]) -> Iterator[tuple[PurePosixPath, bytes]]:
        for photo in sorted(photos):
            split, index = self._rows[photo]
            yield photo, self._splits[split][index][self._column]["bytes"]

    def file(self, photo: PurePosixPath) -> None:
        return None

    def _suffix(self, cell: Any, split: str, index: int) -> str:
        content = (cell or {}).get("bytes")
        if not content:
            raise DataError(
                f"{self._where}: row {index} of {split} holds no image itself. Expected images "
                "embedded in the dataset."
            )
        ending = PurePosixPath(cell.get("path") or "").suffix.lower()
        if ending in IMAGE_SUFFIXES:
            return ending
        try:
            with Image.open(io.BytesIO(content)) as image:
                return SUFFIX_OF_FORMAT.get(image.format or "", ".png")
        except Exception:  # kept under some ending; `check` says what is wrong with it
            return ".jpg"


class _Row(NamedTuple):
    """A photo's place in the dataset, and what is said of it there."""

    part: str  # the split of the dataset
    place: int  # counted from 0
    split: str  # by a column of its own, else the same
    label: str | None


def hub_photos(
    source: str | Path,
    *,
    image_column: str | None,
    label_column: str | None,
    leave_out: Collection[str] = (),
    group: str | None = None,
) -> tuple[HubPhotos, ClassLayout]:
    """The photos of `hf:owner/name`, `hf:owner/name:config`, a .parquet file or a folder of them.

    Splits in `leave_out` are not taken, nor are those without any label. The column `group`, where
    there is one, says which photos belong together.

    Raises `MissingExtra` without the `datasets` package, `HubError` when the hub is not reached,
    `DataError` when there is no column of images or of labels, or where labels are missing.
    """
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtra("datasets", "hub", f"--source {source}") from None

    where = str(source)
    splits, left_out = _load(datasets, source, leave_out)
    main = splits["train"] if "train" in splits else next(iter(splits.values()))
    names, features = list(main.column_names), main.features
    images = [name for name in names if isinstance(features[name], datasets.Image)]
    if image_column is None and len(images) == 1:
        image = images[0]
    else:
        image = find_column(names, IMAGE_COLUMNS, image_column, "image", where=where)
    labels = [name for name in names if isinstance(features[name], datasets.ClassLabel)]
    if label_column is None and len(labels) == 1:
        label = labels[0]
    else:
        label = find_column(names, LABEL_COLUMNS, label_column, "label", where=where)
    column = next((name for name in names if name.lower() in SPLIT_COLUMNS), None)
    rows = [row for name in splits for row in _rows(name, splits[name], label, column, where=where)]
    rows = take_splits(rows, leave_out=[n for n in leave_out if n not in left_out], where=where)
    _refuse_missing(rows, label, where=where)

    own_splits = column is not None or len(splits) > 1
    if own_splits:
        check_splits_known({row.split for row in rows}, where=where)
    indices: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        indices[row.part].append(row.place)
    splits = splits.cast_column(image, datasets.Image(decode=False))
    photos = HubPhotos(splits, rows=indices, image_column=image, where=where)
    groups: dict[str, list[PurePosixPath]] = defaultdict(list)
    split_of: dict[PurePosixPath, str] = {}
    for row, photo in zip(rows, photos.photos, strict=True):
        groups[row.label or ""].append(photo)
        if own_splits:
            split_of[photo] = canonical_split(row.split) or ""
    classes = name_classes(groups, where=Path(where), what="labels")
    belongs: dict[PurePosixPath, str] = {}
    if group in names:
        cells = {part: list(splits[part][group]) for part in indices}
        own = [cells[row.part][row.place] for row in rows]
        belongs = _groups_in(own, photos.photos, column=str(group), where=where)
    return photos, ClassLayout(classes, "hub", splits=split_of, groups=belongs)


def _groups_in(
    cells: Sequence[Any], photos: Sequence[PurePosixPath], *, column: str, where: str
) -> dict[PurePosixPath, str]:
    try:
        return {photo: label_text(c) or "" for photo, c in zip(photos, cells, strict=True)}
    except ValueError as error:
        raise DataError(
            f"{where}: '{column}' holds {error}. Expected one group for each photo: text or a "
            "number."
        ) from None


def hub_photos_with_labels(
    source: str | Path,
    *,
    image_column: str | None,
    label_column: str | None,
    group: str | None = None,
) -> tuple[
    HubPhotos,
    dict[PurePosixPath, list[str]],
    dict[PurePosixPath, str],
    dict[PurePosixPath, str],
]:
    """The photos of a dataset whose labels are lists: each one's labels, split if it has any, and
    group if there is a column `group`.

    Names are those of the feature, where it has names for its numbers. Raises as `hub_photos`, and
    `DataError` for a column that holds no lists.
    """
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtra("datasets", "hub", f"--source {source}") from None
    where = str(source)
    splits, _ = _load(datasets, source, ())
    main = splits["train"] if "train" in splits else next(iter(splits.values()))
    names, features = list(main.column_names), main.features
    images = [name for name in names if isinstance(features[name], datasets.Image)]
    lists = [name for name in names if isinstance(features[name], datasets.List)]
    image = images[0] if image_column is None and len(images) == 1 else find_column(
        names, IMAGE_COLUMNS, image_column, "image", where=where)  # fmt: skip
    label = lists[0] if label_column is None and len(lists) == 1 else find_column(
        names, ("labels", *LABEL_COLUMNS), label_column, "label", where=where)  # fmt: skip
    if label not in lists:
        raise DataError(
            f"{where}: column '{label}' holds no lists. Expected a list of labels for each photo; "
            "for one label to a photo leave --multilabel out."
        )
    if len(splits) > 1:
        check_splits_known(list(splits), where=where)
    splits = splits.cast_column(image, datasets.Image(decode=False))
    rows = {split: range(len(part)) for split, part in splits.items()}
    photos = HubPhotos(splits, rows=rows, image_column=image, where=where)
    cells = [cell for split in splits for cell in splits[split][label]]
    try:
        labels = {
            photo: [_class_name(features[label].feature, each) or "" for each in cell or ()]
            for photo, cell in zip(photos.photos, cells, strict=True)
        }
    except ValueError as error:
        raise DataError(f"{where}: '{label}' holds {error} among its labels.") from None
    named_splits = len(splits) > 1
    of = {p: canonical_split(p.parts[0]) or "" for p in photos.photos} if named_splits else {}
    groups: dict[PurePosixPath, str] = {}
    if group in names:
        own = [cell for split in splits for cell in splits[split][group]]
        groups = _groups_in(own, photos.photos, column=str(group), where=where)
    return photos, labels, of, groups


def _rows(
    name: str, part: Any, label_column: str, split_column: str | None, *, where: str
) -> Iterator[_Row]:
    """The rows of the split `name`. Raises `DataError` for what is no label of one photo."""
    feature = part.features.get(label_column)
    values = [None] * len(part) if feature is None else list(part[label_column])
    own = part[split_column] if split_column else [name] * len(values)
    # What a dataset without names of classes has for labels that are kept secret.
    hidden = bool(values) and not hasattr(feature, "int2str") and all(v == -1 for v in values)
    for index, (value, split) in enumerate(zip(values, own, strict=True)):
        try:
            text = None if hidden else _class_name(feature, value)
        except ValueError as error:
            raise DataError(
                f"{where}: row {index} of {name}: '{label_column}' holds {error}. Expected one "
                "label for each photo: text or a number. If another column holds it, name that "
                "with --label-column; else write one, of one label each, and leave other rows out."
            ) from None
        yield _Row(name, index, str(split), text)


def _class_name(feature: Any, value: Any) -> str | None:
    """As `label_text`, by the name where the `feature` has names for its numbers."""
    if not hasattr(feature, "int2str"):
        return label_text(value)
    if value is None or value == -1:  # the hub's number for a label that is kept secret
        return None
    if not 0 <= value < feature.num_classes:
        raise ValueError(f"the number {value}, but has names for 0 to {feature.num_classes - 1}")
    return label_text(feature.int2str(value))


def _refuse_missing(rows: Sequence[_Row], column: str, *, where: str) -> None:
    """Raise `DataError` with the splits in which some rows have no label."""
    faults = []
    for split in dict.fromkeys(row.split for row in rows):
        own = [row for row in rows if row.split == split]
        missing = [str(row.place) for row in own if row.label is None]
        if missing:
            more = ", …" if len(missing) > 5 else ""
            faults.append(
                f"{split}: {len(missing)} of {len(own)} rows ({', '.join(missing[:5])}{more})"
            )
    if faults:
        raise DataError(
            f"{where}: no label in column '{column}' (empty, NaN, or -1):\n{listing(faults)}\n"
            "Label these rows, or write the data without them. --leave-out SPLIT takes a dataset "
            "without one of its splits."
        )


def _load(datasets: Any, source: str | Path, leave_out: Collection[str]) -> tuple[Any, set[str]]:
    """The `DatasetDict` of `source`, and those of `leave_out` whose files were not read for it."""
    if isinstance(source, Path):
        files, left_out = _files_by_split(source, leave_out)
        try:  # one by one: a split without labels may lack their column
            parts = {
                split: datasets.load_dataset("parquet", data_files={split: paths}, split=split)
                for split, paths in files.items()
            }
        except Exception as error:
            raise DataError(f"{source}: cannot be read as Parquet ({_short(error)}).") from error
        return datasets.DatasetDict(parts), left_out
    name, _, config = source.removeprefix(HUB_PREFIX).partition(":")
    if not name:
        raise DataError(f"--source {source}: no name behind it. Expected {HUB_PREFIX}owner/name.")
    try:
        return datasets.load_dataset(name, config or None), set()
    except Exception as error:  # the hub's client raises a dozen kinds
        raise HubError(
            f"{source}: not loaded from the Hugging Face hub ({_short(error)}). Check the name and "
            "the network, or fetch its Parquet files elsewhere and give their folder as --source."
        ) from error


def _files_by_split(
    source: Path, leave_out: Collection[str]
) -> tuple[dict[str, list[str]], set[str]]:
    """Split -> Parquet files; all are train where no file or folder is called as a split is.

    Beside it those of `leave_out` that files of other names were left out by. Raises `DataError`
    for others of no split beside files that have one.
    """
    if not source.is_dir():
        return {_split_of(PurePosixPath(source.name)) or "train": [str(source)]}, set()
    parts: dict[str, list[str]] = defaultdict(list)
    others: list[PurePosixPath] = []
    left_out: set[str] = set()
    for file in sorted(source.rglob("*.parquet"), key=lambda file: file.parts):
        place = PurePosixPath(file.relative_to(source).as_posix())
        split = _split_of(place)
        unwanted = _words(place) & {name.lower() for name in leave_out}
        if split is not None:
            parts[split].append(str(file))
        elif unwanted:
            left_out |= {name for name in leave_out if name.lower() in unwanted}
        else:
            others.append(place)
    if others and parts:
        example = min(_words(others[0]) - {"parquet"}, default="NAME")
        raise DataError(
            f"{source}: files of no split beside those of {', '.join(sorted(parts))}:\n"
            f"{listing([str(other) for other in others])}\nName them after their split "
            "(train-0.parquet, test/0.parquet), move them away, or leave them out: "
            f"--leave-out {example}."
        )
    return dict(parts) or {"train": [str(source / other) for other in others]}, left_out


def _split_of(file: PurePosixPath) -> str | None:
    """The split in a file's name, or in that of the nearest folder which names just one."""
    for name in (file.stem, *reversed(file.parent.parts)):
        found = {canonical_split(word) for word in _words(PurePosixPath(name))} - {None}
        if len(found) == 1:
            return found.pop()
    return None


def _words(file: PurePosixPath) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", str(file).lower()))


def _short(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__

"""Photos of a Hugging Face dataset, by its name on the hub or from local Parquet files.

Read by the `datasets` library (extra `hub`); it runs no code of a dataset's authors.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from cliptune.data.folder import IMAGE_FORMATS, IMAGE_SUFFIXES
from cliptune.data.layouts import ClassLayout, canonical_split, check_splits_known, name_classes
from cliptune.data.tables import IMAGE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS, find_column
from cliptune.errors import DataError, HubError, MissingExtra

HUB_PREFIX = "hf:"
SUFFIX_OF_FORMAT = {formats[0]: suffix for suffix, formats in reversed(IMAGE_FORMATS.items())}


class HubPhotos:
    """The photos of a `datasets.DatasetDict`, under `<split>/<row>.<ending>`."""

    def __init__(self, splits: Any, *, image_column: str, where: str) -> None:
        self._splits, self._column, self._where = splits, image_column, where
        self._rows: dict[PurePosixPath, tuple[str, int]] = {}
        self.num_others = 0
        self.photos: list[PurePosixPath] = []
        for split, rows in splits.items():
            for index, row in enumerate(rows.select_columns([image_column])):
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


def hub_photos(
    source: str | Path, *, image_column: str | None, label_column: str | None
) -> tuple[HubPhotos, ClassLayout]:
    """The photos of `hf:owner/name`, `hf:owner/name:config`, a .parquet file or a folder of them.

    Raises `MissingExtra` without the `datasets` package, `HubError` when the hub is not reached,
    `DataError` when there is no column of images or of labels.
    """
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtra("datasets", "hub", f"--source {source}") from None

    where = str(source)
    splits = _load(datasets, source)
    names = list(next(iter(splits.values())).column_names)
    features = next(iter(splits.values())).features
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
    splits = splits.cast_column(image, datasets.Image(decode=False))
    photos = HubPhotos(splits, image_column=image, where=where)

    groups: dict[str, list[PurePosixPath]] = defaultdict(list)
    split_of: dict[PurePosixPath, str] = {}
    rows = iter(photos.photos)
    for split, part in splits.items():
        column = next((name for name in names if name.lower() in SPLIT_COLUMNS), None)
        own = part[column] if column else [split] * len(part)
        if column or len(splits) > 1:
            check_splits_known({str(name) for name in own}, where=where)
        for value, own_split in zip(part[label], own, strict=True):
            photo = next(rows)
            groups[_class_name(features[label], value, where=where)].append(photo)
            if column or len(splits) > 1:
                split_of[photo] = canonical_split(str(own_split)) or ""
    classes = name_classes(groups, where=Path(where), what="labels")
    return photos, ClassLayout(classes, "hub", splits=split_of)


def _load(datasets: Any, source: str | Path) -> Any:
    """The `DatasetDict` of `source`."""
    if isinstance(source, Path):
        files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
        parts: dict[str, list[str]] = defaultdict(list)
        for file in files:  # the hub's own habit: train-00000-of-00002.parquet
            stem = file.stem.split("-")[0].lower()
            parts[canonical_split(stem) or "train"].append(str(file))
        try:
            return datasets.load_dataset("parquet", data_files=dict(parts))
        except Exception as error:
            raise DataError(f"{source}: cannot be read as Parquet ({_short(error)}).") from error
    name, _, config = source.removeprefix(HUB_PREFIX).partition(":")
    if not name:
        raise DataError(f"--source {source}: no name behind it. Expected {HUB_PREFIX}owner/name.")
    try:
        return datasets.load_dataset(name, config or None)
    except Exception as error:  # the hub's client raises a dozen kinds
        raise HubError(
            f"{source}: not loaded from the Hugging Face hub ({_short(error)}). Check the name and "
            "the network, or fetch its Parquet files elsewhere and give their folder as --source."
        ) from error


def _short(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _class_name(feature: Any, value: Any, *, where: str) -> str:
    if value is None or value == -1:
        raise DataError(f"{where}: rows without a label. Leave them out, or label them.")
    name = feature.int2str(value) if hasattr(feature, "int2str") else str(value)
    return str(name).strip(" \t")  # other spaces are told of, in naming.spellings

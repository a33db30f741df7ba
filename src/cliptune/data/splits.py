"""Where the splits of a data folder lie, whatever they are called: `valid/` is `val/`."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from cliptune.data.image_files import IMAGE_SUFFIXES, find_images
from cliptune.errors import DataError, together
from cliptune.hints import did_you_mean

SPLITS = ("train", "val", "test")
# What others call our three splits, in any letter case.
SPLIT_NAMES: dict[str, str] = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "eval": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def split_folders(data_dir: Path) -> dict[str, Path]:
    """Split -> its folder in `data_dir`, under whichever of `SPLIT_NAMES`; those that are there.

    Raises `DataError` where two folders of photos are the same split.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for folder in _folders(data_dir):
        if split := SPLIT_NAMES.get(folder.name.lower()):
            found[split].append(folder)
    faults, chosen = [], {}
    for split in (split for split in SPLITS if found[split]):
        # Our own name first; one that holds photos before one that does not.
        folders = sorted(found[split], key=lambda folder: folder.name != split)
        filled = [folder for folder in folders if len(folders) > 1 and find_images(folder)]
        if len(filled) > 1:
            names = " and ".join(f"{folder.name}/" for folder in filled)
            faults.append(f"{data_dir}: {names} are both {split}. Merge them, or rename one")
        chosen[split] = (filled or folders)[0]
    if faults:
        raise DataError(together(data_dir, faults))
    return chosen


def split_folder(data_dir: Path, split: str) -> Path:
    """The folder of `split`; `data_dir/split` where there is none. Raises `DataError` as above."""
    return split_folders(data_dir).get(split, data_dir / split)


def unknown_folders(data_dir: Path) -> list[str]:
    """Folders beside the splits that hold photos, in themselves or in folders of theirs."""
    return [
        folder.name
        for folder in _folders(data_dir)
        if folder.name.lower() not in SPLIT_NAMES
        and any(map(_holds_a_photo, (folder, *_folders(folder))))
    ]


def _folders(folder: Path) -> list[Path]:
    """The folders in `folder`, sorted, without hidden ones."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.is_dir())


def _holds_a_photo(folder: Path) -> bool:
    names = (path.name for path in folder.iterdir())
    return any(Path(n).suffix.lower() in IMAGE_SUFFIXES and not n.startswith(".") for n in names)


def check_split(split: str) -> None:
    """Raise `DataError` unless `split` is one of `SPLITS`."""
    if split not in SPLITS:
        hint = did_you_mean(split, SPLITS)
        raise DataError(f"split '{split}': expected one of {', '.join(SPLITS)}.{hint}")

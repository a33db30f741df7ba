"""Is a folder of photos fit to train on? Look at every folder and decode every photo."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cliptune.data.folder import IMAGE_SUFFIXES, SPLITS, scan_classes
from cliptune.data.reading import find_unreadable
from cliptune.data.tree import Counts, counts_table
from cliptune.errors import DataError
from cliptune.files import disk_errors
from cliptune.text import wrap


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """What `validate` found. With no `errors`, the folder can be trained on."""

    data_dir: Path
    counts: Counts
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    def summary(self) -> str:
        """Plain text for a terminal of 80 columns."""
        parts = [counts_table(self.counts)]
        for title, faults in (("error", self.errors), ("warning", self.warnings)):
            if faults:
                plural = "s" if len(faults) > 1 else ""
                lines = [f"{len(faults)} {title}{plural}:"]
                lines += [wrap(fault, indent="  ") for fault in faults]
                parts.append("\n".join(lines))
        if not self.errors:
            parts.append(f"{self.data_dir} can be used: every photo was decoded without a fault.")
        return "\n\n".join(parts)


def validate(data_dir: Path, *, progress: bool = True) -> ValidationResult:
    """Look at every folder and decode every photo of `data_dir`.

    Errors would stop a training run: no train/, fewer than two classes, a class without training
    photos, a class of val/ that train/ lacks, a photo that cannot be decoded. What training or
    evaluation can live with is a warning: no val/ or test/, a class missing there, other files.

    Raises `DataError` when `data_dir` is not a folder.
    """
    if not data_dir.is_dir():
        what = "this is a file" if data_dir.exists() else "no such folder"
        raise DataError(
            f"{data_dir}: {what}. Expected a folder that holds train/<class name>/*.jpg. "
            f"Make one with 'cliptune prepare --output-dir {data_dir}'."
        )
    with disk_errors(data_dir):
        splits = {
            split: scan_classes(data_dir / split) for split in SPLITS if (data_dir / split).is_dir()
        }
        others = _other_files(data_dir)
    counts = {
        split: {name: len(paths) for name, paths in classes.items()}
        for split, classes in splits.items()
    }
    errors, warnings = _tree_faults(data_dir, counts)
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(6))
        warnings.append(
            f"{others.total()} files are not used ({kinds}); "
            f"photos are {', '.join(sorted(IMAGE_SUFFIXES))} files."
        )
    paths = [path for classes in splits.values() for photos in classes.values() for path in photos]
    errors += [str(fault) for fault in find_unreadable(paths, progress=progress)]
    return ValidationResult(
        data_dir=data_dir, counts=counts, errors=tuple(errors), warnings=tuple(warnings)
    )


def _tree_faults(data_dir: Path, counts: Counts) -> tuple[list[str], list[str]]:
    """(errors, warnings) of the folders alone."""
    if not any(sum(classes.values()) for classes in counts.values()):
        return [
            f"{data_dir}: no photos yet. Expected {data_dir}/train/<class>/ with photos "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}), the same for val/ and test/."
        ], []
    errors, warnings = [], []
    train = counts.get("train")
    if train is None:
        errors.append(f"{data_dir / 'train'}: no such folder; it holds the photos to learn from.")
        train = {}
    elif len(train) < 2:
        errors.append(f"{data_dir / 'train'}: {len(train)} class folders; expected at least two.")
    errors += [
        f"{data_dir / 'train' / name}: no photo in this class folder. Add some, or remove it."
        for name, number in train.items()
        if number == 0
    ]
    for split, without in (
        ("val", "training then takes a part of train/ for it"),
        ("test", "only val/ is left to evaluate on"),
    ):
        classes = counts.get(split)
        if classes is None:
            warnings.append(f"{data_dir / split}: no such folder; {without}.")
            continue
        if not any(classes.values()):
            fault = f"{data_dir / split}: no photos. Fill it, or remove it: {without}."
            (errors if split == "val" else warnings).append(fault)
            continue
        missing = [name for name in train if not classes.get(name)]
        if missing:
            warnings.append(f"{data_dir / split}: no photos of {', '.join(missing)}.")
        unknown = [name for name in classes if name not in train]
        if unknown:
            fault = f"{data_dir / split}: classes that train/ lacks: {', '.join(unknown)}."
            (errors if split == "val" else warnings).append(fault)
    return errors, warnings


def _other_files(data_dir: Path) -> Counter[str]:
    """Kind -> number of files in the splits that are no photo of a class."""
    others: Counter[str] = Counter()
    for split in SPLITS:
        for root, folders, files in os.walk(data_dir / split):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                suffix = Path(name).suffix.lower()
                if name.startswith("."):
                    continue
                if suffix not in IMAGE_SUFFIXES:
                    others[suffix or "without suffix"] += 1
                elif Path(root) == data_dir / split:
                    others[f"{suffix} outside a class folder"] += 1
    return others

"""Oxford-IIIT Pet: 37 breeds of cats and dogs, with lists of who is for training and for testing.

Parkhi, Vedaldi, Zisserman and Jawahar, "Cats and dogs", CVPR 2012,
https://www.robots.ox.ac.uk/~vgg/data/pets/. Its annotations/trainval.txt and test.txt hold lines
such as "Abyssinian_100 1 1 1"; images/Abyssinian_100.jpg is that photo.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from cliptune.errors import DataError, listing
from cliptune.preparing.sources.layouts import ClassLayout, name_classes
from cliptune.text import counted

_FIRST_WORD = re.compile(r"^[ \t]*([^ \t\r]*)")  # the name of a photo; it may hold other spaces
PETS_LISTS: dict[str, str] = {"trainval.txt": "train", "test.txt": "test"}


def oxford_pets(
    photos: Sequence[PurePosixPath], lists: Mapping[str, str], *, where: Path
) -> ClassLayout:
    """Photos under their breed and split by the dataset's own `lists` (file name -> text)."""
    by_stem = {photo.stem: photo for photo in photos}
    groups: dict[str, list[PurePosixPath]] = defaultdict(list)
    splits: dict[PurePosixPath, str] = {}
    missing = []
    for name, split in PETS_LISTS.items():
        for line in lists.get(name, "").split("\n"):
            stem = _FIRST_WORD.findall(line)[0]
            if not stem or stem.startswith("#"):
                continue
            photo = by_stem.get(stem)
            if photo is None:
                missing.append(f"{stem}.jpg ({name})")
            elif photo in splits:
                raise DataError(f"{where}: its lists name {stem} more than once.")
            else:
                groups[stem.rpartition("_")[0]].append(photo)
                splits[photo] = split
    if missing:
        raise DataError(
            f"{where}: {counted(len(missing), 'photo')} of its lists cannot be found:\n"
            f"{listing(missing)}\nFetch the images again, or leave these lines out."
        )
    classes = name_classes(groups, where=where, what="classes")
    return ClassLayout(classes, "oxford-pets", False, len(photos) - len(splits), splits)

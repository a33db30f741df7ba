"""What people hand to `fit` and `predict`: photos as a list or an array, and their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliptune.data.folder import Split, training_splits_of
from cliptune.data.naming import class_name_fault, clean_name
from cliptune.errors import DataError, ImageError, listing
from cliptune.files import user_path
from cliptune.inference.images import ImageLike, to_image
from cliptune.storage import address_of

ONE_PHOTO = (str, bytes, Path, Image.Image)
EXPECTED = "Expected paths, addresses, bytes of files, PIL images or uint8 arrays, one to a photo"


class Labels(NamedTuple):
    """The labels there are, sorted (C,), the name of each as a class, and (N,) places in them."""

    classes_C: NDArray[Any]
    names: tuple[str, ...]
    places_N: NDArray[np.int64]


def photos_in(photos: Any, *, called: str = "X") -> list[ImageLike]:
    """The photos of a list, an array or a column, in their order.

    Raises `DataError` for anything else, and naming the first that is no photo.
    """
    if isinstance(photos, ONE_PHOTO):
        raise DataError(f"{called}: found one photo ({_shown(photos)}). Put it into a list.")
    shape = getattr(photos, "shape", None)
    if hasattr(photos, "columns") or (
        shape is not None and len(shape) != 1 and getattr(photos, "dtype", None) != np.uint8
    ):
        raise DataError(
            f"{called}: found a table of shape {shape}. {EXPECTED}; of a table give the one column "
            "that holds paths: table['path'], or array[:, 0]."
        )
    try:
        found = list(photos)
    except TypeError:
        raise DataError(f"{called}: found {_shown(photos)}. {EXPECTED}, in a list.") from None
    if not found:
        raise DataError(f"{called}: it holds no photo. {EXPECTED}.")
    for place, photo in enumerate(found):
        pixels = isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.ndim > 1
        if not pixels and not isinstance(photo, ONE_PHOTO):
            raise DataError(f"{called}[{place}]: found {_shown(photo)}. {EXPECTED}.")
    return found


def labels_in(labels: Any, *, count: int, names: Mapping[Any, str]) -> Labels:
    """The labels of `count` photos, one each: texts, whole numbers, or true and false.

    A class is called as `names` say of its label, else as the label itself.

    Raises `DataError` for other labels, another number of them, fewer than two classes, and labels
    that cannot be told apart as names of classes.
    """
    try:
        given = np.asarray(labels)
        if given.dtype == object:  # texts, as pandas has them: what else is there stays what it is
            given = np.asarray(given.tolist())
            if given.dtype.kind == "U" and not all(isinstance(each, str) for each in labels):
                raise ValueError("texts beside what is none")
        classes_C, places_N = np.unique(given, return_inverse=True)
    except (TypeError, ValueError) as error:
        raise DataError(f"y: found labels of several kinds ({error}). {_one_label()}") from None
    if given.ndim != 1:
        raise DataError(f"y: found an array of shape {given.shape}. {_one_label()}")
    if len(given) != count:
        raise DataError(f"y: found {len(given)} labels for {count} photos. {_one_label()}")
    if given.dtype.kind not in "Uiub":
        raise DataError(f"y: found labels of type {given.dtype}. {_one_label()}")
    if len(classes_C) < 2:
        raise DataError(f"y: every label is {classes_C[0]!r}. A classifier needs two classes.")
    called = tuple(clean_name(str(names.get(label, label))) for label in classes_C.tolist())
    faults = [f"{name!r}: {fault}" for name in called if (fault := class_name_fault(name))]
    counts = Counter(called)
    faults += [f"{name!r}: {n} labels look like this" for name, n in counts.items() if n > 1]
    if faults:
        raise DataError(
            f"y: no names of classes:\n{listing(faults)}\n"
            "Rename these labels, or give their names as class_names."
        )
    return Labels(classes_C, called, places_N.reshape(-1))


def files_of(photos: Sequence[ImageLike], folder: Path) -> list[Path]:
    """A file for each photo: itself, where it is one, or a PNG in `folder` with its pixels.

    Training reads files. Raises `ImageError` for what is no image.
    """
    files = []
    for place, photo in enumerate(photos):
        if isinstance(photo, str | Path) and not address_of(photo):
            files.append(user_path(photo).absolute())
            continue
        try:
            image = to_image(photo)
        except ImageError as error:
            raise ImageError(f"X[{place}]: {error}") from None
        folder.mkdir(exist_ok=True)
        files.append(folder / f"{place:06}.png")
        image.save(files[-1])
    return files


def splits_of(
    files: Sequence[Path], labels: Labels, *, val_ratio: float, seed: int
) -> tuple[Split, Split]:
    """(train, val) of labelled files, as of a data folder without `val/`.

    Files are sorted first, as those of a folder are: their order does not matter. One that is
    named twice counts once. Raises `DataError` for one with two labels.
    """
    place_of: dict[Path, int] = {}
    for file, place in zip(files, labels.places_N.tolist(), strict=True):
        if place_of.setdefault(file, place) != place:
            both = " and ".join(labels.names[each] for each in (place_of[file], place))
            raise DataError(f"{file}: its labels are {both}. Expected one label to a photo.")
    classes: dict[str, list[Path]] = {name: [] for name in labels.names}
    for file in sorted(place_of, key=lambda path: path.parts):
        classes[labels.names[place_of[file]]].append(file)
    return training_splits_of(classes, val_ratio=val_ratio, seed=seed)


def _one_label() -> str:
    return (
        "Expected one label to a photo, all of them texts, whole numbers, or true and false. "
        "Photos with several labels are trained by cliptune.train, from a folder that "
        "'cliptune prepare --multilabel' makes."
    )


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"

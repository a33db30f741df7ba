"""The dataset class and loaders of the tutorial, over cliptune's data room."""

from __future__ import annotations

import sys

try:
    from cliptune.data.photos import LabelledPhotos, create_dataloaders
except ModuleNotFoundError as error:
    if error.name != "cliptune":
        raise
    sys.exit(
        "error: cliptune is not installed. From the repository root: "
        "pip install -e . -c constraints.txt"
    )


class DogBreedDataset(LabelledPhotos):
    """`cliptune.data.photos.LabelledPhotos` under the tutorial's name."""


__all__ = ["DogBreedDataset", "create_dataloaders"]

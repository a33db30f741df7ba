"""Predict breeds: `python inference.py --checkpoint DIR --image FILE`, or import the predictor."""

from __future__ import annotations

import sys

try:
    from cliptune import Prediction, Predictor
except ModuleNotFoundError as error:
    if error.name != "cliptune":
        raise
    sys.exit(
        "error: cliptune is not installed. From the repository root: "
        "pip install -e . -c constraints.txt"
    )


class DogBreedPredictor(Predictor):
    """`cliptune.Predictor` under the tutorial's name.

    `predict(image, top_k=5)` returns a `Prediction`, `predict_batch(images, top_k=5)` a list.
    """


def main() -> None:
    """`cliptune predict` with the arguments of this process."""
    from cliptune.cli import main as cliptune

    cliptune(["predict", *sys.argv[1:]])


__all__ = ["DogBreedPredictor", "Prediction"]

if __name__ == "__main__":
    main()

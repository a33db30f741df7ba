"""Answers as columns: what engines that hand over and take dictionaries of arrays work on.

Shape suffixes: B images, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.data.reading import Unreadable
from cliptune.inference.prediction import Prediction

Columns = dict[str, NDArray[Any]]


def as_columns(
    results: Sequence[Prediction | Unreadable], *, top_k: int, further: Sequence[str] = ()
) -> Columns:
    """An array (B,) or (B, k) for each of `label`, `name`, `probability`, `labels`,
    `probabilities`, `known`, `known_score` and `error`, a row for each of `results`.

    `label`, `name`, `labels` (str), `known` (bool) and `error` (str) are object arrays, None where
    there is nothing to say; the others are float64, and NaN there. Those of `Prediction.further`
    that are in `further` follow, as texts.
    """
    rows = [result if isinstance(result, Prediction) else None for result in results]
    labels = np.full((len(rows), top_k), None, dtype=object)
    probabilities = np.full((len(rows), top_k), np.nan)
    for place, row in enumerate(rows):
        if row is not None:
            labels[place] = [score.label for score in row.scores]
            probabilities[place] = [score.probability for score in row.scores]
    return {
        "label": labels[:, 0],
        "name": _objects([row and row.name for row in rows]),
        "probability": probabilities[:, 0],
        "labels": labels,
        "probabilities": probabilities,
        "known": _objects([row and row.known for row in rows]),
        "known_score": np.array([row and row.known_score for row in rows], dtype=np.float64),
        "error": _objects([r.reason if isinstance(r, Unreadable) else None for r in results]),
        **{key: _objects([row and row.further[key] for row in rows]) for key in further},
    }


def _objects(values: Sequence[object]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array

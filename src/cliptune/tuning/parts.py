"""Which photos train, which choose, and which do neither: they say what the choice is worth."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from cliptune.data.folder import Sample, Split
from cliptune.errors import UserError


@dataclass(frozen=True)
class Parts:
    """(train, val) of each run of a trial, and the photos that no run of the search sees."""

    runs: tuple[tuple[Split, Split], ...]
    apart: Split


def make_parts(train: Split, val: Split, *, folds: int | None, seed: int) -> Parts:
    """Half of val, of each class, is set apart; the rest of val chooses among trials.

    With `folds`, train and that rest are cut into as many, of each class alike, and each run
    learns from all but one and is measured on that one: every photo chooses.

    Raises `UserError` where a class has too few photos for `folds`, and without val and folds.
    """
    choosing, apart = (replace(val, samples=part) for part in _dealt(val.samples, 2, seed=seed))
    if folds is None:
        if not choosing.samples:
            raise UserError(
                "tune: there is no val, by which trials are compared. Compare them by "
                "cross-validation over train: --folds 5."
            )
        return Parts(((train, choosing),), apart)
    pool = train.samples + choosing.samples
    counts = np.bincount([sample.label for sample in pool], minlength=len(train.class_names))
    if counts.min() < 2 or folds > counts.max():
        few = train.class_names[int(counts.argmin())]
        raise UserError(
            f"--folds {folds}: beside the half of val that is set apart, '{few}' has "
            f"{counts.min()} photos, and no class more than {counts.max()}. Expected two photos "
            "of each class or more, and no more folds than the largest class has photos."
        )
    runs = []
    for fold in _dealt(pool, folds, seed=seed):
        held = set(fold)
        learned = tuple(sample for sample in pool if sample not in held)
        runs.append((replace(train, samples=learned), replace(val, samples=fold)))
    return Parts(tuple(runs), apart)


def _dealt(samples: tuple[Sample, ...], hands: int, *, seed: int) -> list[tuple[Sample, ...]]:
    """`samples` dealt out to `hands`, class by class: of a class no hand has two more than another.

    Where the dealing of one class ends, that of the next begins. Who gets which photo is drawn by
    `seed` and the number of the class.
    """
    dealt: list[list[Sample]] = [[] for _ in range(hands)]
    turn = 0
    for label in sorted({sample.label for sample in samples}):
        own = [sample for sample in samples if sample.label == label]
        rng = np.random.default_rng([seed, zlib.crc32(b"tuning"), label])
        for place in rng.permutation(len(own)):
            dealt[turn % hands].append(own[place])
            turn += 1
    return [tuple(sorted(hand, key=lambda sample: (sample.label, sample.path))) for hand in dealt]

"""Which photos train, which choose, and which do neither: they say what the choice is worth."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from cliptune.data.folder import Sample, Split
from cliptune.data.groups import Groups
from cliptune.errors import UserError
from cliptune.training.head.mixture import grouped_folds


@dataclass(frozen=True)
class Parts:
    """(train, val) of each run of a trial, and the photos that no run of the search sees."""

    runs: tuple[tuple[Split, Split], ...]
    apart: Split


def make_parts(
    train: Split,
    val: Split,
    *,
    folds: int | None,
    seed: int,
    groups: tuple[Groups | None, Groups | None] = (None, None),
) -> Parts:
    """Half of val, of each class, is set apart; the rest of val chooses among trials.

    With `folds`, train and that rest are cut into as many, of each class alike, and each run
    learns from all but one and is measured on that one: every photo chooses. `groups` of the
    photos of train and of val stay together; a class's only group is learned from, and chooses
    where there are no folds.

    Raises `UserError` where a class has too few photos for `folds`, and without val and folds.
    """
    set_apart = _dealt(val.samples, 2, seed=seed, groups_N=groups[1])[1]
    apart = replace(val, samples=set_apart)
    choosing_N = [sample not in set(set_apart) for sample in val.samples]
    choosing = replace(val, samples=tuple(compress(val.samples, choosing_N)))
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
    groups_N = None
    if groups[0] is not None and groups[1] is not None:
        groups_N = np.concatenate([groups[0], groups[1][choosing_N]])
    for fold in _dealt(pool, folds, seed=seed, groups_N=groups_N):
        if not fold:
            raise UserError(
                f"--folds {folds}: the photos belong to groups that stay together, and those make "
                f"no {folds} folds of which each leaves every class in the rest. Take fewer."
            )
        held = set(fold)
        learned = tuple(sample for sample in pool if sample not in held)
        runs.append((replace(train, samples=learned), replace(val, samples=fold)))
    return Parts(tuple(runs), apart)


def _dealt(
    samples: tuple[Sample, ...], hands: int, *, seed: int, groups_N: Groups | None = None
) -> list[tuple[Sample, ...]]:
    """`samples` dealt out to `hands`, class by class: of a class no hand has two more than another.

    Where the dealing of one class ends, that of the next begins. Who gets which photo is drawn by
    `seed` and the number of the class. Whole groups are dealt by scikit-learn, those that no hand
    gets being a class's only ones.
    """
    if groups_N is not None:
        labels_N = np.array([sample.label for sample in samples], dtype=np.int64)
        order_N = np.arange(len(samples))
        hand_N = grouped_folds(
            labels_N, groups_N, order_N=order_N, folds=hands, repeats=1, seed=seed
        )[0]
        return [tuple(compress(samples, hand_N == hand)) for hand in range(hands)]
    dealt: list[list[Sample]] = [[] for _ in range(hands)]
    turn = 0
    for label in sorted({sample.label for sample in samples}):
        own = [sample for sample in samples if sample.label == label]
        rng = np.random.default_rng([seed, zlib.crc32(b"tuning"), label])
        for place in rng.permutation(len(own)):
            dealt[turn % hands].append(own[place])
            turn += 1
    return [tuple(sorted(hand, key=lambda sample: (sample.label, sample.path))) for hand in dealt]

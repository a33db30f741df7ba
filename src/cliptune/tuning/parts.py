"""Which photos train, which choose, and which do neither: they say what the choice is worth."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from cliptune.data.folder import Sample, Split
from cliptune.data.groups import Groups
from cliptune.data.multilabel import Targets, parted, targets_of
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
    set_apart = _dealt(val, 2, seed=seed, groups_N=groups[1])[1]
    apart = _of(val, set_apart)
    choosing_N = [sample not in set(set_apart) for sample in val.samples]
    choosing = _of(val, tuple(compress(val.samples, choosing_N)))
    if folds is None:
        if not choosing.samples:
            raise UserError(
                "tune: there is no val, by which trials are compared. Compare them by "
                "cross-validation over train: --folds 5."
            )
        return Parts(((train, choosing),), apart)
    pool = replace(train, samples=train.samples + choosing.samples)
    if train.several is not None:
        pool = replace(pool, several=train.several + (choosing.several or ()))
    counts = _counts(pool)
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
        held = set(fold)
        learned = _of(pool, tuple(sample for sample in pool.samples if sample not in held))
        if not fold or (pool.several is not None and not _counts(learned).all()):
            why = "" if groups_N is None else " belong to groups that stay together, and those"
            raise UserError(
                f"--folds {folds}: the photos{why} make "
                f"no {folds} folds of which each leaves every class in the rest. Take fewer."
            )
        runs.append((learned, replace(_of(pool, fold), name=val.name)))
    return Parts(tuple(runs), apart)


def _of(split: Split, samples: tuple[Sample, ...]) -> Split:
    """`split` with some of its samples, in their order, and the labels of each."""
    if split.several is None:
        return replace(split, samples=samples)
    labels = dict(zip(split.samples, split.several, strict=True))
    return replace(split, samples=samples, several=tuple(labels[sample] for sample in samples))


def _counts(split: Split) -> NDArray[np.int64]:
    """(C,) photos that show each class."""
    if split.several is not None:
        shown_C: NDArray[np.int64] = targets_of(split).sum(axis=0)
        return shown_C
    labels = [sample.label for sample in split.samples]
    return np.bincount(labels, minlength=len(split.class_names))


def _dealt(
    split: Split, hands: int, *, seed: int, groups_N: Groups | None = None
) -> list[tuple[Sample, ...]]:
    """The samples of `split` dealt out to `hands`, class by class; none has two more of a class.

    Where the dealing of one class ends, that of the next begins. Who gets which photo is drawn by
    `seed` and the number of the class. Whole groups are dealt by scikit-learn, those that no hand
    gets being a class's only ones. Photos with several labels are dealt so that each class is
    shared out as nearly as can be (`data.multilabel.parted`), groups as one photo with all theirs.
    """
    samples = split.samples
    if split.several is not None:
        hand_N = _parted_groups(targets_of(split), groups_N, hands, seed=seed)
        return [tuple(compress(samples, hand_N == hand)) for hand in range(hands)]
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


def _parted_groups(
    targets_NC: Targets, groups_N: Groups | None, hands: int, *, seed: int
) -> NDArray[np.int64]:
    """(N,) the hand that each photo goes to, whole groups together."""
    if groups_N is None:
        groups_N = np.arange(len(targets_NC))
    _, places_N = np.unique(groups_N, return_inverse=True)
    of_groups_GC = np.zeros((int(places_N.max(initial=-1)) + 1, targets_NC.shape[1]), dtype=bool)
    np.logical_or.at(of_groups_GC, places_N, targets_NC)
    return parted(of_groups_GC, np.full(hands, 1 / hands), seed=seed)[places_N]

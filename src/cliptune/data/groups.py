"""Photos that belong together: of one patient, animal, camera or video, as `dataset.json` says.

Photos of a group are no independent evidence: what is learned from one is known of the others.
Splits and folds keep them together, and intervals count groups.

Shape suffixes: N photos, C classes, G groups.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.data.manifest import MANIFEST, read_manifest

Labels = NDArray[np.integer[Any]]
Groups = NDArray[np.int64]

_FOLDS = 20  # at most, unless the share is smaller than one of so many
_NEAR = 0.01  # a share of folds that is as near as this is near enough: few folds stratify better


def groups_of(data_dir: Path, paths: Sequence[Path]) -> Groups | None:
    """(N,) the number of each photo's group; None where no two photos belong together.

    `data_dir/dataset.json` tells; photos that it does not name are groups of their own. Raises
    `DataError` for a damaged file.
    """
    path = data_dir / MANIFEST
    if not path.is_file() or b'"groups"' not in path.read_bytes():
        return None  # most have none, and another program's file of that name is not ours to judge
    manifest = read_manifest(data_dir)
    if manifest is None or not manifest.groups:
        return None
    known = {_spelt(name): group for name, group in manifest.groups.items()}
    names = [_spelt(_below(data_dir, path)) for path in paths]
    keys = [f"group {known[name]}" if name in known else f"photo {name}" for name in names]
    numbers: dict[str, int] = {}
    groups_N = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    return groups_N if len(numbers) < len(groups_N) else None


def _below(folder: Path, path: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _spelt(name: str) -> str:
    """One form of letters: copied by way of a Mac, names come back in another."""
    return unicodedata.normalize("NFC", name)


def take_groups(
    labels_N: Labels, groups_N: Groups, *, share: float, seed: int, leave: int = 1
) -> NDArray[np.bool_]:
    """(N,) which photos to set apart: whole groups, about `share` of each class.

    Folds of scikit-learn's `StratifiedGroupKFold`, as many as make up `share` best and those of
    the usual size: a huge group stays. Then the smallest groups change sides for classes that have
    none set apart, or fewer than `leave` left. A class of `leave` groups or fewer keeps them all,
    and so does whatever class shares these groups. The same `seed` gives the same photos.
    """
    group_of_pair, label_of_pair = _pairs(labels_N, groups_N)
    groups_C = np.bincount(label_of_pair)
    scarce = np.unique(group_of_pair[groups_C[label_of_pair] <= leave])
    free_N = ~np.isin(groups_N, scarce)
    out_N = np.zeros(len(labels_N), dtype=bool)
    count = len(np.unique(groups_N[free_N]))
    if count < 2:
        return out_N
    folds, taken = _folds_for(share, most=count)
    fold_M = group_folds(labels_N[free_N], groups_N[free_N], folds=folds, seed=seed)
    sizes_K = np.bincount(fold_M, minlength=folds)
    usual = np.argsort(np.abs(sizes_K - free_N.sum() / folds), kind="stable")
    out_N[free_N] = np.isin(fold_M, usual[:taken])
    return _mended(out_N, labels_N, groups_N, scarce=scarce, leave=leave)


def _pairs(labels_N: Labels, groups_N: Groups) -> tuple[Groups, Groups]:
    """(group, label) of each pair that has a photo."""
    both = np.stack([groups_N, labels_N]).astype(np.int64)
    group_of_pair, label_of_pair = np.unique(both, axis=1)
    return group_of_pair, label_of_pair


def _folds_for(share: float, *, most: int) -> tuple[int, int]:
    """(how many folds, how many of them make up `share`): the fewest that are near enough."""
    limit = min(most, max(_FOLDS, round(1 / share)))
    choices = [(k, min(max(1, round(share * k)), k - 1)) for k in range(2, limit + 1)]
    misses = [abs(taken / k - share) for k, taken in choices]
    return choices[next(i for i, miss in enumerate(misses) if miss <= max(_NEAR, min(misses)))]


def group_folds(labels_N: Labels, groups_N: Groups, *, folds: int, seed: int) -> Groups:
    """(N,) the fold of each photo, by scikit-learn's `StratifiedGroupKFold`: whole groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    if np.bincount(labels_N).max() < folds:  # nothing to stratify by, which scikit-learn refuses
        labels_N = np.zeros_like(labels_N)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold_N = np.zeros(len(labels_N), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer photos than folds
        for fold, (_, held) in enumerate(splitter.split(labels_N, labels_N, groups_N)):
            fold_N[held] = fold
    return fold_N


def _mended(
    out_N: NDArray[np.bool_], labels_N: Labels, groups_N: Groups, *, scarce: Groups, leave: int
) -> NDArray[np.bool_]:
    """`out_N` with groups moved for classes that lack some on a side."""
    classes = int(labels_N.max()) + 1
    group_of_pair, label_of_pair = _pairs(labels_N, groups_N)
    numbers, place_of_pair = np.unique(group_of_pair, return_inverse=True)
    has_GC = np.zeros((len(numbers), classes), dtype=bool)
    has_GC[place_of_pair, label_of_pair] = True
    place_N = np.searchsorted(numbers, groups_N)
    out_G = np.zeros(len(numbers), dtype=bool)
    out_G[place_N[out_N]] = True
    smallest = np.argsort(np.bincount(place_N), kind="stable")
    can_C = has_GC.sum(axis=0) > leave
    for label in np.flatnonzero(can_C):  # back, where too little is left of a class
        for place in smallest[has_GC[smallest, label]]:
            if (has_GC & ~out_G[:, None]).sum(axis=0)[label] >= leave:
                break
            out_G[place] = False
    locked_G = np.isin(numbers, scarce)
    for label in np.flatnonzero(can_C):  # out, where a class has nothing there
        for place in smallest[has_GC[smallest, label] & ~locked_G[smallest]]:
            if (has_GC[:, label] & out_G).any():
                break
            left_C = (has_GC & ~out_G[:, None]).sum(axis=0) - has_GC[place]
            out_G[place] = (left_C >= leave)[has_GC[place]].all()
    result: NDArray[np.bool_] = out_G[place_N]
    return result

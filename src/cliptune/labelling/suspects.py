"""Which labels of a data folder its photos contradict.

All splits are judged together, each photo by classifiers that have seen neither its label nor those
of its copies and its group. Shape suffixes: N photos, D feature.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cliptune.checking.check import CheckResult
from cliptune.checking.suspects import Suspect, Suspects
from cliptune.data.folder import Sample, scan_classes
from cliptune.data.manifest import read_manifest
from cliptune.data.splits import split_folders
from cliptune.errors import DataError
from cliptune.labelling.contradiction import confidently_wrong, contradictions
from cliptune.labelling.frozen import open_frozen
from cliptune.labelling.opinions import held_out_opinions
from cliptune.model.device import resolve_device
from cliptune.text import counted
from cliptune.training.head.logistic import Floats, Labels

log = logging.getLogger(__name__)

TYPICAL = 2  # photos of each class
_LEAST = 20  # photos, fewer tell nothing


def find_suspects(
    checked: CheckResult,
    model: str,
    *,
    base_model: str | None = None,
    cache_dir: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> Suspects:
    """The labels of the folder `checked` that its photos contradict, as `model` sees them.

    `model` is a name on the hub, a folder, a checkpoint or a run (then: its base model). Copies
    that `checked` found, and groups of `dataset.json`, are held out together. Photos that cannot
    be read are left out: `checked` names them.

    Raises `DataError` for too few photos or classes, and as loading a model does.
    """
    data_dir = checked.data_dir
    class_names, files, labels_N = _labelled(data_dir)
    if len(class_names) < 2 or len(files) < _LEAST:
        raise DataError(
            f"{data_dir}: {counted(len(files), 'photo')} of {counted(len(class_names), 'class')}. "
            f"Labels are judged by other photos: expected {_LEAST} or more, of at least two "
            "classes. Leave --model out, or add photos."
        )
    on = resolve_device(device)
    frozen = open_frozen(model, base_model=base_model, cache_dir=cache_dir)
    samples = [
        Sample(data_dir / file, int(label)) for file, label in zip(files, labels_N, strict=True)
    ]
    seen = frozen.features(samples, device=on, progress=progress)
    files, labels_N = [files[place] for place in seen.places_N], labels_N[seen.places_N]
    class_names, labels_N = _those_left(class_names, labels_N)
    groups_N = kept_together(files, _copies(checked), _groups(data_dir))
    fit = frozen.fit(
        seen.features_ND, labels_N, class_names, data_dir=data_dir, groups_N=groups_N, seed=seed
    )
    chances_NC, judged_N = held_out_opinions(fit, seen.features_ND, labels_N, groups_N, seed=seed)
    scores_N, suggested_N = contradictions(chances_NC, labels_N)
    wrong_N = confidently_wrong(chances_NC, labels_N, judged_N) & (scores_N > 0)
    ranked = np.flatnonzero(wrong_N)[np.argsort(-scores_N[wrong_N], kind="stable")]
    log.debug("%s: %d labels judged, %d contradicted", data_dir, judged_N.sum(), len(ranked))
    return Suspects(
        model=model,
        num_judged=int(judged_N.sum()),
        agreeing=float((scores_N[judged_N] < 0).mean()) if judged_N.any() else 0.0,
        photos=tuple(
            Suspect(
                file=files[i], label=class_names[labels_N[i]],
                suggested=class_names[suggested_N[i]], score=float(scores_N[i]),
            )
            for i in ranked
        ),
        typical=_typical(files, class_names, labels_N, np.where(judged_N, scores_N, np.inf)),
        unjudged=tuple(class_names[i] for i in np.unique(labels_N[~judged_N])),
    )  # fmt: skip


def _labelled(data_dir: Path) -> tuple[list[str], list[str], Labels]:
    """(class names, photos of all splits relative to `data_dir`, each one's class)."""
    splits = [scan_classes(folder) for folder in split_folders(data_dir).values()]
    class_names = sorted({name for split in splits for name, paths in split.items() if paths})
    found = [
        (path.relative_to(data_dir).as_posix(), class_names.index(name))
        for split in splits
        for name, paths in split.items()
        for path in paths
    ]
    return class_names, [file for file, _ in found], np.array([i for _, i in found], np.int64)


def _those_left(class_names: Sequence[str], labels_N: Labels) -> tuple[list[str], Labels]:
    """Without classes none of whose photos could be read."""
    left, labels_N = np.unique(labels_N, return_inverse=True)
    return [class_names[i] for i in left], labels_N


def _copies(checked: CheckResult) -> list[Sequence[str]]:
    """Photos that are copies, or nearly."""
    return [f.files for f in checked.findings if f.kind.startswith(("copies", "near"))]


def _groups(data_dir: Path) -> list[Sequence[str]]:
    """Photos that belong together by `dataset.json`."""
    groups: dict[str, list[str]] = {}
    for file, group in getattr(read_manifest(data_dir), "groups", {}).items():
        groups.setdefault(group, []).append(file)
    return list(groups.values())


def kept_together(files: Sequence[str], *sets: Iterable[Sequence[str]]) -> Labels:
    """(N,) the same number for files that stand in one of the `sets` together, or by way of others.

    Files that are not among `files` join those that are.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    places: dict[str, int] = {file: place for place, file in enumerate(files)}
    ends = [
        (places.setdefault(names[0], len(places)), places.setdefault(name, len(places)))
        for groups in sets
        for names in groups
        for name in names
    ]
    first, other = np.array(ends, dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(first)), (first, other)), shape=(len(places), len(places)))
    joined: Labels = connected_components(graph, directed=False)[1].astype(np.int64)
    return joined[: len(files)]


def _typical(
    files: Sequence[str], class_names: Sequence[str], labels_N: Labels, scores_N: Floats
) -> dict[str, tuple[str, ...]]:
    """The photos of each class that are least contradicted."""
    order_N = np.argsort(scores_N, kind="stable")
    return {
        name: tuple(
            files[i] for i in order_N[labels_N[order_N] == label][:TYPICAL] if scores_N[i] < 0
        )
        for label, name in enumerate(class_names)
    }

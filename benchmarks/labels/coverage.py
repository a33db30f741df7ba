"""How often prediction sets hold the right class, and how large they are, over random splits.

    python benchmarks/labels/coverage.py DATA=RUN [DATA=RUN ...] [--mapie]

The photos of val and test that the run's best checkpoint has not learned from are put together and
divided at random, 200 times: on one half the temperature and the limit are fitted as
`cliptune train` fits them on val, on the other the sets are measured. Nothing is chosen by it, but
it is a look at the test split. `--choose` takes val alone, by which the method was chosen.

Methods: APS as cliptune has it (Romano, Sesia, Candès 2020, eq. 3 and 4); APS with the right
class's own probability in the score, as it is often written, and with a random part of it; RAPS
(Angelopoulos et al. 2021) with a penalty for each class beyond the first; THR (Sadinle, Lei,
Wasserman 2019). "named": the most probable class is in each set, where a method leaves some empty.
`--mapie` lets MAPIE's own classes answer beside, where it is installed.

`--classes FOLDER`, of a classes.yaml with parents, measures the deepest class that answers are sure
of instead: climbing from the most probable class, as cliptune does, beside going down from the top
to the most probable child each time.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cliptune.data.classes_file import read_names
from cliptune.data.parents import Parents
from cliptune.evaluation.statistics.answering import fit_answers
from cliptune.evaluation.statistics.conformal import fit_sets, fit_sure
from cliptune.model.answers import softmax
from cliptune.model.checkpoint import resolve_checkpoint
from cliptune.model.conformal import conformal_rank, more_probable
from cliptune.model.measuring import Measuring, labelled_photos
from cliptune.model.restore import saved_settings

SPLITS = 200
RATES = (0.8, 0.9, 0.95, 0.98)
PENALTY = 0.1  # of RAPS
Scores = Callable[[np.ndarray, np.random.Generator], np.ndarray]

METHODS: dict[str, Scores] = {
    "APS (cliptune)": lambda p_NC, _: more_probable(p_NC),
    "APS, own probability in": lambda p_NC, _: more_probable(p_NC) + p_NC,
    "APS, a random part of it": lambda p_NC, rng: (
        more_probable(p_NC) + p_NC * rng.random((len(p_NC), 1))
    ),
    "RAPS": lambda p_NC, _: more_probable(p_NC) + PENALTY * np.maximum(ranks(p_NC) - 1, 0),
    "RAPS, own probability in": lambda p_NC, _: (
        more_probable(p_NC) + p_NC + PENALTY * np.maximum(ranks(p_NC) - 1, 0)
    ),
    "THR": lambda p_NC, _: 1 - p_NC,
}


def ranks(p_NC: np.ndarray) -> np.ndarray:
    """(N, C) the place of each class, the most probable 0."""
    return np.argsort(np.argsort(-p_NC, axis=1, kind="stable"), axis=1)


def said_of(run: Path, data: Path, splits: list[str]) -> tuple[np.ndarray, ...]:
    """Logits, features and labels of the photos of `splits`."""
    found = resolve_checkpoint(run)
    measuring = Measuring(device=torch.device("cpu"), num_workers=0)
    classifier = measuring.loaded(found).tuned()
    parts = []
    for split in splits:
        photos = labelled_photos(saved_settings(found), data, split, found.record.class_names)
        said = measuring.predict([classifier], photos.samples, split)
        parts.append((said.logits[0], said.features[0], said.labels))
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def halves(logits: np.ndarray, features: np.ndarray, labels: np.ndarray, seed: int) -> tuple:
    """Calibrated probabilities and labels of one half, and of the other by the same scaling."""
    order = np.random.default_rng(seed).permutation(len(labels))
    own, others = order[: len(labels) // 2], order[len(labels) // 2 :]
    answers = fit_answers(
        logits[own], features[own], labels[own], score="probability", seed=seed,
        weights_CD=np.eye(logits.shape[1], features.shape[1]),
    )  # fmt: skip
    scaled = [softmax(answers.scale(logits[part])) for part in (own, others)]
    return scaled[0], labels[own], scaled[1], labels[others]


def measured(held_NC: np.ndarray, p_NC: np.ndarray, labels_N: np.ndarray) -> tuple[float, ...]:
    """Coverage, size, share empty; of named sets: coverage, size, and coverage of the hard third.

    The hard ones are those whose most probable class is the least probable.
    """
    rows = np.arange(len(labels_N))
    named_NC = held_NC.copy()
    named_NC[rows, p_NC.argmax(axis=1)] = True
    top_N = p_NC.max(axis=1)
    hard_N = top_N <= np.quantile(top_N, 1 / 3)
    covered_N = named_NC[rows, labels_N]
    return (
        held_NC[rows, labels_N].mean(), held_NC.sum(1).mean(), (held_NC.sum(1) == 0).mean(),
        covered_N.mean(), named_NC.sum(1).mean(), covered_N[hard_N].mean(),
    )  # fmt: skip


def by_mapie(p: np.ndarray, y: np.ndarray, further: np.ndarray, rate: float, score: str):
    """MAPIE's sets of the photos `further`, conformalised on `p` and `y`."""
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """Answers with the probabilities it is given."""

        classes_ = np.arange(p.shape[1])

        def fit(self, x, y):
            return self

        def predict_proba(self, x):
            return x

        def predict(self, x):
            return x.argmax(axis=1)

        def __sklearn_is_fitted__(self) -> bool:
            return True

    split = SplitConformalClassifier(
        Given(), confidence_level=rate, prefit=True, conformity_score=score, random_state=0
    )
    split.conformalize(p, y)
    return split.predict_set(further)[1][:, :, 0]


def row(name: str, values: list[tuple[float, ...]]) -> str:
    """A line of the table: means over the splits."""
    cover, size, empty, named, named_size, hard = np.mean(values, axis=0)
    spread = np.std([value[0] for value in values])
    return (
        f"| {name} | {100 * cover:.1f} ± {100 * spread:.1f} | {size:.2f} | {100 * empty:.1f} | "
        f"{100 * named:.1f} | {named_size:.2f} | {100 * hard:.1f} |"
    )


def table(said: tuple[np.ndarray, ...], rate: float, *, mapie: bool) -> None:
    """Print what each method's sets are worth at `rate`."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(SPLITS):
        own, labels, others, truth = halves(*said, seed)
        for name, score in METHODS.items():
            rng = np.random.default_rng(seed)
            own_scores = score(own, rng)[np.arange(len(labels)), labels]
            limit = np.sort(own_scores)[conformal_rank(rate, len(labels)) - 1]
            held = score(others, rng) <= limit
            found.setdefault(name, []).append(measured(held, others, truth))
        sets = fit_sets(own, labels, coverage=rate)
        assert sets is not None
        product = measured(sets.holds(others), others, truth)
        assert np.allclose(product, found["APS (cliptune)"][-1], atol=0.02)
        if mapie:
            # It holds a fifth back to tune RAPS on, which must do for the rate.
            many = (1 - rate) * len(labels) / 5 > 1
            for name in ("lac", "aps", *(["raps"] if many else [])):
                held = by_mapie(own, labels, others, rate, name)
                found.setdefault(f"MAPIE {name}", []).append(measured(held, others, truth))
    print(
        f"\nat {rate:g}\n\n| method | coverage, % | size | empty, % | named: coverage, % | size | "
        "coverage of the hard third, % |\n|---|---|---|---|---|---|---|"
    )
    for name, values in found.items():
        print(row(name, values))


def going_down(tree: Parents, p_NC: np.ndarray, labels_N: np.ndarray, limit: float) -> tuple:
    """(scores, nodes): from the top, each time to the child whose classes have most together."""
    below = {node: tree.member_MC[node] for node in range(tree.all)}
    scores, nodes = np.zeros(len(p_NC)), np.full(len(p_NC), tree.all)
    for i, p_C in enumerate(p_NC):
        inside = np.ones(len(p_C), bool)
        while inside.sum() > 1:
            children = [b & inside for b in below.values() if (b & inside).sum() < inside.sum()]
            whole = [c for c in children if not any((c < d).any() and (c <= d).all()
                                                    for d in children)]  # fmt: skip
            inside = max(whole, key=lambda c: p_C[c].sum())
            share = p_C[inside].sum()
            if not inside[labels_N[i]] and not scores[i]:
                scores[i] = share
            if share > limit:
                nodes[i] = next(n for n, b in below.items() if (b == inside).all())
    return scores, nodes


def parents_table(said: tuple[np.ndarray, ...], tree: Parents, rate: float) -> None:
    """Print what is sure, and right, by either way."""
    found: dict[str, list[tuple[float, ...]]] = {"climbing (cliptune)": [], "going down": []}
    count = len(tree.class_names)
    for seed in range(SPLITS):
        own, labels, others, truth = halves(*said, seed)
        sure = fit_sure(own, labels, tree, share=rate)
        assert sure is not None
        scores, _ = going_down(tree, own, labels, np.inf)
        limit = np.sort(scores)[conformal_rank(rate, len(labels)) - 1]
        by = {
            "climbing (cliptune)": tree.deepest(others, above=sure.limit),
            "going down": going_down(tree, others, truth, limit)[1],
        }
        for name, nodes in by.items():
            right = tree.member_MC[nodes, truth].mean()
            kinds = (nodes < count, (nodes >= count) & (nodes < tree.all), nodes == tree.all)
            found[name].append((right, *(kind.mean() for kind in kinds)))
    print(f"\nsure at {rate:g}\n\n| way | right, % | of a class, % | of a parent | of neither |")
    print("|---|---|---|---|---|")
    for name, values in found.items():
        spread = np.std([value[0] for value in values])
        right, *kinds = (100 * x for x in np.mean(values, axis=0))
        cells = " | ".join(f"{kind:.1f}" for kind in kinds)
        print(f"| {name} | {right:.1f} ± {100 * spread:.1f} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pairs", nargs="+", metavar="DATA=RUN")
    parser.add_argument("--choose", action="store_true", help="val alone")
    parser.add_argument("--mapie", action="store_true")
    parser.add_argument("--classes", type=Path, help="folder of a classes.yaml with parents")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    options = parser.parse_args()
    for pair in options.pairs:
        data, _, run = pair.partition("=")
        said = said_of(Path(run), Path(data), ["val"] if options.choose else ["val", "test"])
        right = (said[0].argmax(axis=1) == said[2]).mean()
        print(f"\n{Path(data).name}: {len(said[2])} photos, {100 * right:.1f} % right")
        names = resolve_checkpoint(Path(run)).record.class_names
        for rate in options.rates:
            if options.classes:
                tree = Parents(names, read_names(options.classes, names).parents)
                parents_table(said, tree, rate)
                continue
            table(said, rate, mapie=options.mapie)


if __name__ == "__main__":
    main()

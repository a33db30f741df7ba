"""Which photos without a label to label next: unsure, unlike one another, unlike what is known.

Each method is a pure function of answers and directions, and picks places in the pool. Shape
suffixes: N photos of the pool, M known ones, C classes, D feature, K chosen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cliptune.training.head.logistic import Floats

Places = list[int]
_FOR_EACH = 10  # candidates for each photo to choose
Method = Callable[[Floats, Floats, Floats, int, np.random.Generator], Places]


def select(
    chances_NC: Floats, towards_ND: Floats, known_MD: Floats, number: int, *, method: str, seed: int
) -> Places:
    """Places of `number` photos of the pool (all, of fewer), in the order of choice.

    `chances_NC` are the classifier's probabilities; `towards_ND` and `known_MD` directions, of
    length 1, of the pool and of photos whose label is known (M may be 0).
    """
    number = min(number, len(chances_NC))
    return METHODS[method](
        chances_NC, towards_ND, known_MD, number, np.random.default_rng([seed, len(chances_NC)])
    )


def unsureness(chances_NC: Floats) -> Floats:
    """(N,) from 0 to 1: one less the margin between the two most probable classes.

    Scheffer, Decomain and Wrobel (2001): smallest margin first.
    """
    two_N2 = np.partition(chances_NC, -2, axis=1)[:, -2:]
    result: Floats = 1 - (two_N2[:, 1] - two_N2[:, 0])
    return result


def by_margin(
    chances_NC: Floats, _: Floats, __: Floats, number: int, ___: np.random.Generator
) -> Places:
    """The most unsure."""
    return _first(np.argsort(-unsureness(chances_NC), kind="stable"), number)


def by_entropy(
    chances_NC: Floats, _: Floats, __: Floats, number: int, ___: np.random.Generator
) -> Places:
    """Those whose answers spread most over classes."""
    entropy_N = -(chances_NC * np.log(np.maximum(chances_NC, 1e-300))).sum(axis=1)
    return _first(np.argsort(-entropy_N, kind="stable"), number)


def by_coverage(
    _: Floats, towards_ND: Floats, known_MD: Floats, number: int, rng: np.random.Generator
) -> Places:
    """Each time the one farthest from all known and chosen: greedy k-center (Sener and Savarese,
    ICLR 2018). Without known ones chance takes the first."""
    gaps_N = _gaps(towards_ND, known_MD)
    chosen: Places = []
    while len(chosen) < number:
        first = not chosen and not len(known_MD)
        place = int(rng.integers(len(gaps_N))) if first else int(gaps_N.argmax())
        chosen.append(place)
        gaps_N = _nearer(gaps_N, towards_ND, chosen)
    return chosen


def by_unsure_coverage(
    chances_NC: Floats, towards_ND: Floats, known_MD: Floats, number: int, rng: np.random.Generator
) -> Places:
    """Drawn by how unsure they are, times how far from all known and chosen: k-means++ (Arthur and
    Vassilvitskii, 2007) with weights."""
    unsure_N, gaps_N = unsureness(chances_NC), _gaps(towards_ND, known_MD)
    chosen: Places = []
    while len(chosen) < number:
        chosen.append(_drawn(unsure_N * gaps_N, chosen, rng))
        gaps_N = _nearer(gaps_N, towards_ND, chosen)
    return chosen


def by_unsure_clusters(
    chances_NC: Floats, towards_ND: Floats, known_MD: Floats, number: int, rng: np.random.Generator
) -> Places:
    """Of the most unsure, ten for each to choose, the middles of as many clusters: k-means in which
    a photo weighs as it is unsure (Zhdanov, arXiv 1901.05954), and as it is far from known ones."""
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    weights_N = unsureness(chances_NC) * _gaps(towards_ND, known_MD) + 1e-6
    near = np.argsort(-weights_N, kind="stable")[: _FOR_EACH * number]
    if len(near) <= number:
        return _first(near, number)
    means = KMeans(number, n_init=3, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of copies there are fewer clusters
        distances = means.fit_transform(towards_ND[near], sample_weight=weights_N[near])
    found = dict.fromkeys(near[np.sort(distances.argmin(axis=0))].tolist())  # the most unsure first
    rest = [int(place) for place in near if place not in found]  # where two clusters share one
    return [*found, *rest][:number]


def by_gradients(
    chances_NC: Floats, towards_ND: Floats, _: Floats, number: int, rng: np.random.Generator
) -> Places:
    """k-means++ on the gradients that photos would give a head, were they what it answers: BADGE
    (Ash et al., ICLR 2020). The longest comes first. Unlike there, what no gradient would move,
    sure answers, counts as chosen from the start."""
    pulls_NC = chances_NC.copy()
    pulls_NC[np.arange(len(pulls_NC)), chances_NC.argmax(axis=1)] -= 1
    # The gradient is the outer product of pull and direction, whose products are products of both.
    squares_N = (pulls_NC**2).sum(axis=1)
    gaps_N = squares_N.copy()
    chosen: Places = []
    while len(chosen) < number:
        chosen.append(_drawn(gaps_N, chosen, rng) if chosen else int(squares_N.argmax()))
        last = chosen[-1]
        alike_N = (pulls_NC @ pulls_NC[last]) * (towards_ND @ towards_ND[last])
        gaps_N = np.minimum(gaps_N, np.maximum(squares_N + squares_N[last] - 2 * alike_N, 0))
        gaps_N[last] = 0
    return chosen


def by_chance(
    chances_NC: Floats, _: Floats, __: Floats, number: int, rng: np.random.Generator
) -> Places:
    """Any: what the others are compared with."""
    return _first(rng.permutation(len(chances_NC)), number)


METHODS: dict[str, Method] = {
    "unsure-clusters": by_unsure_clusters,
    "unsure-coverage": by_unsure_coverage,
    "gradients": by_gradients,
    "margin": by_margin,
    "entropy": by_entropy,
    "coverage": by_coverage,
    "random": by_chance,
}


def _first(order_N: NDArray[np.int64], number: int) -> Places:
    return [int(place) for place in order_N[:number]]


def _gaps(towards_ND: Floats, known_MD: Floats) -> Floats:
    """(N,) one less the cosine to the nearest known photo; 1 where none is known."""
    gaps_N = np.ones(len(towards_ND))
    for start in range(0, len(known_MD), 1024):
        block_MD = known_MD[start : start + 1024]
        gaps_N = np.minimum(gaps_N, 1 - (towards_ND @ block_MD.T).max(axis=1))
    return np.maximum(gaps_N, 0)


def _nearer(gaps_N: Floats, towards_ND: Floats, chosen: Places) -> Floats:
    """The gaps once the last of `chosen` is known; no gap is left for the chosen."""
    gaps_N = np.minimum(gaps_N, 1 - towards_ND @ towards_ND[chosen[-1]])
    gaps_N[chosen] = -1.0
    return gaps_N


def _drawn(weights_N: Floats, chosen: Places, rng: np.random.Generator) -> int:
    """A place by chance, as often as it weighs; any that is not chosen where none weighs."""
    weights_N = np.maximum(weights_N, 0)
    weights_N[chosen] = 0
    if weights_N.sum() <= 0:
        weights_N = np.ones(len(weights_N))
        weights_N[chosen] = 0
    return int(rng.choice(len(weights_N), p=weights_N / weights_N.sum()))

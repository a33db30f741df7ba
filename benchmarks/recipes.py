"""Ways that people cite to make a classifier of CLIP's frozen features, to compare ours with.

Each takes a `Cell` and gives logits of its test photos. Strengths are chosen on val, as in the
papers; `stack` cross-validates over train and val together and fits on both, as ours does of few.

Shape suffixes: N photos, C classes, D projected feature, H pooled feature.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch.nn.functional import cross_entropy, log_softmax, normalize, one_hot, softplus

from cliptune.training.head.fitting import fit_head
from cliptune.training.head.stage import VAL_JOINS


@dataclass(frozen=True)
class Photos:
    """Pooled features before the projection, and labels."""

    pooled_NH: torch.Tensor
    labels_N: torch.Tensor

    def only(self, places: torch.Tensor) -> Photos:
        """Those at `places`."""
        return Photos(self.pooled_NH[places], self.labels_N[places])

    def __add__(self, other: Photos) -> Photos:
        return Photos(
            torch.cat([self.pooled_NH, other.pooled_NH]),
            torch.cat([self.labels_N, other.labels_N]),
        )


@dataclass(frozen=True)
class Cell:
    """A few-shot problem: some photos of train, some of val, all of test."""

    train: Photos
    val: Photos
    test: Photos
    text_CD: torch.Tensor  # of length 1
    projection_DH: torch.Tensor
    scale: float  # of cosines
    seed: int

    def projected(self, photos: Photos) -> torch.Tensor:
        return photos.pooled_NH @ self.projection_DH.T

    def cosine(self, photos: Photos) -> torch.Tensor:
        return normalize(self.projected(photos), dim=1)

    def zero_shot(self, photos: Photos) -> torch.Tensor:
        return self.scale * self.cosine(photos) @ self.text_CD.T


Recipe = Callable[[Cell], torch.Tensor]


def zero_shot(cell: Cell) -> torch.Tensor:
    """CLIP's text features (Radford et al., arXiv 2103.00020)."""
    return cell.zero_shot(cell.test)


def probe(cell: Cell) -> torch.Tensor:
    """Logistic regression on the pooled feature (ibid.), its C by accuracy on val."""

    def fit(strength: float) -> LogisticRegression:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=strength, max_iter=2_000)
            return model.fit(cell.train.pooled_NH.numpy(), cell.train.labels_N.numpy())

    val = cell.val.pooled_NH.numpy(), cell.val.labels_N.numpy()
    best = max(map(fit, np.logspace(-3, 2, 11)), key=lambda model: model.score(*val))
    chances_NC = best.predict_proba(cell.test.pooled_NH.numpy())
    return torch.from_numpy(np.log(np.maximum(chances_NC, 1e-300)))


def text_probe(cell: Cell) -> torch.Tensor:
    """A cosine head pulled to the text features it starts from (cf. CLAP, arXiv 2312.12730)."""
    strengths = np.logspace(-3, 2, 11)
    heads = [_text_head(cell, float(strength)) for strength in strengths]
    best = min(heads, key=lambda head: _loss(_cosine_logits(cell, cell.val, head), cell.val))
    return _cosine_logits(cell, cell.test, best)


def wise(cell: Cell) -> torch.Tensor:
    """The hardly pulled text head, mixed with zero-shot (WiSE-FT, arXiv 2109.01903), by val."""
    tuned_CD = _text_head(cell, 1e-4)
    mixtures = [torch.lerp(cell.text_CD, tuned_CD, float(a)) for a in np.linspace(0, 1, 11)]
    best = min(mixtures, key=lambda head: _loss(_cosine_logits(cell, cell.val, head), cell.val))
    return _cosine_logits(cell, cell.test, best)


def tip_f(cell: Cell) -> torch.Tensor:
    """Tip-Adapter-F: a cache of tuned keys beside zero-shot (Zhang et al., arXiv 2207.09519)."""
    train_ND = cell.cosine(cell.train)
    values_NC = one_hot(cell.train.labels_N, len(cell.text_CD)).float()
    keys_ND = train_ND.clone().requires_grad_()

    def logits(photos: Photos, keys_ND: torch.Tensor, share: float, sharp: float) -> torch.Tensor:
        near_NN = torch.exp(-sharp * (1 - cell.cosine(photos) @ keys_ND.T))
        return cell.zero_shot(photos) + share * near_NN @ values_NC

    optimizer = torch.optim.AdamW([keys_ND], lr=1e-3, eps=1e-4)
    for _ in range(100):
        optimizer.zero_grad()
        cross_entropy(logits(cell.train, keys_ND, 1.0, 5.5), cell.train.labels_N).backward()
        optimizer.step()
    tuned_ND = keys_ND.detach()
    tried = [(share, sharp) for share in (0.3, 1, 2, 3, 5, 8) for sharp in (1, 3, 5.5, 8, 12)]
    best = min(tried, key=lambda pair: _loss(logits(cell.val, tuned_ND, *pair), cell.val))
    return logits(cell.test, tuned_ND, *best)


def prolip(cell: Cell) -> torch.Tensor:
    """The visual projection tuned, pulled to where it was (ProLIP, arXiv 2410.05270)."""

    def fit(strength: float) -> torch.Tensor:
        offset_DH = torch.zeros_like(cell.projection_DH, requires_grad=True)
        pull = strength / len(cell.text_CD)
        _minimise(
            [offset_DH],
            lambda: (
                _loss(logits(cell.train, cell.projection_DH + offset_DH), cell.train)
                + pull * (offset_DH**2).sum()
            ),
            steps=100,
        )
        return cell.projection_DH + offset_DH.detach()

    def logits(photos: Photos, projection_DH: torch.Tensor) -> torch.Tensor:
        cosine_ND = normalize(photos.pooled_NH @ projection_DH.T, dim=1)
        return cell.scale * cosine_ND @ cell.text_CD.T

    tuned = [fit(strength) for strength in (1e-2, 1e-1, 1.0, 10.0)]
    best = min(tuned, key=lambda projection: float(_loss(logits(cell.val, projection), cell.val)))
    return logits(cell.test, best)


def stack(cell: Cell) -> torch.Tensor:
    """Zero-shot, text head and probes with and without it as offset, mixed by held-out answers."""
    photos = cell.train + cell.val
    mean_H, spread_H = photos.pooled_NH.mean(0), photos.pooled_NH.std(0) + 1e-3
    fewest = int(torch.bincount(photos.labels_N).min())
    folds = StratifiedKFold(min(5, fewest), shuffle=True, random_state=0)
    cuts = list(folds.split(photos.pooled_NH, photos.labels_N))

    def answers(kind: str, seen: Photos, asked: Photos, strength: float) -> torch.Tensor:
        rest = Cell(seen, seen, asked, cell.text_CD, cell.projection_DH, cell.scale, cell.seed)
        if kind == "text":
            logits_NC = _cosine_logits(rest, asked, _text_head(rest, strength))
        else:
            logits_NC = _free_logits(rest, strength, kind == "offset", mean_H, spread_H)
        return log_softmax(logits_NC, 1)

    said = [log_softmax(cell.zero_shot(photos), 1)]
    tests = [log_softmax(cell.zero_shot(cell.test), 1)]
    grids = {"text": (-3, 1.5, 7), "plain": (-4, -0.5, 8), "offset": (-4, 0, 8)}
    for kind, grid in grids.items():
        tried = []
        for strength in np.logspace(*grid):
            held_out_NC = torch.zeros(len(photos.labels_N), len(cell.text_CD))
            for inside, outside in cuts:
                seen, asked = (
                    Photos(photos.pooled_NH[i], photos.labels_N[i]) for i in (inside, outside)
                )
                held_out_NC[outside] = answers(kind, seen, asked, float(strength))
            tried.append((float(_loss(held_out_NC, photos)), float(strength), held_out_NC))
        _, strength, held_out_NC = min(tried, key=lambda entry: entry[0])
        said.append(held_out_NC)
        tests.append(answers(kind, photos, cell.test, strength))
    raw_K = torch.zeros(len(said), requires_grad=True)

    def mixed(columns: list[torch.Tensor]) -> torch.Tensor:
        return torch.einsum("k,knc->nc", softplus(raw_K), torch.stack(columns))

    _minimise([raw_K], lambda: _loss(mixed(said), photos) + 0.01 * (raw_K**2).sum(), steps=100)
    return mixed(tests).detach()


def ours(cell: Cell) -> torch.Tensor:
    """What `cliptune train` begins with: val joins where photos are few."""
    joins = len(cell.val.labels_N) * VAL_JOINS >= len(cell.train.labels_N)
    photos = cell.train + cell.val if joins else cell.train
    head = fit_head(
        cell.projected(photos).numpy(), photos.labels_N.numpy(), cell.text_CD.numpy(), cell.scale,
        seed=cell.seed, projection_DH=cell.projection_DH.numpy(),
    )  # fmt: skip
    return torch.from_numpy(head.logits(cell.projected(cell.test).double().numpy()))


RECIPES: dict[str, Recipe] = {
    "zero-shot": zero_shot, "probe": probe, "textprobe": text_probe, "wise": wise, "tip_f": tip_f,
    "prolip": prolip, "stack": stack, "our head": ours,
}  # fmt: skip


def _text_head(cell: Cell, strength: float) -> torch.Tensor:
    """(C, D) class weights fitted on train."""
    offset_CD = torch.zeros_like(cell.text_CD, requires_grad=True)
    _minimise(
        [offset_CD],
        lambda: (
            _loss(_cosine_logits(cell, cell.train, cell.text_CD + offset_CD), cell.train)
            + strength * (offset_CD**2).sum()
        ),
    )
    return cell.text_CD + offset_CD.detach()


def _free_logits(
    cell: Cell, strength: float, with_offset: bool, mean_H: torch.Tensor, spread_H: torch.Tensor
) -> torch.Tensor:
    """Logits of test from a head on standardised features, fitted on train."""
    classes, dim = len(cell.text_CD), cell.train.pooled_NH.shape[1]
    weights_CH = torch.zeros(classes, dim, requires_grad=True)
    bias_C = torch.zeros(classes, requires_grad=True)

    def logits(photos: Photos) -> torch.Tensor:
        points_NH = (photos.pooled_NH - mean_H) / spread_H
        return with_offset * cell.zero_shot(photos) + points_NH @ weights_CH.T + bias_C

    _minimise(
        [weights_CH, bias_C],
        lambda: _loss(logits(cell.train), cell.train) + strength * (weights_CH**2).sum(),
    )
    return logits(cell.test).detach()


def _cosine_logits(cell: Cell, photos: Photos, weights_CD: torch.Tensor) -> torch.Tensor:
    return cell.scale * cell.cosine(photos) @ weights_CD.T


def _loss(logits_NC: torch.Tensor, photos: Photos) -> torch.Tensor:
    return cross_entropy(logits_NC, photos.labels_N)


def _minimise(
    parameters: list[torch.Tensor], loss: Callable[[], torch.Tensor], *, steps: int = 150
) -> None:
    optimizer = torch.optim.LBFGS(parameters, max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)

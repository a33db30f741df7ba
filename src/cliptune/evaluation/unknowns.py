"""How well a checkpoint says "none of these", on photos of none of its classes.

Shape suffixes: N known photos, M unknown ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cliptune.evaluation.statistics.few_photos import FOR_95_PERCENT
from cliptune.evaluation.statistics.grouped import Groups, num_groups, share_of
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.rejection import (
    auroc_estimate,
    false_accept_rate,
    false_accepts_at_share,
)
from cliptune.language import said
from cliptune.model.answers import Answers, Floats, ScoreName


@dataclass(frozen=True, kw_only=True)
class NoneOfThese:
    """Photos of the classes, and of none of them, before the threshold set on val."""

    score: ScoreName
    threshold: float
    share: float  # of val photos that the threshold was to keep
    kept: Estimate  # share of the photos measured that are taken as known
    num_unknown: int = 0
    unknown_dir: str | None = None
    false_accepts: Estimate | None = None  # share of unknown photos taken as known
    # For every score, of the photos measured against the unknown ones:
    auroc: dict[str, float] | None = None
    auroc_interval_95: dict[str, tuple[float, float]] | None = None
    # Where 95 % of the known are kept; None where they are too few.
    false_accepts_at_share: dict[str, float | None] | None = None

    def auroc_of(self, score: str) -> Estimate:
        """The AUROC of one score with its interval. Raises `TypeError` where there is none."""
        if self.auroc is None or self.auroc_interval_95 is None:
            raise TypeError("no photos of none of the classes were measured")
        return Estimate(self.auroc[score], *self.auroc_interval_95[score])

    @property
    def too_few_photos(self) -> dict[str, str]:
        """Figure without a value -> why."""
        if self.false_accepts_at_share is None or None not in self.false_accepts_at_share.values():
            return {}
        return {
            "false_accepts_at_share": said(
                "Which threshold keeps 95 % is told by {count} photos of the classes or more.",
                count=FOR_95_PERCENT,
            )
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"too_few_photos": self.too_few_photos}


def none_of_these(
    answers: Answers,
    known_N: Mapping[ScoreName, Floats],
    unknown_M: Mapping[ScoreName, Floats] | None = None,
    *,
    unknown_dir: str | None = None,
    groups_N: Groups | None = None,
) -> NoneOfThese:
    """From each score of the photos measured and, where there are some, of the unknown ones.

    The photos measured, not the unknown ones, may belong to groups.
    """
    own_N = known_N[answers.score]
    kept = share_of(answers.knows(own_N), groups_N)
    assert kept is not None  # there are photos
    measured = NoneOfThese(
        score=answers.score, threshold=answers.threshold, share=answers.share, kept=kept
    )
    if unknown_M is None:
        return measured
    told = {
        name: auroc_estimate(known_N[name], unknown_M[name], known_groups=num_groups(groups_N))
        for name in unknown_M
    }
    return replace(
        measured,
        num_unknown=len(unknown_M[answers.score]),
        unknown_dir=unknown_dir,
        false_accepts=false_accept_rate(unknown_M[answers.score], answers.threshold),
        auroc={name: found.value for name, found in told.items()},
        auroc_interval_95={name: (found.low, found.high) for name, found in told.items()},
        false_accepts_at_share={
            name: None
            if len(own_N) < FOR_95_PERCENT
            else false_accepts_at_share(known_N[name], unknown_M[name]).value
            for name in unknown_M
        },
    )

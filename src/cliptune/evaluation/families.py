"""Classes that belong together: how often at least the parent was right, in numbers and words.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cliptune.data.parents import Indices, Parents
from cliptune.evaluation.report_json import estimate_dict
from cliptune.evaluation.statistics.conformal import coverage_range
from cliptune.evaluation.statistics.intervals import Estimate, proportion
from cliptune.evaluation.statistics.metrics import Labels
from cliptune.evaluation.statistics.words import in_words, percent
from cliptune.language import amount
from cliptune.language import translated as _
from cliptune.model.answers import Answers, Floats
from cliptune.model.conformal import SureClass


@dataclass(frozen=True, kw_only=True)
class ParentFigures:
    """The photos of the classes below one parent, at whatever depth.

    `recall` is the share answered with any of these classes, `precision` the share of such answers
    that are right so far; None without photos. `within` of the mistakes stay below the parent.
    """

    name: str
    classes: tuple[str, ...]
    num_images: int
    recall: Estimate | None
    precision: Estimate | None
    within: int
    across: int


@dataclass(frozen=True, kw_only=True)
class SureFigures:
    """The deepest class or parent that answers were sure of, on the photos measured.

    Of these `as_class` are classes, `as_parent` parents, `as_none` neither; `right` counts the
    last as right. The rate of limits fitted on so many photos lies from `low` to `high` in 95 %.
    """

    sure: SureClass
    right: Estimate
    as_class: int
    as_parent: int
    as_none: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Families:
    """A split by the nearest parents of classes; a class without one stands for itself.

    `right` is the share of photos answered with a class of the right one's parent. Of the wrong
    answers `within` have the right parent, `across` another.
    """

    tree: Parents
    right: Estimate
    within: int
    across: int
    parents: tuple[ParentFigures, ...]
    sure: SureFigures | None
    sure_N: Indices | None  # (N,) nodes of `tree`

    def sure_names(self) -> list[str]:
        """For each photo the class or parent it is sure of, "" for none."""
        return [] if self.sure_N is None else [self.tree.name(int(x)) or "" for x in self.sure_N]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        sure = self.sure
        return {
            "parent_right": estimate_dict(self.right),
            "mistakes_within_a_parent": self.within,
            "mistakes_across_parents": self.across,
            "per_parent": {
                each.name: {
                    "classes": list(each.classes),
                    "photos": each.num_images,
                    "recall": estimate_dict(each.recall),
                    "precision": estimate_dict(each.precision),
                    "mistakes_within": each.within,
                    "mistakes_across": each.across,
                }
                for each in self.parents
            },
            "sure_of": None if sure is None else {
                **sure.sure.model_dump(),
                "share_of_further_photos_95": [sure.low, sure.high],
                "measured": estimate_dict(sure.right),
                "class": sure.as_class,
                "parent": sure.as_parent,
                "none": sure.as_none,
            },
        }  # fmt: skip


def families(
    tree: Parents, answers: Answers | None, probabilities_NC: Floats, labels_N: Labels
) -> Families | None:
    """How often parents were right; None where no class has one. There is a photo or more."""
    if not tree:
        return None
    predicted_N = probabilities_NC.argmax(axis=1)
    wrong_N = predicted_N != labels_N
    same_N = tree.group_C[predicted_N] == tree.group_C[labels_N]
    sure, sure_N = None, None
    if answers is not None and answers.sure is not None:
        sure_N = tree.deepest(probabilities_NC, above=answers.sure.limit)
        sure = _sure_figures(tree, answers.sure, sure_N, labels_N)
    return Families(
        tree=tree,
        right=_share(same_N),
        within=int((wrong_N & same_N).sum()),
        across=int((~same_N).sum()),
        parents=tuple(
            _parent_figures(tree, node, predicted_N, labels_N)
            for node in range(len(tree.class_names), tree.all)
        ),
        sure=sure,
        sure_N=sure_N,
    )


def _parent_figures(
    tree: Parents, node: int, predicted_N: Indices, labels_N: Labels
) -> ParentFigures:
    below_C = tree.member_MC[node]
    own_N, said_N = below_C[labels_N], below_C[predicted_N]
    both = int((own_N & said_N).sum())
    name = tree.name(node)
    assert name is not None  # it is not that of all together
    return ParentFigures(
        name=name,
        classes=tuple(tree.class_names[label] for label in np.flatnonzero(below_C)),
        num_images=int(own_N.sum()),
        recall=proportion(both, int(own_N.sum())),
        precision=proportion(both, int(said_N.sum())),
        within=int((own_N & said_N & (predicted_N != labels_N)).sum()),
        across=int((own_N & ~said_N).sum()),
    )


def _sure_figures(tree: Parents, sure: SureClass, sure_N: Indices, labels_N: Labels) -> SureFigures:
    low, high = coverage_range(sure.share, sure.num_images)
    is_class_N, is_none_N = sure_N < len(tree.class_names), sure_N == tree.all
    return SureFigures(
        sure=sure, right=_share(tree.member_MC[sure_N, labels_N]), as_class=int(is_class_N.sum()),
        as_none=int(is_none_N.sum()), as_parent=int((~is_class_N & ~is_none_N).sum()),
        low=low, high=high,
    )  # fmt: skip


def _share(hits_N: Any) -> Estimate:
    share = proportion(int(hits_N.sum()), len(hits_N))
    assert share is not None  # there are photos
    return share


def families_in_words(found: Families) -> list[str]:
    """How often the parent was right, where mistakes went, and what it was sure of."""
    mistakes = found.within + found.across
    texts = [
        _(
            "At least the parent was right for {share} % of these photos: of {mistakes}, {within} "
            "stayed within the parent, {across} went to another."
        ).format(
            share=in_words(found.right, percent),
            mistakes=amount(mistakes, "mistake"),
            within=found.within,
            across=found.across,
        )
    ]
    if found.sure is not None:
        texts.append(sure_in_words(found.sure))
    return texts


def sure_in_words(found: SureFigures) -> str:
    """What was sure, how often that was right, and what was promised."""
    return _(
        "Sure of a class for {photos}, of a parent alone for {parents}, of neither for {none}; "
        "right for {right} %. Promised: {promised:g} %, which limits fitted on {val_photos} of val "
        "keep to within {low}–{high} %."
    ).format(
        photos=amount(found.as_class, "photo"),
        parents=found.as_parent,
        none=found.as_none,
        right=in_words(found.right, percent),
        promised=100 * found.sure.share,
        val_photos=amount(found.sure.num_images, "photo"),
        low=percent(found.low),
        high=percent(found.high),
    )

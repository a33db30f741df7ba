"""Whether an exported folder answers as the `Predictor` does, photo by photo."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cliptune.data.reading import Unreadable
from cliptune.errors import UserError
from cliptune.inference.prediction import Prediction
from cliptune.inference.predictor import Predictor
from cliptune.language import Said, joined, said
from cliptune.language import translated as _
from cliptune.model.answers import Answers
from cliptune.model.label_answers import LabelAnswers

FORMS = ("onnx", "transformers")  # what is exported
# How far a probability may be from the `Predictor`'s. The same label and the same "known" are asked
# for, but where two classes are as near to one another, or a score as near to the threshold; of
# several labels the same set of classes, but where one is as near to its threshold.
TOLERANCE = 1e-5
# Of fp16: weights so rounded moved none of 300 by more than 0.0009. In int8: of its own answers.
TOLERANCES = {"float32": TOLERANCE, "fp16": 2e-3, "int8": TOLERANCE}


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The answers of the exported file beside a `Predictor`'s on the same photos."""

    photos: int
    left_out: tuple[str, ...]  # that one of the two cannot read
    largest_difference: float  # of a probability
    other_labels: int
    other_known: int
    tolerance: float = TOLERANCE
    other_sets: int | None = None  # None without prediction sets
    other_sure: int | None = None  # None without parents of classes
    other_shown: int | None = None  # None of one label to a photo

    @property
    def others(self) -> Said:
        """How many answers are other ones, in words."""
        if self.other_shown is not None:
            return said(
                "each class's probability was compared, and each photo's set of classes that\n"
                "reach their thresholds: {count} other sets",
                count=self.other_shown,
            )
        parts = [
            said("{count} other labels", count=self.other_labels),
            said('{count} other "known"', count=self.other_known),
        ]
        if self.other_sets is not None:
            parts.append(said("{count} other sets", count=self.other_sets))
        if self.other_sure is not None:
            parts.append(said('{count} other "sure of"', count=self.other_sure))
        return joined(parts, ", ")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {
            "photos": self.photos,
            "left_out": len(self.left_out),
            "largest_probability_difference": self.largest_difference,
            "tolerance": self.tolerance,
            "other_labels": self.other_labels,
            "other_known": self.other_known,
        }
        later = {
            "other_sets": self.other_sets, "other_sure_of": self.other_sure,
            "other_shown": self.other_shown,
        }  # fmt: skip
        return values | {key: count for key, count in later.items() if count is not None}


@dataclass(frozen=True)
class _Difference:
    """Of one photo; `within` where the tolerance covers it."""

    probability: float
    other_label: bool
    other_known: bool
    within: bool
    other_set: bool = False
    other_sure: bool = False
    other_shown: bool = False


def verify(
    folder: Path,
    predictor: Predictor,
    photos: Sequence[Path],
    *,
    progress: bool = True,
    tolerance: float = TOLERANCE,
    form: str = "onnx",
) -> Verified:
    """The runner of `folder`, which is of one of `FORMS`, against `predictor` on `photos`.

    Raises `UserError` where an answer differs by more than `tolerance`, or no photo can be read.
    """
    of_labels, every_class = predictor.label_answers, len(predictor.class_names)
    exported = _runner(form, several=of_labels is not None)(folder)
    further = predictor.engine.further
    found: list[_Difference] = []
    left_out: list[str] = []
    faults: list[str] = []
    bar = tqdm(photos, _("verifying"), unit="img", leave=False, disable=None if progress else True)
    for path, ours in zip(bar, predictor.stream(photos, top_k=every_class), strict=True):
        try:
            theirs = exported.predict(path, top_k=every_class)
        except (OSError, ValueError) as error:
            left_out.append(str(error))
            continue
        if isinstance(ours, Unreadable):
            left_out.append(str(ours))
            continue
        found.append(
            _difference(ours, theirs, predictor.answers, tolerance)
            if of_labels is None
            else _label_difference(ours, theirs, _thresholds(predictor, of_labels), tolerance)
        )
        if not found[-1].within:
            faults.append(f"{path}, by {found[-1].probability:.2g}")
    if faults:
        raise UserError(
            f"the exported file answers otherwise for {len(faults)} of {len(photos)} photos; "
            f"{tolerance:g} of a probability is allowed, and nothing was written. The first: "
            f"{faults[0]}. Please report it with the versions of torch, onnx and onnxruntime."
        )
    if not found:
        raise UserError(
            f"none of the {len(photos)} photos can be read by both, so nothing is proved: "
            f"{left_out[0]}. Name other photos: --data FOLDER"
        )
    return Verified(
        photos=len(found),
        left_out=tuple(left_out),
        largest_difference=max(each.probability for each in found),
        other_labels=sum(each.other_label for each in found),
        other_known=sum(each.other_known for each in found),
        tolerance=tolerance,
        other_sets=sum(each.other_set for each in found) if "prediction_set" in further else None,
        other_sure=sum(each.other_sure for each in found) if "sure_of" in further else None,
        other_shown=sum(each.other_shown for each in found) if "shown" in further else None,
    )


def _runner(form: str, *, several: bool) -> Any:
    """The class that answers for folders of that form: what is in the folder's own program."""
    program = "runner" if form == "onnx" else "classify"
    name = f"label_{program}" if several else program
    return importlib.import_module(f"cliptune.inference.export.{name}").Exported


def _difference(
    ours: Prediction, theirs: dict[str, Any], answers: Answers | None, tolerance: float
) -> _Difference:
    chances = {score.label: score.probability for score in ours.scores}
    apart = max(abs(each["probability"] - chances[each["label"]]) for each in theirs["scores"])
    other_known = ours.known is not theirs["known"]
    at_threshold = (
        answers is not None
        and theirs["known_score"] is not None
        and abs(theirs["known_score"] - answers.threshold)
        <= tolerance * max(1.0, abs(answers.threshold))
    )
    other_set, at_limit = _sets_differ(ours, theirs, answers, tolerance)
    other_sure, at_sure = _sure_differs(ours, theirs, answers, tolerance)
    tied = chances[ours.label] - chances[theirs["label"]] <= tolerance
    return _Difference(
        probability=apart,
        other_label=ours.label != theirs["label"],
        other_known=other_known,
        other_set=other_set,
        other_sure=other_sure,
        within=apart <= tolerance
        and tied
        and (at_threshold or not other_known)
        and (at_limit or not other_set)
        and (at_sure or not other_sure or ours.label != theirs["label"]),
    )


def _thresholds(predictor: Predictor, answers: LabelAnswers) -> dict[str, float]:
    """Class -> the probability from which on it is told."""
    return dict(zip(predictor.class_names, answers.thresholds_C.tolist(), strict=True))


def _label_difference(
    ours: Prediction, theirs: dict[str, Any], thresholds: Mapping[str, float], tolerance: float
) -> _Difference:
    """Of a photo that may show any of the classes."""
    chances = {score.label: score.probability for score in ours.scores}
    apart = max(abs(each["probability"] - chances[each["label"]]) for each in theirs["scores"])
    told = {each["label"] for each in theirs["shown"]}
    others = told.symmetric_difference(score.label for score in ours.shown or ())
    at_threshold = all(abs(chances[label] - thresholds[label]) <= tolerance for label in others)
    return _Difference(
        probability=apart,
        other_label=ours.label != theirs["label"],
        other_known=ours.known is not theirs["known"],
        other_shown=bool(others),
        within=apart <= tolerance and at_threshold and theirs["known"] is bool(told),
    )


def _sets_differ(
    ours: Prediction, theirs: dict[str, Any], answers: Answers | None, tolerance: float
) -> tuple[bool, bool]:
    """(whether one set has more classes, whether each of those lies at the limit).

    A set is the beginning of the order of the classes, which are compared already.
    """
    if ours.prediction_set is None or answers is None or answers.sets is None:
        return "prediction_set" in theirs, False
    fewer, more = sorted([len(ours.prediction_set), len(theirs["prediction_set"])])
    before, limit = 0.0, answers.sets.limit
    distances = []
    for place, score in enumerate(ours.scores[:more]):
        distances += [abs(before - limit) / max(place, 1)] if place >= fewer else []
        before += score.probability
    return fewer != more, max(distances, default=0.0) <= tolerance


def _sure_differs(
    ours: Prediction, theirs: dict[str, Any], answers: Answers | None, tolerance: float
) -> tuple[bool, bool]:
    """(whether another class or parent is named, whether the deeper of them lies at the limit)."""
    if ours.sure_share is None or answers is None or answers.sure is None:
        return "sure_of" in theirs, False
    said = {"label": None, "probability": 1.0} if ours.sure_of is None else asdict(ours.sure_of)
    beside = theirs["sure_of"] or {"label": None, "probability": 1.0}
    deeper = min(said["probability"], beside["probability"])
    apart = abs(deeper - answers.sure.limit)
    return said["label"] != beside["label"], apart <= tolerance * len(ours.scores)

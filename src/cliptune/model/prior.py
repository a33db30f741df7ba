"""How frequent classes are where photos are answered, and what that changes in the answers.

By Bayes' rule, what a photo says and how frequent classes are add up in the logits: another prior
adds the logarithm of the new share of each class over that of training.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.config import is_positive
from cliptune.config_source import read_mapping
from cliptune.data.naming import clean_name
from cliptune.errors import CheckpointError, UserError, listing, named
from cliptune.files import user_path
from cliptune.hints import did_you_mean
from cliptune.model.answers import Answers
from cliptune.model.checkpoint import Checkpoint

Floats = NDArray[np.float64]
MOST_CLASSES = 100_000

# "uniform", a share for each class name, or where such stand: a file, or the command line's text.
Prior = str | Path | Mapping[str, float]
EXPECTED = (
    "Expected uniform, a YAML or JSON file of 'name: share' for classes, or name=share,name=share"
)


def answers_for(prior: Prior, checkpoint: Checkpoint) -> Answers:
    """How `checkpoint` answers where classes are as frequent as `prior` says.

    Raises `CheckpointError` for one that is not calibrated, or does not say how frequent classes
    were in training; `UserError` for a `prior` that is none.
    """
    record = checkpoint.record
    if record.prior is None or len(record.prior) != len(record.class_names):
        raise CheckpointError(
            f"{checkpoint.path}: --prior cannot be answered for: this checkpoint does not say how "
            "frequent its classes were in training. It was made by an earlier version, or a class "
            "was added since. Train anew, or leave out --prior."
        )
    if record.answers is None:
        raise CheckpointError(
            f"{checkpoint.path}: --prior cannot be answered for: its probabilities are not "
            "calibrated, since val was not measured when it was saved. Use one of its run that "
            "was, or leave out --prior."
        )
    trained_C = np.array(record.prior) / sum(record.prior)
    shares_C = prior_shares(prior, record.class_names, trained_C)
    shifts_C = np.log(shares_C) - np.log(trained_C)
    return record.answers.model_copy(update={"shifts": tuple(shifts_C.tolist())})


def prior_shares(prior: Prior, class_names: Sequence[str], trained_C: Floats) -> Floats:
    """(C,) the share of each class that `prior` says; they sum to 1.

    Where it names all classes, any numbers in their proportion will do, such as counts. Where it
    names some, the others have what is left, in the proportions of `trained_C`.
    Raises `UserError` for unknown classes, numbers that are no shares, and nothing left.
    """
    if isinstance(prior, str) and prior == "uniform":
        return np.full(len(class_names), 1 / len(class_names))
    named_shares = _read(prior)
    shares = {clean_name(str(name)): share for name, share in named_shares.items()}
    faults = [
        f"no class '{name}'.{did_you_mean(name, class_names)}"
        for name in shares
        if name not in class_names
    ]
    faults += [
        f"'{name}': found {share!r}; expected a number above 0"
        for name, share in shares.items()
        if not is_positive(share)
    ]
    if faults:
        raise UserError(
            f"--prior:\n{listing(faults)}\nClasses of the checkpoint: {named(class_names)}."
        )
    asked_C = np.array([shares.get(name, 0.0) for name in class_names], dtype=np.float64)
    if (others_C := asked_C == 0).any():
        left = 1 - asked_C.sum()
        if left <= 0:
            others = [name for name in class_names if name not in shares]
            raise UserError(
                f"--prior: the shares given add up to {asked_C.sum():g}, and nothing is left for "
                f"{named(others)}. Name all classes, or give shares that leave something."
            )
        asked_C[others_C] = left * trained_C[others_C] / trained_C[others_C].sum()
    shares_C: Floats = asked_C / asked_C.sum()
    return shares_C


def _read(prior: Prior) -> Mapping[Any, Any]:
    """The mapping itself, that in the file `prior`, or what `prior` writes out."""
    if isinstance(prior, Mapping):
        return prior
    path = user_path(prior)
    if os.path.lexists(path):  # the shares of many classes are too long a name to ask for
        values, _, repeated = read_mapping(
            path, refusal=UserError, what="prior", most_keys=MOST_CLASSES,
            expected="'name: share' for classes",
        )  # fmt: skip
        if repeated:
            raise UserError(f"{path}: written twice: {', '.join(repeated)}. Keep one of each.")
        return values
    parts = [part.rpartition("=") for part in str(prior).split(",")]
    if not all(name and equals for name, equals, _ in parts):
        raise UserError(
            f"--prior {prior}: no such file.{did_you_mean(str(prior), ['uniform'])} {EXPECTED}."
        )
    return {name.strip(): _number(share) for name, _, share in parts}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text

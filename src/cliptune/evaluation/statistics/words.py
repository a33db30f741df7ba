"""Figures as they are written: shares in percent, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

from cliptune.evaluation.statistics.intervals import Estimate


def percent(value: float) -> str:
    """A share of 1 in percent."""
    return f"{100 * value:.1f}"


def number(value: float) -> str:
    """A figure that is no share."""
    return f"{value:.3f}"


def in_words(estimate: Estimate, form: Callable[[float], str]) -> str:
    """A figure with its interval: "78.5 (72.3–83.6)"; "78.5 (?)" where that is not known."""
    if math.isinf(estimate.high):
        return f"{form(estimate.value)} (?)"
    return f"{form(estimate.value)} ({form(estimate.low)}–{form(estimate.high)})"


def points(difference: Estimate) -> str:
    """A difference in percentage points with its interval: "+15.0 (+8.6, +21.7)", "+15.0 (?)"."""
    if math.isinf(difference.high):
        return f"{100 * difference.value:+.1f} (?)"
    value, low, high = (100 * x for x in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} ({low:+.1f}, {high:+.1f})"

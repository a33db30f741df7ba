"""How many photos a figure needs: with fewer, words stand in its place, or in its interval's.

Each number is arithmetic, or the least of those measured in `benchmarks/results/coverage.md`
whose 95 % intervals hold the truth in 90 % of data sets or more and tell something.
"""

from __future__ import annotations

# Its interval covers 90 % on 10 photos too, but is 26 to 49 points wide there, 14 to 37 on 20.
FOR_ECE = 50
# On 50 photos, of which 97 % are right, intervals of log loss and Brier score cover 65 to 90 %: in
# one such set in five there is none of the mistakes that make most of the mean.
FOR_LOSSES = 100
# On average: of macro-F1 66 % on two of each class, 75 to 85 % on two of each of ten.
IN_A_CLASS = 5
# Photos that one model alone has right. 2 * 0.5**5 = 0.06: no split of five has p < 0.05.
DISCORDANT = 6
# A twentieth of fewer is no photo: "95 % are kept" would be "all are".
FOR_95_PERCENT = 20


def without_value(num_images: int) -> dict[str, str]:
    """Name in `FullMetrics` -> why so few photos do not tell it."""
    if num_images >= FOR_ECE:
        return {}
    return {"ece": f"too few photos: it needs {FOR_ECE}, and there are {num_images}"}


def without_interval(num_images: int, num_classes: int) -> dict[str, str]:
    """Name in `FullMetrics` -> why so few photos do not tell how sure it is."""
    reasons = {}
    if num_images < FOR_LOSSES:
        reason = f"too few photos: its interval needs {FOR_LOSSES}, and there are {num_images}"
        reasons = {"log_loss": reason, "brier": reason}
    if num_images < IN_A_CLASS * num_classes:
        reasons["macro_f1"] = (
            f"too few photos: its interval needs {IN_A_CLASS} of each class on average, and there "
            f"are {num_images} of {num_classes} classes"
        )
    return reasons


def without_test(discordant: int) -> dict[str, str]:
    """Name in `PairedComparison` -> why so few photos do not tell two models apart."""
    if discordant >= DISCORDANT:
        return {}
    return {
        "mcnemar_p": f"too few photos are right with one of the two alone: {discordant}, and with "
        f"fewer than {DISCORDANT} no p below 0.05 is possible"
    }

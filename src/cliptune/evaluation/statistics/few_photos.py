"""How many photos a figure needs: with fewer, words stand in its place, or in its interval's.

Each number is arithmetic, or the least of those measured in `benchmarks/results/coverage.md` from
which on 95 % intervals hold the truth in 90 % of data sets or more (within the simulation's own
error) and tell something. Shares of any count have Wilson's interval, which is wide where it must
be: so have top-1, top-5, the recall of a class with a single photo, and the AUROC.
"""

from __future__ import annotations

# Its interval covers 93 to 99 % on fewer, but is 26 to 47 points wide on 10, 14 to 37 on 20.
FOR_ECE = 50
# On 50 photos, of which 97 % are right, intervals of log loss and Brier score cover 77 to 93 %: in
# one such set in five there is none of the mistakes that make most of the mean. On 10: 39 to 69 %.
FOR_LOSSES = 100
# On average. Macro-F1's cover 66 % on two photos of each of 120 classes, 78 to 92 % on one or two
# of each of ten; balanced accuracy, which has no bias, 90 to 97 % there.
IN_A_CLASS = 5
# Photos that one model alone has right. 2 * 0.5**5 = 0.06: no split of five has p < 0.05.
DISCORDANT = 6
# Photos that show one class of several. Of two models alike, intervals of the difference in its
# average precision leave 0 out in 7 % of data sets from 10 on, in 10 to 15 % on 4 to 9 and in 21 to
# 35 % on one or two; of the difference in F1 in 8 to 12, 15 to 33 and 32 to 44 %.
OF_A_LABEL = 10
# A twentieth of fewer is no photo: "95 % are kept" would be "all are".
FOR_95_PERCENT = 20


def without_value(number: int, *, what: str = "photos") -> dict[str, str]:
    """Name in `FullMetrics` -> why so few photos, or `what` is independent, do not tell it."""
    if number >= FOR_ECE:
        return {}
    return {"ece": f"too few {what}: it needs {FOR_ECE}, and there are {number}"}


def without_interval(number: int, num_classes: int, *, what: str = "photos") -> dict[str, str]:
    """Name in `FullMetrics` -> why so few photos, or `what`, do not tell how sure it is."""
    reasons = {}
    if number < FOR_LOSSES:
        reason = f"too few {what}: its interval needs {FOR_LOSSES}, and there are {number}"
        reasons = {"log_loss": reason, "brier": reason}
    if number < IN_A_CLASS * num_classes:
        reasons["macro_f1"] = (
            f"too few {what}: its interval needs {IN_A_CLASS} of each class on average, and there "
            f"are {number} of {num_classes} classes"
        )
    return reasons


def without_test(discordant: int, *, what: str = "photos") -> dict[str, str]:
    """Name in `PairedComparison` -> why so few photos, or `what`, do not tell two models apart."""
    if discordant >= DISCORDANT:
        return {}
    return {
        "mcnemar_p": f"too few {what} are right with one of the two alone: {discordant}, and with "
        f"fewer than {DISCORDANT} no p below 0.05 is possible"
    }

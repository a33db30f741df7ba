"""A search in words, at 80 columns."""

from __future__ import annotations

from cliptune.evaluation.statistics.words import percent, points
from cliptune.text import counted, wrap
from cliptune.training.reporting import clock
from cliptune.tuning.space import title_of
from cliptune.tuning.tuning import Proof, Trial, Tuning

MOST = 25  # trials in the table
COLUMNS = 6  # settings in it


def tuning_text(tuning: Tuning) -> str:
    """The table of trials, and what the best is worth."""
    best, default = tuning.best, tuning.default
    done = [trial for trial in tuning.trials if trial.state != "running"]
    order = {"complete": 0, "pruned": 1, "failed": 2}
    costs = {trial.number: tuning.cost(trial) for trial in done}
    done.sort(key=lambda t: (order[t.state], costs[t.number] is None, costs[t.number] or 0.0,
                             t.number))  # fmt: skip
    shown = done[:MOST]
    if default is not None and default not in shown:
        shown.append(default)
    keys = [key for key in tuning.importances if key in tuning.spaces]
    keys = [*keys, *(key for key in tuning.spaces if key not in keys)][:COLUMNS]
    titles = "".join(f"{title_of(key):>8}" for key in keys)
    second = "mAP" if tuning.several else "top-1"
    lines = [f" trial    loss{second:>7}    time{titles}"]
    lines += [_row(tuning, trial, keys) for trial in shown]
    if len(done) > len(shown):
        lines.append(f"  … and {len(done) - len(shown)} more, in tuning.json")
    photos = counted(tuning.num_choosing, "photo")
    how = f"out of {tuning.folds} folds" if tuning.folds else "of val"
    marks = {
        "pruned": "p: pruned, at a point where half of the trials before were better.",
        "failed": "f: failed; tuning.json says why.",
    }
    said = [words for state, words in marks.items() if any(t.state == state for t in shown)]
    by = ", by mAP" if tuning.several else ""
    about = (
        f"Loss and {second} (%): on {photos} {how}, which choose{by}. Trial 0: the default "
        "settings."
    )
    lines += ["", wrap(" ".join([about, *said]))]
    if tuning.importances:
        shares = ", ".join(f"{title_of(k)} {v:.0%}" for k, v in tuning.importances.items())
        lines += ["", wrap(f"What matters, of what was tried: {shares}.")]
    if best is None:
        faults = "; ".join({trial.fault for trial in done if trial.fault})
        return "\n".join([*lines, "", wrap(f"No trial came to its end. {faults}".strip())])
    return "\n".join([*lines, "", *map(wrap, _verdict(tuning, best))])


def _row(tuning: Tuning, trial: Trial, keys: list[str]) -> str:
    def cell(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    numbers = tuning.numbers_of(trial)
    mark = {"pruned": "p", "failed": "f"}.get(trial.state, "*" if trial is tuning.best else " ")
    share = trial.val_mean_ap if tuning.several else trial.val_accuracy
    accuracy = None if share is None else 100 * share
    spent = "–" if trial.seconds is None else clock(trial.seconds)
    settings = "".join(f"{_short(numbers.get(key)):>8}" for key in keys)
    figures = f"{cell(trial.val_loss, '.3f'):>8}{cell(accuracy, '.1f'):>7}{spent:>8}"
    return f"{mark}{trial.number:>5}{figures}{settings}"


def _short(value: float | None) -> str:
    """A setting in a column of the table: two digits of what is no whole number."""
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.2g}"


def _verdict(tuning: Tuning, best: Trial) -> list[str]:
    """What the best is worth, a paragraph each."""
    default, proof = tuning.default, tuning.proof
    if best is default:
        better = "higher mAP" if tuning.several else "lower loss"
        return [f"No trial has a {better} than the default settings: keep them."]
    if default is None:
        return [f"Best: trial {best.number}. The default settings failed: nothing to compare with."]
    if tuning.several:
        chosen = (
            f"Best: trial {best.number}, mAP {percent(best.val_mean_ap or 0.0)} % on val against "
            f"{percent(default.val_mean_ap or 0.0)} % of the default. The highest of "
            f"{counted(len(tuning.trials), 'trial')} is high by luck, too."
        )
    else:
        chosen = _lowest(tuning, best, default)
    if proof is None:
        return [f"{chosen} No photos were set apart to say how much of that is."]
    told = _told_of_several(proof) if tuning.several else _told(proof)
    meaning = {
        "better": "It is better than the default, on photos like these; another seed of training "
        "may move both.",
        "worse": "It is worse than the default, though val chose it: keep the default.",
        "indistinguishable": "That is not distinguishable from nothing: more photos in val would "
        "tell, or the default is as good.",
    }[proof.verdict]
    return [chosen, told, meaning]


def _lowest(tuning: Tuning, best: Trial, default: Trial) -> str:
    return (
        f"Best: trial {best.number}, val loss {best.val_loss:.3f} against {default.val_loss:.3f} "
        f"of the default. The lowest of {counted(len(tuning.trials), 'trial')} is low by luck, too."
    )


def _told(proof: Proof) -> str:
    photos = counted(proof.num_photos, "photo")
    losses = f"{proof.best_loss:.3f} against {proof.default_loss:.3f}"
    gain = ""
    if proof.gain is not None:
        gain = (
            f": a gain of {proof.gain.value:+.3f} (95 %: {proof.gain.low:+.3f} to "
            f"{proof.gain.high:+.3f})"
        )
    return (
        f"Out of sample, on {photos} of val that chose nothing, loss {losses}{gain}; top-1 "
        f"{percent(proof.best_accuracy)} against {percent(proof.default_accuracy)} %."
    )


def _told_of_several(proof: Proof) -> str:
    gain = ""
    if proof.gain is not None:
        gain = f": a gain of {points(proof.gain)} points"
    return (
        f"Out of sample, on {counted(proof.num_photos, 'photo')} of val that chose nothing, mAP "
        f"{percent(proof.best_mean_ap or 0.0)} against {percent(proof.default_mean_ap or 0.0)} "
        f"%{gain}; photos all right {percent(proof.best_accuracy)} against "
        f"{percent(proof.default_accuracy)} %."
    )

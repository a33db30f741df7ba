"""A search in words, at 80 columns."""

from __future__ import annotations

from cliptune.evaluation.statistics.words import percent, points
from cliptune.language import amount
from cliptune.language import translated as _
from cliptune.text import right, wrap
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
    titles = "".join(right(_(title_of(key)), 8) for key in keys)
    second = "mAP" if tuning.several else "top-1"
    head = f"{right(_('trial'), 6)}{right(_('loss'), 8)}{second:>7}{right(_('time'), 8)}"
    lines = [f"{head}{titles}"]
    lines += [_row(tuning, trial, keys) for trial in shown]
    if len(done) > len(shown):
        more = len(done) - len(shown)
        lines.append(_("  … and {count} more, in tuning.json").format(count=more))
    marks = {
        "pruned": _("p: pruned, at a point where half of the trials before were better."),
        "failed": _("f: failed; tuning.json says why."),
    }
    said = [words for state, words in marks.items() if any(t.state == state for t in shown)]
    lines += ["", wrap(" ".join([_about(tuning), *said]))]
    if tuning.importances:
        shares = ", ".join(f"{_(title_of(k))} {v:.0%}" for k, v in tuning.importances.items())
        lines += ["", wrap(_("What matters, of what was tried: {shares}.").format(shares=shares))]
    if best is None:
        faults = "; ".join({trial.fault for trial in done if trial.fault})
        return "\n".join([*lines, "", wrap(f"{_('No trial came to its end.')} {faults}".strip())])
    return "\n".join([*lines, "", *map(wrap, _verdict(tuning, best))])


def _about(tuning: Tuning) -> str:
    """What the figures of the table are of."""
    photos = amount(tuning.num_choosing, "photo")
    if tuning.folds:
        photos = _("{photos} out of {folds} folds").format(photos=photos, folds=tuning.folds)
    else:
        photos = _("{photos} of val").format(photos=photos)
    text = (
        _("Loss and mAP (%): on {photos}, which choose, by mAP. Trial 0: the default settings.")
        if tuning.several
        else _("Loss and top-1 (%): on {photos}, which choose. Trial 0: the default settings.")
    )
    return text.format(photos=photos)


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
        return [
            _("No trial has a higher mAP than the default settings: keep them.")
            if tuning.several
            else _("No trial has a lower loss than the default settings: keep them.")
        ]
    if default is None:
        text = _("Best: trial {number}. The default settings failed: nothing to compare with.")
        return [text.format(number=best.number)]
    chosen = _highest(tuning, best, default) if tuning.several else _lowest(tuning, best, default)
    if proof is None:
        return [f"{chosen} {_('No photos were set apart to say how much of that is.')}"]
    told = _told_of_several(proof) if tuning.several else _told(proof)
    meaning = {
        "better": _(
            "It is better than the default, on photos like these; another seed of training may "
            "move both."
        ),
        "worse": _("It is worse than the default, though val chose it: keep the default."),
        "indistinguishable": _(
            "That is not distinguishable from nothing: more photos in val would tell, or the "
            "default is as good."
        ),
    }[proof.verdict]
    return [chosen, told, meaning]


def _highest(tuning: Tuning, best: Trial, default: Trial) -> str:
    return _(
        "Best: trial {number}, mAP {best} % on val against {default} % of the default. The highest "
        "of {trials} is high by luck, too."
    ).format(
        number=best.number,
        best=percent(best.val_mean_ap or 0.0),
        default=percent(default.val_mean_ap or 0.0),
        trials=amount(len(tuning.trials), "trial"),
    )


def _lowest(tuning: Tuning, best: Trial, default: Trial) -> str:
    return _(
        "Best: trial {number}, val loss {best:.3f} against {default:.3f} of the default. The "
        "lowest of {trials} is low by luck, too."
    ).format(
        number=best.number,
        best=best.val_loss,
        default=default.val_loss,
        trials=amount(len(tuning.trials), "trial"),
    )


def _told(proof: Proof) -> str:
    gain = ""
    if proof.gain is not None:
        gain = _(": a gain of {value:+.3f} (95 %: {low:+.3f} to {high:+.3f})").format(
            value=proof.gain.value, low=proof.gain.low, high=proof.gain.high
        )
    return _(
        "Out of sample, on {photos} of val that chose nothing, loss {best:.3f} against "
        "{default:.3f}{gain}; top-1 {best_top1} against {default_top1} %."
    ).format(
        photos=amount(proof.num_photos, "photo"),
        best=proof.best_loss,
        default=proof.default_loss,
        gain=gain,
        best_top1=percent(proof.best_accuracy),
        default_top1=percent(proof.default_accuracy),
    )


def _told_of_several(proof: Proof) -> str:
    gain = ""
    if proof.gain is not None:
        gain = _(": a gain of {points} points").format(points=points(proof.gain))
    return _(
        "Out of sample, on {photos} of val that chose nothing, mAP {best} against {default} "
        "%{gain}; photos all right {best_exact} against {default_exact} %."
    ).format(
        photos=amount(proof.num_photos, "photo"),
        best=percent(proof.best_mean_ap or 0.0),
        default=percent(proof.default_mean_ap or 0.0),
        gain=gain,
        best_exact=percent(proof.best_accuracy),
        default_exact=percent(proof.default_accuracy),
    )

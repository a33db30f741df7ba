"""What trackers are shown of a run besides its curves: photos as the model sees them, and what
came of them.

Pictures are few and small, and made before the first update and after the last: never between.
N: photos of val, C: classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import classification_report

from cliptune.data.loading import Item, Key
from cliptune.data.naming import display_names
from cliptune.evaluation.plots import best_epoch, plot_confusion_matrix, plot_photos
from cliptune.model.checkpoint import best_of, list_checkpoints
from cliptune.model.classifier import Predictions
from cliptune.text import counted
from cliptune.training.run import Run, ValAnswers
from cliptune.training.trackers.telling import public_name

PHOTOS = 16  # of a sheet
OF_A_MATRIX = 60  # classes; above, its names cannot be read at the size trackers show it


def keep_answers(run: Run, said: Predictions) -> None:
    """Keep the little that pictures need of `said`, of the best epoch so far, just counted."""
    if not run.trackers or run.several is not None:
        return
    logits_NC, truth_N = said.logits[0], said.labels
    answered_N = logits_NC.argmax(axis=1)
    rows_N = np.arange(len(truth_N))
    doubt_N = logits_NC[rows_N, answered_N] - logits_NC[rows_N, truth_N]
    state = run.progress
    run.best_answers = ValAnswers(
        state.epoch, state.update, said.indices, truth_N, answered_N, doubt_N
    )


def show_training_photos(run: Run) -> None:
    """A sheet of training photos, over all classes, as the first epoch shows them to the model."""
    if not run.trackers:
        return
    samples = run.train_samples
    by_class: dict[int, list[int]] = {}
    for place, sample in enumerate(samples):
        by_class.setdefault(sample.label, []).append(place)
    turns = max(map(len, by_class.values()))
    in_turn = [rows[i] for i in range(turns) for rows in by_class.values() if i < len(rows)]
    chosen, names = in_turn[:PHOTOS], _shown_names(run)
    several = run.several_labels
    labels = [several[i] if several is not None else (samples[i].label,) for i in chosen]
    captions = [", ".join(names[label] for label in each) for each in labels]
    draw = _sheet(
        run.train_loader.dataset, [Key(0, i) for i in chosen], captions,
        title="training photos, as augmented",
    )  # fmt: skip
    run.trackers.picture("photos/train", draw, step=run.progress.update)


def tell_what_came_of_it(run: Run) -> None:
    """The files of the run, and of val what was answered wrongly."""
    if not run.trackers:
        return
    if run.best_answers is not None:
        _show_answers(run, run.best_answers)
    run.trackers.reached(partial(_files_of, run), step=run.progress.update)


def _files_of(run: Run, folder: Path) -> list[Path]:
    """The picture of the curves, and in `folder` the card of the best checkpoint and a report."""
    output_dir = run.settings.output.output_dir
    files = [path for path in [output_dir / "training_curves.png"] if path.is_file()]
    if best := best_of(list_checkpoints(output_dir)):
        base = best.record.base_model.name
        text = (best.path / "README.md").read_text(encoding="utf-8")
        card = folder / "model_card.md"
        card.write_text(text.replace(base, public_name(base)), encoding="utf-8", newline="\n")
        files.append(card)
    if (said := run.best_answers) is not None:
        labels, names = range(len(run.class_names)), list(run.class_names)
        report = classification_report(
            said.truth, said.answered, labels=labels, target_names=names, zero_division=0
        )
        text = f"val after epoch {said.epoch}, {counted(len(said.truth), 'photo')}\n\n{report}"
        path = folder / "val_report.txt"
        path.write_text(text, encoding="utf-8", newline="\n")
        files.append(path)
    return files


def best_figures(run: Run) -> dict[str, float | None]:
    """Those of the best epoch so far, and of zero-shot CLIP.

    Told after each epoch, before its checkpoint: a kill after the last one loses none.
    """
    found: dict[str, float | None] = {}
    if run.progress.history:
        best = best_epoch(run.progress.history)
        keys = ("epoch", "val_accuracy", "val_loss", "val_mean_ap")
        found = {f"best/{key}": best.get(key) for key in keys}
    for key in ("accuracy", "mean_ap"):
        found[f"zero_shot/{key}"] = run.progress.baseline.get(key)
    return found


def _show_answers(run: Run, said: ValAnswers) -> None:
    names, step = _shown_names(run), said.update
    wrong_W = np.flatnonzero(said.truth != said.answered)
    wrong_W = wrong_W[np.argsort(-said.doubt[wrong_W], kind="stable")][:PHOTOS]
    epoch = f"epoch {said.epoch}"
    if len(wrong_W):
        captions = [f"{names[said.answered[i]]}\nis {names[said.truth[i]]}" for i in wrong_W]
        draw = _sheet(
            run.val_loader.dataset, [int(said.photos[i]) for i in wrong_W], captions,
            title=f"val photos answered most wrongly, {epoch}",
        )  # fmt: skip
        run.trackers.picture("photos/val_wrong", draw, step=step)
    if len(names) <= OF_A_MATRIX:
        confusion_CC = np.zeros((len(names), len(names)), dtype=np.int64)
        np.add.at(confusion_CC, (said.truth, said.answered), 1)

        def draw_matrix(path: Path) -> None:
            plot_confusion_matrix(confusion_CC, names, path, title=f"val, {epoch}")

        run.trackers.picture("val/confusion_matrix", draw_matrix, step=step)


def _sheet(
    photos: Any, keys: Sequence[Key | int], captions: Sequence[str], *, title: str
) -> Callable[[Path], None]:
    """What draws those photos of the dataset `photos` that can be read, as a PNG."""

    def draw(path: Path) -> None:
        items = [photos[key] for key in keys]
        read = [(item.pixels.numpy(), caption)
                for item, caption in zip(items, captions, strict=True)
                if isinstance(item, Item)]  # fmt: skip
        plot_photos([pixels for pixels, _ in read], [each for _, each in read], path, title=title)

    return draw


def _shown_names(run: Run) -> list[str]:
    shown: Mapping[str, str] = display_names(run.class_names, run.names.display)
    return [shown[name] for name in run.class_names]

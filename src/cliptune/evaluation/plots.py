"""Pictures of a run and of an evaluation: the only place that imports matplotlib.

Figures are drawn without pyplot: no display, no global state. C: number of classes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliptune.evaluation.corruptions import CORRUPTIONS
from cliptune.files import whole_file
from cliptune.model.checkpoint import CRITERIA
from cliptune.text import columns, counted, shorten

if TYPE_CHECKING:
    from cliptune.evaluation.robustness import Robustness
    from cliptune.evaluation.statistics.class_figures import ClassFigures

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"  # Okabe & Ito, 2008
GRID = "#e6e6e6"
DPI = 150
NAME_COLUMNS = 24
# Of classifiers side by side: told apart by colour, dashes and marker alike.
LINES = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, ":", "^"), (GREY, "-.", "D"))
MANY = 30  # classes, above which names are set small and cells hold no numbers
# Latin letters from the first; Chinese from whichever of the others is installed
# (Linux, Windows, macOS). Of a .ttc file matplotlib may know the first face only: "CJK JP".
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
)


def plot_confusion_matrix(
    confusion_CC: NDArray[np.int64],
    shown_names: Sequence[str],
    path: Path,
    *,
    title: str,
    edges: Sequence[int] = (),
) -> None:
    """Shares of each true class (row) as colours; up to 30 classes, counts as numbers too.

    Lines go before the classes whose places are `edges`.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    count, many = len(shown_names), len(shown_names) > MANY
    shares_CC = confusion_CC / np.maximum(confusion_CC.sum(axis=1, keepdims=True), 1)
    names = [shorten(name, NAME_COLUMNS) for name in shown_names]
    cell, size = (0.125, 6) if many else (0.42, 9)  # inches, points
    side = float(np.clip(cell * count, 3.2, 30))  # 30 inches: 4,500 pixels
    label_room = 0.0088 * size * max(map(columns, names))
    # The palest blues would hide a single mistake among many photos.
    blues = ListedColormap(colormaps["Blues"](np.linspace(0.12, 1, 256)))

    with _picture(path, side + label_room + 1.2, side + label_room + 0.6) as (figure, axes):
        figure.set_layout_engine(
            "compressed"
        )  # squares beside labels: "constrained" cuts these off
        image = axes.imshow(np.ma.masked_equal(shares_CC, 0), cmap=blues, vmin=0, vmax=1)
        axes.set_xticks(range(count), names, rotation=90, fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
        axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=GRID, linewidth=0.4)
        for edge in edges:
            axes.axhline(edge - 0.5, color=GREY, linewidth=1.2)
            axes.axvline(edge - 0.5, color=GREY, linewidth=1.2)
        axes.tick_params(which="both", length=0)
        axes.set_xlabel("predicted", fontsize=16 if many else 10)
        axes.set_ylabel("true", fontsize=16 if many else 10)
        axes.set_title(title, fontsize=20 if many else 11)
        for row, column in zip(*np.nonzero(confusion_CC), strict=True):
            if not many:
                color = "white" if shares_CC[row, column] > 0.6 else "#222222"
                text = str(confusion_CC[row, column])
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, shrink=min(1, 4 / side))
        bar.set_label("share of the true class")


def plot_class_performance(
    classes: Sequence[ClassFigures], shown_names: Sequence[str], path: Path, *, title: str
) -> None:
    """Precision, recall and F1 of each class, the weakest last; what is None is not drawn."""
    rows = [
        (figures, f"{shorten(name, NAME_COLUMNS)}  ({figures.support})")
        for figures, name in zip(classes, shown_names, strict=True)
    ]
    rows.sort(key=lambda row: row[0].f1 or 0)
    f1 = np.array([_known(figures.f1) for figures, _ in rows])
    precision, recall = (
        np.array([nan if estimate is None else estimate.value for estimate in estimates])
        for estimates in ([x.precision for x, _ in rows], [x.recall for x, _ in rows])
    )
    many, y = len(rows) > MANY, np.arange(len(rows))
    size, height = (6, 0.16) if many else (9, 0.3)

    with _picture(path, 7.5, min(height * len(rows) + 1.6, 400)) as (_, axes):
        axes.barh(y, f1, color=BLUE, alpha=0.25, height=0.7)
        axes.hlines(y, precision, recall, color=GREY, linewidth=0.8)
        # A dot in a ring across a bar's end: each is seen where all three fall together.
        axes.plot(f1, y, "|", color=BLUE, ms=1.5 * size, mew=2, label="F1 (bar)")
        axes.plot(precision, y, "o", color=ORANGE, mfc="none", ms=0.8 * size, label="precision")
        axes.plot(recall, y, "o", color=GREEN, ms=0.45 * size, label="recall")
        axes.set_yticks(y, [label for _, label in rows], fontsize=size)
        axes.set_ylim(-0.8, len(rows) - 0.2)
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("score (number of photos in brackets)")
        axes.tick_params(axis="x", top=many, labeltop=many)
        axes.grid(axis="x", color=GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, fontsize=11, pad=46 if many else 26)  # above the legend
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=9,
            borderaxespad=2.5 if many else 0.5,  # above the labels of the upper axis
        )  # fmt: skip


def plot_training_curves(
    history: Sequence[Mapping[str, float | None]], path: Path, *, baseline_accuracy: float | None
) -> None:
    """Loss and accuracy of train and val over the epochs, beside the zero-shot baseline.

    Rows of `history` have epoch, train_loss, val_loss, train_accuracy, val_accuracy; accuracies
    are fractions. What is None is left out of its line.
    """
    epochs = [_known(row["epoch"]) for row in history]
    best = best_epoch(history)
    best_at, best_accuracy = _known(best["epoch"]), 100 * _known(best["val_accuracy"])

    with _picture(path, 9, 3.6, panels=2) as (figure, (left, right)):
        for axes, what, scale in ((left, "loss", 1), (right, "accuracy", 100)):
            for split, color in (("train", GREY), ("val", BLUE)):
                values = [scale * _known(row[f"{split}_{what}"]) for row in history]
                axes.plot(epochs, values, "o-", color=color, label=split, markersize=3.5)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
            axes.grid(color=GRID)
            axes.spines[["top", "right"]].set_visible(False)
        left.set_ylabel("loss (nats)")
        right.set_ylabel("top-1 accuracy (%)")
        label = f"best val: {best_accuracy:.1f} %, epoch {best_at:g}"
        right.plot(best_at, best_accuracy, "*", color=BLUE, ms=13, label=label)
        if baseline_accuracy is not None:
            label = f"zero-shot val: {100 * baseline_accuracy:.1f} %"
            right.axhline(100 * baseline_accuracy, color=ORANGE, ls="--", label=label)
        handles = right.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)


Row = TypeVar("Row", bound=Mapping[str, float | None])


def best_epoch(history: Sequence[Row]) -> Row:
    """The row with the highest val accuracy, then the lowest val loss, then the earliest.

    Where rows have a criterion, the lowest of these. The order of checkpoints; a loss that is
    not known comes last.
    """

    def rank(row: Row) -> tuple[float, float, float]:
        loss = _known(row["val_loss"])
        if by := [key for key in CRITERIA if key in row]:
            criterion = _known(row[by[0]])
            return inf if isnan(criterion) else criterion, 0.0, _known(row["epoch"])
        return -_known(row["val_accuracy"]), inf if isnan(loss) else loss, _known(row["epoch"])

    return min(history, key=rank)


def _known(value: float | None) -> float:
    return nan if value is None else value


def plot_robustness(
    robustness: Robustness, names: Sequence[str], path: Path, *, title: str
) -> None:
    """Accuracy against strength, one panel for each corruption and one for the mean of all.

    `names`: of the classifiers, in the order they were measured in; the first is drawn solid.
    """
    corruptions = [*robustness.corrupted]
    across = 4
    rows = -(-(len(corruptions) + 1) // across)
    strengths = np.arange(4)
    lines = list(zip(names, LINES, strict=False))  # of more classifiers than lines, the first

    with _picture(path, 11, 2.7 * rows + 0.7, panels=across, rows=rows) as (figure, grid):
        panels = np.ravel(grid)
        for i, (name, (color, style, marker)) in enumerate(lines):
            curves = np.array([robustness.curve(corruption, i) for corruption in corruptions])
            for axes, curve in zip(panels, [*curves, curves.mean(axis=0)], strict=False):
                axes.plot(
                    strengths, 100 * curve, style, color=color, marker=marker, ms=4.5, label=name,
                    clip_on=False,
                )  # fmt: skip
        for axes, corruption in zip(panels, corruptions, strict=False):
            chosen = CORRUPTIONS[corruption]
            axes.set_title(corruption, fontsize=11)
            axes.set_xticks(strengths, ["none", *(f"{level:g}" for level in chosen.levels)])
            axes.set_xlabel(chosen.meaning, fontsize=8)
        mean = panels[len(corruptions)]
        mean.set_title(f"mean of all {len(corruptions)}", fontsize=11, fontweight="bold")
        mean.set_xticks(strengths, ["none", "1", "2", "3"])
        mean.set_xlabel("strength", fontsize=8)
        for axes in panels[: len(corruptions) + 1]:
            axes.set_ylim(0, 100)
            axes.set_yticks(range(0, 101, 25))
            axes.grid(color=GRID)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        for axes in panels[len(corruptions) + 1 :]:
            axes.set_visible(False)
        photos = counted(robustness.num_photos, "photo")
        figure.supylabel(f"top-1 accuracy (%) on {photos}", fontsize=10)
        figure.suptitle(title, fontsize=12)
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False, fontsize=10)


def plot_photos(
    photos_CHW: Sequence[NDArray[np.uint8]], captions: Sequence[str], path: Path, *, title: str
) -> None:
    """Photos (3, H, W), alike in size, in rows of four, with a caption of one or two lines each."""
    across, edge = 4, 160  # pixels
    rows = -(-len(photos_CHW) // across)
    cell, top = (edge + 34, edge + 12), 26
    sheet = Image.new("RGB", (across * cell[1] + 12, rows * cell[0] + top), "white")
    places = [
        (12 + i % across * cell[1], top + i // across * cell[0]) for i in range(len(captions))
    ]
    for photo_CHW, place in zip(photos_CHW, places, strict=True):
        photo = Image.fromarray(np.ascontiguousarray(photo_CHW.transpose(1, 2, 0)))
        sheet.paste(photo.resize((edge, edge)), place)
    with _picture(path, sheet.width / DPI, sheet.height / DPI, panels=0) as (figure, _):
        figure.figimage(np.asarray(sheet))
        figure.text(12 / sheet.width, 1 - 7 / sheet.height, title, va="top", fontsize=5.2)
        for caption, (left, above) in zip(captions, places, strict=True):
            text = "\n".join(shorten(line, NAME_COLUMNS) for line in caption.split("\n"))
            x, y = left / sheet.width, 1 - (above + edge + 3) / sheet.height
            figure.text(x, y, text, va="top", fontsize=5.2, linespacing=1.1)


@dataclass(frozen=True)
class SearchedSetting:
    """A setting, and its value in each trial of a search."""

    name: str
    values: Sequence[float | None]
    log: bool


def plot_search(
    numbers: Sequence[int],
    losses: Sequence[float],
    complete: Sequence[bool],
    settings: Sequence[SearchedSetting],
    path: Path,
    *,
    default_loss: float | None,
    best: int | None,
    what: str = "val loss",
    unit: str = "nats",
) -> None:
    """Val loss of each trial (nats) in their order, then against each of `settings`.

    Or `what` else is better the less it is, in a `unit`.

    Trials that are not `complete` are hollow, at the loss at which they were given up. `best` is
    the number of a trial.
    """
    # One that diverged would press the others flat: it stands at the upper edge.
    top = 2 * max(min(losses), default_loss or 0.0)
    places, low = np.array(numbers), np.minimum(losses, top)
    whole = np.array(complete, dtype=bool)
    panels = [SearchedSetting("trial", places.tolist(), log=False), *settings]
    with _picture(path, 2.9 * len(panels) + 0.8, 3.4, panels=len(panels)) as (figure, grid):
        for axes, setting in zip(np.ravel(grid), panels, strict=True):
            x = np.array([_known(value) for value in setting.values])
            axes.plot(x[whole], low[whole], "o", color=BLUE, ms=5, label="trial")
            axes.plot(x[~whole], low[~whole], "o", color=GREY, mfc="none", ms=5, label="given up")
            if best is not None:
                here = places == best
                axes.plot(x[here], low[here], "*", color=GREEN, ms=14, label="best")
            if default_loss is not None:
                axes.axhline(default_loss, color=ORANGE, ls="--", label="default settings")
            if setting.log:
                _log_axis(axes, x)
            axes.set_xlabel(setting.name)
            axes.grid(color=GRID)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelleft=setting is panels[0])
        first = np.ravel(grid)[0]
        first.set_ylabel(f"{what} ({unit}{f', up to {top:.2g}' if max(losses) > top else ''})")
        first.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        handles = first.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)


def _log_axis(axes: Any, values: NDArray[np.float64]) -> None:
    """A logarithmic x axis with plain numbers at its ticks: powers need mathematical text."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    wide = np.nanmax(values) >= 50 * np.nanmin(values)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


@contextmanager
def _picture(
    path: Path, width: float, height: float, *, panels: int = 1, rows: int = 1
) -> Iterator[tuple[Any, Any]]:
    """A blank figure and its axes; what is drawn inside lands in `path`, whole or not at all.

    `width` and `height` are in inches. `panels`: of each row; 0 for no axes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # Texts take these when they are made, so they must hold for all of the drawing.
    settings = {"font.family": _fonts(), "text.parse_math": False, "text.usetex": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings(), _any_weight():
        # Without a Chinese font its characters are drawn as boxes; a warning for each says no more.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(rows, panels) if panels else None
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            figure.savefig(partial, format="png", dpi=DPI)


@contextmanager
def _any_weight() -> Iterator[None]:
    """Here matplotlib does not tell that a font has no face of just the weight asked for."""

    def other(record: logging.LogRecord) -> bool:
        return "find font weight" not in str(record.msg)

    fonts = logging.getLogger("matplotlib.font_manager")
    fonts.addFilter(other)
    try:
        yield
    finally:
        fonts.removeFilter(other)


def _fonts() -> list[str]:
    """Those of `FONTS` that are installed; matplotlib brings the first along."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return [font for font in FONTS if font in installed]

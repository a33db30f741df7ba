"""Pictures of a run and of an evaluation: the only place that imports matplotlib.

Figures are drawn without pyplot: no display, no global state. C: number of classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"  # Okabe & Ito, 2008
DPI = 150
# Fonts with Chinese, Japanese and Korean characters, on Linux, Windows and macOS.
FONTS = [
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
]


def plot_confusion_matrix(
    confusion_CC: NDArray[np.int64], class_names: Sequence[str], path: Path, *, title: str
) -> None:
    """Shares of each true class as colours, counts as numbers where they can be read."""
    count = len(class_names)
    support = confusion_CC.sum(axis=1, keepdims=True)
    shares = confusion_CC / np.maximum(support, 1)
    side = float(np.clip(0.42 * count, 3.2, 22)) if count <= 30 else 0.17 * count + 2
    names = [shorten(name) for name in class_names]
    label_room = 0.085 * max(map(len, names)) if count <= 30 else 0.06 * max(map(len, names))
    figure, axes = _figure(side + label_room + 1.2, side + label_room + 0.6)
    image = axes.imshow(np.ma.masked_equal(shares, 0), cmap="Blues", vmin=0, vmax=1)
    size = 9 if count <= 30 else 5
    axes.set_xticks(range(count), names, rotation=90, fontsize=size)
    axes.set_yticks(range(count), names, fontsize=size)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e6e6e6", linewidth=0.4)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row, column in zip(*np.nonzero(confusion_CC), strict=True):
        axes.text(
            column, row, str(confusion_CC[row, column]), ha="center", va="center",
            fontsize=9 if count <= 30 else 4,
            color="white" if shares[row, column] > 0.5 else "#222222",
        )  # fmt: skip
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, shrink=min(1, 4 / side))
    bar.set_label("share of the true class")
    axes.set_title(title, fontsize=11)
    _save(figure, path)


def plot_class_performance(
    report: Mapping[str, Any], class_names: Sequence[str], path: Path, *, title: str
) -> None:
    """Precision, recall and F1 of each class as dots, the weakest class at the bottom."""
    rows = sorted(class_names, key=lambda name: report[name]["f1-score"])
    height = 0.3 * len(rows) + 1.4 if len(rows) <= 30 else 0.16 * len(rows) + 1.6
    size = 9 if len(rows) <= 30 else 6
    figure, axes = _figure(7.5, height)
    y = np.arange(len(rows))
    f1 = [report[name]["f1-score"] for name in rows]
    axes.barh(y, f1, color=BLUE, alpha=0.25, height=0.7)
    for key, label, color, marker in (
        ("precision", "precision", ORANGE, "|"),
        ("recall", "recall", GREEN, "x"),
        ("f1-score", "F1", BLUE, "o"),
    ):
        values = [report[name][key] for name in rows]
        axes.plot(values, y, marker, color=color, label=label, markersize=size - 2)
    labels = [f"{shorten(name)}  ({int(report[name]['support'])})" for name in rows]
    axes.set_yticks(y, labels, fontsize=size)
    axes.set_ylim(-0.8, len(rows) - 0.2)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("score (number of photos in brackets)")
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    _save(figure, path)


def plot_training_curves(
    history: Sequence[Mapping[str, float]], path: Path, *, baseline_accuracy: float | None
) -> None:
    """Loss and accuracy of train and val over the epochs, beside the zero-shot baseline.

    Rows of `history` have epoch, train_loss, val_loss, train_accuracy, val_accuracy.
    """
    figure, (left, right) = _figure(9, 3.6, columns=2)
    epochs = [row["epoch"] for row in history]
    for axes, what in ((left, "loss"), (right, "accuracy")):
        scale = 100 if what == "accuracy" else 1
        for split, color in (("train", GREY), ("val", BLUE)):
            values = [scale * row[f"{split}_{what}"] for row in history]
            axes.plot(epochs, values, "o-", color=color, label=split, markersize=3.5)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#e6e6e6")
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("loss (nats)")
    right.set_ylabel("top-1 accuracy (%)")
    if baseline_accuracy is not None:
        right.axhline(100 * baseline_accuracy, color=ORANGE, ls="--", label="zero-shot (val)")
    best = max(history, key=lambda row: row["val_accuracy"])
    right.plot(best["epoch"], 100 * best["val_accuracy"], "*", color=BLUE, ms=13, label="best")
    left.legend(frameon=False, fontsize=9)
    right.legend(frameon=False, fontsize=9)
    _save(figure, path)


def shorten(name: str, *, limit: int = 24) -> str:
    """`name` in one line of at most `limit` characters, inert to matplotlib's formulas."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.replace("$", r"\$")


def _figure(width: float, height: float, *, columns: int = 1) -> tuple[Any, Any]:
    import matplotlib
    from matplotlib.figure import Figure

    # A glyph or a font that is missing is drawn as a box; one warning for each would say no more.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context({"font.family": _fonts()}):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(1, columns)


def _fonts() -> list[str]:
    """Those of `FONTS` that are installed."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return [font for font in FONTS if font in installed] or ["sans-serif"]


def _save(figure: Any, path: Path) -> None:
    """Write beside `path`, then move into place: a picture is there whole or not at all."""
    import warnings

    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with (
            matplotlib.rc_context({"font.family": _fonts()}),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(partial, format="png", dpi=DPI)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

"""Predictions on the screen and in files: .txt, .csv, .json or .jsonl by the file's ending.

The screen and .txt show classes by the names people read, .csv has class names (for programs),
.json and .jsonl both. Whether a photo shows a known class at all stands beside its classes.
"""

from __future__ import annotations

import csv
import json
import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cliptune.data.reading import Unreadable
from cliptune.errors import UserError
from cliptune.files import whole_file
from cliptune.foreign_errors import resource_errors
from cliptune.inference.prediction import Prediction
from cliptune.language import translated as _
from cliptune.storage import address_of, check_writable, whole_object
from cliptune.text import columns, fit, no_formula, one_line

Result = Prediction | Unreadable


def bar_chart(prediction: Prediction, *, width: int = 80) -> str:
    """A small bar chart of the probabilities, at most `width` columns wide."""
    longest = min(30, max(columns(score.name) for score in prediction.scores))
    room = width - longest - 13
    lines = []
    for score in prediction.scores:
        bar = "█" * round(room * score.probability) or "▏"
        lines.append(f"  {fit(score.name, longest)}  {100 * score.probability:5.1f} %  {bar}")
    if (sure := prediction.sure_share) is not None:
        of = prediction.sure_of
        named = _("no class or parent") if of is None else (
            f"{one_line(of.name)} ({100 * of.probability:.1f} %)")  # fmt: skip
        text = _("At {share:g} % sure of: {name}").format(share=100 * sure, name=named)
        lines.append(f"  {text}")
    if prediction.prediction_set is not None and prediction.coverage is not None:
        names = ", ".join(one_line(score.name) for score in prediction.prediction_set)
        start = _("At {share:g} % one of:").format(share=100 * prediction.coverage)
        lines += textwrap.wrap(f"{start} {names}", width, initial_indent="  ",
                               subsequent_indent="    ", break_long_words=False)  # fmt: skip
    if prediction.shown is not None:
        names = ", ".join(one_line(score.name) for score in prediction.shown)
        names = names or _("none of these; none reaches its threshold")
        lines.append("  " + _("Shown: {names}").format(names=names))
    elif prediction.known is False:
        lines.append(
            "  " + _("Perhaps none of these: it resembles the photos learned from too little.")
        )
    return "\n".join(lines)


def result_line(result: Result) -> str:
    """One image in one line of text: path, tab, classes with percentages, or what is wrong."""
    if isinstance(result, Unreadable):
        return f"{one_line(str(result.path))}\terror: {one_line(result.reason)}"
    told = result.scores if result.shown is None else result.shown
    scores = ", ".join(f"{one_line(s.name)} {100 * s.probability:.2f}%" for s in told)
    if result.shown is not None:
        return f"{one_line(result.source or '-')}\t{scores or 'none of these'}"
    in_set = ""
    if result.prediction_set is not None:
        in_set = "\tone of: " + ", ".join(one_line(s.name) for s in result.prediction_set)
    sure = ""
    if result.sure_share is not None:
        sure = f"\tsure of: {one_line(result.sure_of.name) if result.sure_of else 'none'}"
    doubt = "\tperhaps none of these" if result.known is False else ""
    return f"{one_line(result.source or '-')}\t{scores}{in_set}{sure}{doubt}"


def check_output(path: Path | str) -> None:
    """Raise `UserError` unless predictions can be written to the path or address."""
    if (ending := _ending(path)) not in WRITERS:
        raise UserError(
            f"{address_of(path) or path}: unknown ending '{ending}'. "
            f"Expected one of {', '.join(WRITERS)}."
        )
    if address := address_of(path):
        check_writable(address)
    elif (path := Path(path)).is_dir():
        raise UserError(f"{path}: this is a folder. Name a file, such as {path / 'out.csv'}.")


@contextmanager
def open_output(
    path: Path | str, *, top_k: int, further: Sequence[str] = ()
) -> Iterator[Callable[[Result], None]]:
    """A function that writes one result after another; the file appears whole at the end.

    At an address, too. A .csv has columns for those of `Prediction.further` in `further`.

    Raises `UserError` for an ending it does not know, `ResourceError` on a full disk.
    """
    check_output(path)
    address = address_of(path)
    if address is None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with (
        resource_errors(None if address else Path(path), left="; nothing was written"),
        whole_object(address) if address else whole_file(Path(path)) as partial,
        # Names that are no valid Unicode (Linux allows such files) as JSON's escapes.
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        WRITERS[_ending(path)](file, top_k, further) as write,
    ):
        yield write


@contextmanager
def _text(file: IO[str], top_k: int, further: Sequence[str]) -> Iterator[Callable[[Result], None]]:
    yield lambda result: print(result_line(result), file=file)


@contextmanager
def _csv(file: IO[str], top_k: int, further: Sequence[str]) -> Iterator[Callable[[Result], None]]:
    writer = csv.writer(file)
    columns = [f"{kind}_{i}" for i in range(1, top_k + 1) for kind in ("label", "probability")]
    writer.writerow(["image", *columns, "known", "known_score", *further, "error"])

    def write(result: Result) -> None:
        if isinstance(result, Unreadable):
            row = [result.path, *[""] * (2 * top_k + 2 + len(further)), result.reason]
            writer.writerow(map(no_formula, row))
            return
        cells: list[Any] = []
        for score in result.scores:
            cells += [score.label, f"{score.probability:.6f}"]
        doubt = ["", ""]
        if result.known_score is not None:
            doubt = [str(result.known).lower(), f"{result.known_score:.6f}"]
        empty = [""] * (2 * top_k - len(cells))
        beside = [result.further[name] for name in further]
        cells = [result.source, *cells, *empty, *doubt, *beside, ""]
        writer.writerow(map(no_formula, cells))

    yield write


@contextmanager
def _json_lines(
    file: IO[str], top_k: int, further: Sequence[str]
) -> Iterator[Callable[[Result], None]]:
    yield lambda result: print(_json_text(result), file=file)


@contextmanager
def _json(file: IO[str], top_k: int, further: Sequence[str]) -> Iterator[Callable[[Result], None]]:
    separator = "[\n"

    def write(result: Result) -> None:
        nonlocal separator
        file.write(separator + _json_text(result))
        separator = ",\n"

    yield write
    file.write("\n]\n" if separator == ",\n" else "[]\n")


def _json_text(result: Result) -> str:
    if isinstance(result, Unreadable):
        values: dict[str, Any] = {"image": os.fspath(result.path), "error": result.reason}
    else:
        values = result.to_dict()
    return json.dumps(values, ensure_ascii=False)


def _ending(path: Path | str) -> str:
    return PurePosixPath(address_of(path) or Path(path).as_posix()).suffix.lower()


WRITERS = {".txt": _text, ".csv": _csv, ".json": _json, ".jsonl": _json_lines}

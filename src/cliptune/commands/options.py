"""Options that several commands take, and the line that gives them again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliptune.storage import address_of

CheckpointPath = Annotated[
    Path,
    typer.Option(
        help="A checkpoint or an exported folder, or a run folder (then: its best); a path, an "
        "address such as s3://bucket/run, or hf:owner/name@revision on the hub."
    ),
]
OneCheckpoint = Annotated[
    Path,
    typer.Argument(
        help="A checkpoint folder, or a run folder (then: its best); or its address, or "
        "hf:owner/name on the hub."
    ),
]
SplitsFolder = Annotated[
    Path | None,
    typer.Option(help="Folder with the splits, or its address. [default: that of training]"),
]
SplitName = Annotated[str, typer.Option(help="train, val or test.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Photos at a time.")]
OnBadImage = Annotated[str, typer.Option(help="error, or skip.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
PrecisionAsked = Annotated[
    str | None,
    typer.Option(
        help="auto, float32, bf16, or fp16 on a GPU; auto: the fastest here. [default: that of the "
        "checkpoint's settings]"
    ),
]
BaseModelName = Annotated[
    str | None,
    typer.Option(help="Where the base model lies now, if it was moved, or is not in an export."),
]
PriorGiven = Annotated[
    str | None,
    typer.Option(
        "--prior",
        metavar="PRIOR",
        help="How frequent classes are where that is not as in training: uniform, a file of "
        "'name: share' lines, or name=share,name=share.",
    ),
]
ReducedDecoding = Annotated[
    bool,
    typer.Option(
        "--reduced-decoding",
        help="Decode large JPEGs at a part of their size: much faster, nearly the same.",
    ),
]
Plain = Annotated[
    bool, typer.Option("--plain", help="Compute by transformers and PEFT alone, unfused.")
]
Profile = Annotated[
    bool,
    typer.Option(
        "--profile", help="Show where the time went; a trace file, too, from the sixth batch on."
    ),
]
ChangedCheckpoint = Annotated[
    Path | None, typer.Option(help="The new checkpoint folder. [default: beside CHECKPOINT]")
]
MeasuredFolder = Annotated[
    Path | None, typer.Option(help="Photos to measure on. [default: those of training]")
]
MeasuredSplit = Annotated[str, typer.Option(help="Measure on train, val or test.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="The cluster, or local for this machine alone. [default: RAY_ADDRESS, one running "
        "here, or one of its own]",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and library messages.")]


def as_given(verb: str, *arguments: Path, **options: object) -> str:
    """The line of a command with what it was given, and the defaults a later version may change.

    The page goes on to others: what else stands on the process's own line is not for them. Options
    that are None or False are left out, and one that is True has no value.
    """
    from cliptune.text import command

    words: list[object] = []
    for name, value in options.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [_written(value)])]
    return command("cliptune", verb, *map(_written, arguments), *words)


def _written(value: object) -> object:
    """`value`, an address as it was given."""
    return address_of(value) or value if isinstance(value, Path) else value

"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CheckpointPath = Annotated[
    Path, typer.Option(help="A checkpoint folder, or a run folder (then: its best).")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
BaseModelName = Annotated[
    str | None, typer.Option(help="Where the base model lies now, if it was moved.")
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
MeasuredSplit = Annotated[str, typer.Option(help="Measure on train, val or test.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and library messages.")]

"""`cliptune remove-class`: a class less, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import BaseModelName, ChangedCheckpoint, Debug, Device, MeasuredSplit


def remove_class(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint folder, or a run folder (then: its best).")
    ],
    name: Annotated[str, typer.Argument(help="The class to leave out.")],
    output: ChangedCheckpoint = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Photos to measure on. [default: those of training]")
    ] = None,
    split: MeasuredSplit = "val",
    batch_size: Annotated[int, typer.Option(min=1, help="Photos at a time.")] = 32,
    device: Device = "auto",
    base_model: BaseModelName = None,
    debug: Debug = False,
) -> None:
    """Make a new checkpoint that knows one class less, without training."""
    from cliptune.commands.screen import class_change_summary, quiet_libraries
    from cliptune.editing.change import remove_class as run_removal

    quiet_libraries(debug=debug)
    change = run_removal(
        checkpoint,
        name,
        output=output,
        data_dir=data_dir,
        split=split,
        batch_size=batch_size,
        device=device,
        base_model=base_model,
    )
    class_change_summary(change)

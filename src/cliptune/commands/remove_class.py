"""`cliptune remove-class`: a class less, without training."""

from __future__ import annotations

from typing import Annotated

import typer

from cliptune.commands.options import (
    BaseModelName,
    BatchSize,
    ChangedCheckpoint,
    Debug,
    Device,
    MeasuredFolder,
    MeasuredSplit,
    OneCheckpoint,
)


def remove_class(
    checkpoint: OneCheckpoint,
    name: Annotated[str, typer.Argument(help="The class to leave out.")],
    output: ChangedCheckpoint = None,
    data_dir: MeasuredFolder = None,
    split: MeasuredSplit = "val",
    batch_size: BatchSize = 32,
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

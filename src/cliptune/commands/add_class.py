"""`cliptune add-class`: a class more, without training."""

from __future__ import annotations

from pathlib import Path
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


def add_class(
    checkpoint: OneCheckpoint,
    name: Annotated[str, typer.Argument(help="The new class, as its folder would be called.")],
    images: Annotated[
        Path | None, typer.Option(help="A folder of its photos. [default: from its prompts alone]")
    ] = None,
    output: ChangedCheckpoint = None,
    data_dir: MeasuredFolder = None,
    split: MeasuredSplit = "val",
    prompt_name: Annotated[
        list[str] | None,
        typer.Option(help="What fills the {} of prompts; may be repeated. [default: NAME]"),
    ] = None,
    display_name: Annotated[
        str | None, typer.Option(help="The name shown in predictions. [default: NAME]")
    ] = None,
    parent: Annotated[
        str | None, typer.Option(help="What it is, as others: a parent the checkpoint knows.")
    ] = None,
    batch_size: BatchSize = 32,
    device: Device = "auto",
    base_model: BaseModelName = None,
    debug: Debug = False,
) -> None:
    """Make a new checkpoint that knows one class more, without training.

    Where photos have several labels, photos of train whose labels name the class are its own, too.
    """
    from cliptune.commands.screen import class_change_summary, quiet_libraries
    from cliptune.editing.change import add_class as run_addition

    quiet_libraries(debug=debug)
    change = run_addition(
        checkpoint,
        name,
        images=images,
        output=output,
        data_dir=data_dir,
        split=split,
        prompt_names=prompt_name or [],
        display_name=display_name,
        parent=parent,
        batch_size=batch_size,
        device=device,
        base_model=base_model,
    )
    class_change_summary(change)

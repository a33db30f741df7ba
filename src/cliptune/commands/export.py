"""`cliptune export`: a checkpoint as a file that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import BaseModelName, Debug, OneCheckpoint


def export(
    checkpoint: OneCheckpoint,
    output: Annotated[Path, typer.Option(help="The new folder.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Photos on which its answers are proved to be the same. [default: of training]"
        ),
    ] = None,
    base_model: BaseModelName = None,
    debug: Debug = False,
) -> None:
    """Write a checkpoint as ONNX, with a runner that needs no torch, proved to answer the same."""
    from cliptune.commands.screen import export_summary, quiet_libraries
    from cliptune.inference.export.export import export as run_export

    quiet_libraries(debug=debug)
    export_summary(run_export(checkpoint, output, data=data, base_model=base_model))

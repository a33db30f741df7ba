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
    form: Annotated[
        str,
        typer.Option("--format", help="onnx, or transformers: a folder that it loads by itself."),
    ] = "onnx",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="In int8: faster, a quarter the size, other answers; calibrated on train, judged "
            "on val.",
        ),
    ] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Weights in fp16: half the size, as fast, to 0.002.")
    ] = False,
    max_loss: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=100,
            help="With --int8: points of accuracy (of several labels: of mAP) that the 95 % "
            "interval of its loss may reach.",
        ),
    ] = 1.0,
    base_model: BaseModelName = None,
    debug: Debug = False,
) -> None:
    """Write a checkpoint for other programs, with a runner, proved to answer the same."""
    from cliptune.commands.screen import export_summary, quiet_libraries
    from cliptune.errors import UserError
    from cliptune.inference.export.export import export as run_export

    if int8 and fp16:
        raise UserError("--int8 and --fp16: choose one of the two.")
    quiet_libraries(debug=debug)
    precision = "int8" if int8 else "fp16" if fp16 else "float32"
    made = run_export(
        checkpoint, output, data=data, form=form, precision=precision, max_loss=max_loss,
        base_model=base_model,
    )  # fmt: skip
    export_summary(made)

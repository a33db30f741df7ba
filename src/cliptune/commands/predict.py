"""`cliptune predict`: what is on photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import (
    BaseModelName,
    CheckpointPath,
    Debug,
    Device,
    Plain,
    PrecisionAsked,
    PriorGiven,
    Profile,
    ReducedDecoding,
)


def predict(
    checkpoint: CheckpointPath,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="A photo, its address, or '*.jpg'; may be given several times."
        ),
    ] = None,
    image_dir: Annotated[
        Path | None,
        typer.Option(help="A folder of photos, with all its sub-folders; or s3://bucket/…"),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    output: Annotated[
        Path | None,
        typer.Option(help="A file or an address to write: .txt, .csv, .json or .jsonl."),
    ] = None,
    prior: PriorGiven = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos at a time.")] = 32,
    device: Device = "auto",
    base_model: BaseModelName = None,
    precision: PrecisionAsked = None,
    reduced_decoding: ReducedDecoding = False,
    plain: Plain = False,
    profile: Profile = False,
    debug: Debug = False,
) -> None:
    """Say what is on photos: one, several, or a folder of any size."""
    from cliptune.commands.screen import predict_to_screen_or_file, quiet_libraries

    quiet_libraries(debug=debug)
    unreadable = predict_to_screen_or_file(
        checkpoint,
        images=image or [],
        image_dir=image_dir,
        top_k=top_k,
        output=output,
        prior=prior,
        batch_size=batch_size,
        device=device,
        base_model=base_model,
        precision=precision,
        reduced_decoding=reduced_decoding,
        fast=not plain,
        profile=profile,
    )
    if unreadable:
        raise typer.Exit(1)

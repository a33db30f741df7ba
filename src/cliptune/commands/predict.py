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
    RayAddress,
    ReducedDecoding,
)
from cliptune.errors import UserError


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
    images: Annotated[
        str | None,
        typer.Option(metavar="MANIFEST", help="Of --engine ray: a .parquet or .csv of paths."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A file or an address to write: .txt, .csv, .json or .jsonl. Of --engine ray: a "
            "folder, or the address of one, for Parquet.",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="here, or ray: over the machines of a cluster.")
    ] = "here",
    ray_address: RayAddress = None,
    decoding: Annotated[
        str,
        typer.Option(
            help="Of --engine ray: read photos beside the answering, or apart, on all CPUs. "
            "auto: apart for GPUs."
        ),
    ] = "auto",
    cpus_per_actor: Annotated[
        float, typer.Option(min=0.1, help="Of --engine ray without GPUs.")
    ] = 1,
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
    from cliptune.commands.predicting import predict_on_cluster, predict_to_screen_or_file
    from cliptune.commands.screen import quiet_libraries

    quiet_libraries(debug=debug)
    if engine == "ray":
        if plain or profile:
            raise UserError("--engine ray: it knows neither --plain nor --profile. Leave it out.")
        beside = [*(image or []), *([image_dir] if image_dir else [])]
        errors = predict_on_cluster(
            checkpoint, images, output, beside=beside,
            top_k=top_k, batch_size=batch_size, device=device, precision=precision, prior=prior,
            base_model=base_model, reduced_decoding=reduced_decoding, ray_address=ray_address,
            decoding=decoding, cpus_per_actor=cpus_per_actor, debug=debug,
        )  # fmt: skip
        raise typer.Exit(1 if errors else 0)
    if engine != "here" or images is not None or ray_address is not None:
        raise UserError(
            f"--engine {engine}: expected here or ray; --images MANIFEST and --ray-address go with "
            "--engine ray."
        )
    unreadable = predict_to_screen_or_file(
        checkpoint,
        images=image or [],
        image_dir=image_dir,
        top_k=top_k,
        output=Path(output) if output else None,
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

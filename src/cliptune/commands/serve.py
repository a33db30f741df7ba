"""`cliptune serve`: a checkpoint behind HTTP, with a page for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import (
    BaseModelName,
    Debug,
    Device,
    OneCheckpoint,
    PrecisionAsked,
    PriorGiven,
    ReducedDecoding,
)


def serve(
    checkpoint: OneCheckpoint,
    host: Annotated[
        str, typer.Option(help="The address to listen at; 0.0.0.0: all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that answer, each with the classifier: on a CPU one to a core answers "
            "most photos, one in all a single photo soonest.",
        ),
    ] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos at a time.")] = 16,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Keys, one to a line; requests must bring one.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="A site whose pages may ask; may be given several times."),
    ] = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Of one request.")] = 32 * 2**20,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of one photo.")] = 64_000_000,
    max_photos: Annotated[int, typer.Option(min=1, help="In one request.")] = 64,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 256,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds for a request to arrive, and for its answer.")
    ] = 30.0,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="A line of JSON for each request, to stdout.")
    ] = False,
    prior: PriorGiven = None,
    device: Device = "auto",
    base_model: BaseModelName = None,
    precision: PrecisionAsked = None,
    reduced_decoding: ReducedDecoding = False,
    debug: Debug = False,
) -> None:
    """Answer over HTTP, and by a page in the browser, until Ctrl-C."""
    from cliptune.commands.screen import served_here
    from cliptune.serving.limits import Limits
    from cliptune.serving.serve import serve as run_server

    limits = Limits(
        max_bytes=max_bytes, max_pixels=max_pixels, max_photos=max_photos, max_waiting=max_waiting,
        seconds=timeout,
    )  # fmt: skip
    run_server(
        checkpoint, host=host, port=port, workers=workers, batch_size=batch_size, limits=limits,
        api_key_file=api_key_file, cors_origins=cors_origin or [], log_json=log_json,
        on_ready=served_here, prior=prior, device=device, base_model=base_model,
        precision=precision, reduced_decoding=reduced_decoding,
    )  # fmt: skip

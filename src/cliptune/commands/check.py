"""`cliptune check`: what is wrong with a folder of photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import BaseModelName, Debug, Device, RayAddress, as_given


def check(
    data: Annotated[Path, typer.Argument(help="Folder with train/, val/ and test/.")],
    output: Annotated[
        Path, typer.Option("--output", "--output-dir", help="Where check.html and check.json go.")
    ] = Path("outputs/check"),
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 3 where there are warnings, too.")
    ] = False,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Move unreadable files, copies and leaks to DATA/.quarantine; delete none.",
        ),
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Bring back what the last --fix moved.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_CHECKPOINT",
            help="Rank labels that the photos contradict, as this base model sees them: a name on "
            "the hub, a folder, or a checkpoint (then: its base model).",
        ),
    ] = None,
    export_suspects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Of --model: list those labels, to edit and give to 'prepare --relabel'; "
            "FILE.json: as tasks of Label Studio.",
        ),
    ] = None,
    base_model: BaseModelName = None,
    device: Device = "auto",
    engine: Annotated[
        str, typer.Option(help="Read photos here, or by ray on the machines of a cluster.")
    ] = "here",
    ray_address: RayAddress = None,
    debug: Debug = False,
) -> None:
    """Say what is wrong with a folder of photos: damage, copies, leaks, conflicts, names.

    With --model also which labels the photos contradict.
    """
    from cliptune.commands.checking import SuspectsWanted, check_to_screen
    from cliptune.commands.screen import quiet_libraries

    if model is not None:
        quiet_libraries(debug=debug)
    # Without --fix: the line looks again, and moves nothing.
    line = as_given("check", data, strict=strict, model=model, base_model=base_model)
    raise typer.Exit(
        check_to_screen(
            data,
            output=output,
            strict=strict,
            fix=fix,
            undo=undo,
            line=line,
            suspects=SuspectsWanted(model, export_suspects, base_model, device),
            engine=engine,
            ray_address=ray_address,
            debug=debug,
        )
    )

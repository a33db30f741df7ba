"""`cliptune select`: which photos to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import BaseModelName, BatchSize, Debug, Device, OneCheckpoint
from cliptune.language import translated as _


def select(
    checkpoint: OneCheckpoint,
    images: Annotated[
        Path, typer.Option(help="A folder of photos without labels, with its sub-folders.")
    ],
    number: Annotated[int, typer.Option(help="How many to choose.")] = 100,
    output: Annotated[
        Path,
        typer.Option(
            metavar="FILE.csv",
            help="The list, whose column label you fill, or FILE.json: tasks of Label Studio; "
            "a page with the photos goes beside it.",
        ),
    ] = Path("outputs/to_label.csv"),
    method: Annotated[
        str,
        typer.Option(
            help="unsure-clusters, unsure-coverage: unsure, unlike one another and what is known; "
            "gradients: unsure and unlike one another (BADGE); coverage: unlike what is known; "
            "margin, entropy: unsure; random."
        ),
    ] = "unsure-clusters",
    data_dir: Annotated[
        Path | None,
        typer.Option(help="The photos whose labels are known. [default: those of training]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws where a method draws.")] = 0,
    batch_size: BatchSize = 32,
    device: Device = "auto",
    base_model: BaseModelName = None,
    debug: Debug = False,
) -> None:
    """Choose the photos whose labels would teach a checkpoint most."""
    from cliptune.commands.screen import quiet_libraries
    from cliptune.labelling.select import check_list_file, select_photos, write_selection
    from cliptune.text import command, wrap

    quiet_libraries(debug=debug)
    check_list_file(output)
    selection = select_photos(
        checkpoint, images, number=number, method=method, data_dir=data_dir,
        base_model=base_model, device=device, batch_size=batch_size, seed=seed,
    )  # fmt: skip
    page = write_selection(selection, output, images=images)
    print(wrap(selection.text()))
    print("\n" + _("Pictures: {page}").format(page=page))
    if output.suffix.lower() == ".json":
        print(_("To import into Label Studio: {path}").format(path=output))
        return
    print(_("List, whose column label is yours to fill: {path}").format(path=output))
    words = ["--source", output, "--root", images, "--output-dir", "NEW_FOLDER"]
    print(f"{_('Then:')}\n  {command('cliptune', 'prepare', *words)}")

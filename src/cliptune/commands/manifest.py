"""`cliptune manifest`: a list of photos, for a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from cliptune.commands.options import Debug
from cliptune.language import amount
from cliptune.language import translated as _


def manifest(
    source: Annotated[
        str, typer.Argument(help="A folder, the address of one, or a .txt with a path to a line.")
    ],
    output: Annotated[str, typer.Option(metavar="FILE", help="A .parquet or .csv to write.")],
    debug: Debug = False,
) -> None:
    """List photos for `predict --engine ray`, a hundred million if need be."""
    from cliptune.distributed import manifest as write

    photos = amount(write(source, output), "photo")
    print(_("{photos}: {path}").format(photos=photos, path=output))

"""`cliptune init`: the tutorial's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import Debug


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to make, or to add files to.")
    ],
    debug: Debug = False,
) -> None:
    """Write the tutorial's files: settings, scripts, a folder for photos, and how to begin."""
    from cliptune.commands.screen import show_tutorial
    from cliptune.tutorial.write import write_tutorial

    show_tutorial(directory, write_tutorial(directory))

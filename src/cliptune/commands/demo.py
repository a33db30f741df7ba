"""`cliptune demo`: a whole run on drawn dogs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import Debug


def demo(
    output_dir: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo_run"),
    seed: Annotated[int, typer.Option(help="Draws other dogs.")] = 42,
    debug: Debug = False,
) -> None:
    """A whole run on drawn dogs, offline: prepare, train, evaluate, predict."""
    from cliptune.commands.screen import quiet_libraries, show_demo
    from cliptune.demo.run import run_demo

    quiet_libraries(debug=debug)
    show_demo(run_demo(output_dir, seed=seed))

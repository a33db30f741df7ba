"""`cliptune tune`: search for settings."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from cliptune.commands.options import Debug, Plain


def tune(
    data: Annotated[Path, typer.Argument(help="Folder with train/ and val/; test/ is not opened.")],
    trials: Annotated[
        int, typer.Option(min=1, help="How many; trial 0 has the default settings.")
    ] = 20,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="After so many no further trial begins.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Compare trials by cross-validation over train and val."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The settings to start from, in YAML.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any setting; it is then fixed, not searched."
        ),
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="Where trials and what they find go.")] = Path(
        "outputs/tuning"
    ),
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the search in the output folder.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an earlier search there.")
    ] = False,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Search for the settings that suit your photos: rank, rate, epochs, augmentation and others.

    Trials are compared by val, or by --folds where val is small. Half of val is set apart and says
    at the end what the best gains over the default. Needs: pip install 'cliptune\\[tune]'
    """
    from cliptune.config import TEXT_KEYS, load_settings
    from cliptune.config_source import parse_override

    given: dict[str, Any] = dict(parse_override(text, as_written=TEXT_KEYS) for text in set_ or [])
    overrides = given | {"data.data_dir": str(data)}
    overrides |= {"hardware.device": device} if device else {}
    overrides |= {"hardware.fast": False} if plain else {}
    settings = load_settings(config, overrides=overrides)

    from cliptune.commands.screen import quiet_libraries, tuning_summary
    from cliptune.tuning.tune import tune as run_tuning

    quiet_libraries(debug=debug)
    if not debug:  # of each trial's run the table holds enough
        logging.getLogger("cliptune").setLevel(logging.WARNING)
        logging.getLogger("cliptune.tuning").setLevel(logging.INFO)
    tuning = run_tuning(
        settings, output_dir=output_dir, trials=trials, minutes=minutes, folds=folds,
        fixed=tuple(given), resume=resume, overwrite=overwrite,
    )  # fmt: skip
    tuning_summary(tuning)

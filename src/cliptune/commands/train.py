"""`cliptune train`: adapters and a head on a frozen CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cliptune.commands.options import BaseModelName, Debug, Plain, Profile


def train(
    config: Annotated[Path | None, typer.Option(help="Settings in YAML.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with train/ and val/, or its address.")
    ] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Where checkpoints go.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Photos in one micro-batch, of all processes.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting; may be repeated."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="head_first, or plain: adapters and head from zero-shot, at once."),
    ] = None,
    base_model: BaseModelName = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the checkpoints of an earlier run there.")
    ] = False,
    plain: Plain = False,
    profile: Profile = False,
    debug: Debug = False,
) -> None:
    """Train a classifier: LoRA adapters and a head on a frozen CLIP."""
    from cliptune.config import TEXT_KEYS, load_settings
    from cliptune.config_source import parse_override

    overrides: dict[str, Any] = dict(
        parse_override(text, as_written=TEXT_KEYS) for text in set_ or []
    )
    given = {
        "data.data_dir": str(data_dir) if data_dir else None,
        "output.output_dir": str(output_dir) if output_dir else None,
        "training.batch_size": batch_size,
        "data.batch_size": batch_size,
        "hardware.device": device,
        "training.recipe": recipe,
        "hardware.fast": False if plain else None,
    }
    overrides |= {key: value for key, value in given.items() if value is not None}
    settings = load_settings(config, overrides=overrides)

    from cliptune.commands.screen import quiet_libraries, training_summary
    from cliptune.training.several.starting import started
    from cliptune.training.train import train as run_training

    quiet_libraries(debug=debug)
    result = run_training(
        settings, resume=resume, overwrite=overwrite, profile=profile, base_model=base_model
    )
    if started().process == 0:
        training_summary(result, settings)

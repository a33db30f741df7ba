"""`cliptune evaluate`: what a checkpoint is worth on a split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import BaseModelName, CheckpointPath, Debug, Device, Plain


def evaluate(
    checkpoint: CheckpointPath,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the splits. [default: that of training]")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    output_dir: Annotated[Path, typer.Option(help="Where the report goes.")] = Path(
        "outputs/evaluation"
    ),
    batch_size: Annotated[int, typer.Option(min=1, help="Photos at a time.")] = 32,
    unknown: Annotated[
        Path | None,
        typer.Option(help="Photos of none of the classes: how many are told from known ones."),
    ] = None,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Measure on blurred, noisy, … photos, too.")
    ] = False,
    baseline: Annotated[bool, typer.Option(help="Measure zero-shot CLIP beside it.")] = True,
    on_bad_image: Annotated[str, typer.Option(help="error, or skip.")] = "error",
    device: Device = "auto",
    base_model: BaseModelName = None,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Measure a checkpoint on a split, beside zero-shot CLIP, and write a report."""
    from cliptune.hints import check_choice

    check_choice("--on-bad-image", on_bad_image, ("error", "skip"))

    from cliptune.commands.screen import evaluation_summary, quiet_libraries
    from cliptune.evaluation.evaluate import evaluate as run_evaluation

    quiet_libraries(debug=debug)
    evaluation = run_evaluation(
        checkpoint,
        data_dir=data_dir,
        split=split,
        output_dir=output_dir,
        unknown=unknown,
        corruptions=corruptions,
        batch_size=batch_size,
        baseline=baseline,
        on_bad_image="skip" if on_bad_image == "skip" else "error",
        device=device,
        base_model=base_model,
        fast=not plain,
        command=_line(
            {
                "checkpoint": checkpoint, "data-dir": data_dir, "split": split,
                "batch-size": batch_size, "unknown": unknown, "on-bad-image": on_bad_image,
                "device": device, "base-model": base_model,
            },
            {"corruptions": corruptions, "no-baseline": not baseline, "plain": plain},
        ),
    )  # fmt: skip
    evaluation_summary(evaluation, output_dir)


def _line(values: Mapping[str, object], switches: Mapping[str, bool]) -> str:
    """This command with the options it was given, and the defaults that a later version may change.

    The page goes on to others: what else stands on the process's own line is not for them.
    """
    from cliptune.text import command

    words = [word for key, x in values.items() if x is not None for word in (f"--{key}", str(x))]
    return command(
        "cliptune", "evaluate", *words, *(f"--{key}" for key, on in switches.items() if on)
    )

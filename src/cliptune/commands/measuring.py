"""What checkpoints are worth, alone and side by side, and with a class more or less."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import (
    BaseModelName,
    ChangedCheckpoint,
    CheckpointPath,
    Debug,
    Device,
    MeasuredSplit,
    Plain,
)


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
    )
    evaluation_summary(evaluation, output_dir)


def compare(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="Checkpoint folders, or run folders (then: their best). The others are compared "
            "with the first.",
        ),
    ],
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the splits. [default: that of training]")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    output_dir: Annotated[Path, typer.Option(help="Where the comparison goes.")] = Path(
        "outputs/comparison"
    ),
    batch_size: Annotated[int, typer.Option(min=1, help="Photos at a time.")] = 32,
    on_bad_image: Annotated[str, typer.Option(help="error, or skip.")] = "error",
    device: Device = "auto",
    base_model: BaseModelName = None,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Measure two or more models on the same photos: which is better, and where."""
    from cliptune.hints import check_choice

    check_choice("--on-bad-image", on_bad_image, ("error", "skip"))

    from cliptune.commands.screen import comparison_to_screen, quiet_libraries
    from cliptune.evaluation.comparison.compare import compare as run_comparison

    quiet_libraries(debug=debug)
    comparison = run_comparison(
        checkpoints,
        data_dir=data_dir,
        split=split,
        output_dir=output_dir,
        batch_size=batch_size,
        on_bad_image="skip" if on_bad_image == "skip" else "error",
        device=device,
        base_model=base_model,
        fast=not plain,
    )
    comparison_to_screen(comparison, output_dir)


def add_class(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint folder, or a run folder (then: its best).")
    ],
    name: Annotated[str, typer.Argument(help="The new class, as its folder would be called.")],
    images: Annotated[
        Path | None, typer.Option(help="A folder of its photos. [default: from its prompts alone]")
    ] = None,
    output: ChangedCheckpoint = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Photos to measure on. [default: those of training]")
    ] = None,
    split: MeasuredSplit = "val",
    prompt_name: Annotated[
        list[str] | None,
        typer.Option(help="What fills the {} of prompts; may be repeated. [default: NAME]"),
    ] = None,
    display_name: Annotated[
        str | None, typer.Option(help="The name shown in predictions. [default: NAME]")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos at a time.")] = 32,
    device: Device = "auto",
    base_model: BaseModelName = None,
    debug: Debug = False,
) -> None:
    """Make a new checkpoint that knows one class more, without training."""
    from cliptune.commands.screen import class_change_summary, quiet_libraries
    from cliptune.editing.change import add_class as run_addition

    quiet_libraries(debug=debug)
    change = run_addition(
        checkpoint,
        name,
        images=images,
        output=output,
        data_dir=data_dir,
        split=split,
        prompt_names=prompt_name or [],
        display_name=display_name,
        batch_size=batch_size,
        device=device,
        base_model=base_model,
    )
    class_change_summary(change)


def remove_class(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint folder, or a run folder (then: its best).")
    ],
    name: Annotated[str, typer.Argument(help="The class to leave out.")],
    output: ChangedCheckpoint = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Photos to measure on. [default: those of training]")
    ] = None,
    split: MeasuredSplit = "val",
    batch_size: Annotated[int, typer.Option(min=1, help="Photos at a time.")] = 32,
    device: Device = "auto",
    base_model: BaseModelName = None,
    debug: Debug = False,
) -> None:
    """Make a new checkpoint that knows one class less, without training."""
    from cliptune.commands.screen import class_change_summary, quiet_libraries
    from cliptune.editing.change import remove_class as run_removal

    quiet_libraries(debug=debug)
    change = run_removal(
        checkpoint,
        name,
        output=output,
        data_dir=data_dir,
        split=split,
        batch_size=batch_size,
        device=device,
        base_model=base_model,
    )
    class_change_summary(change)

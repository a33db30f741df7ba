"""`cliptune evaluate`: what a checkpoint is worth on a split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cliptune.commands.options import (
    BaseModelName,
    BatchSize,
    CheckpointPath,
    Debug,
    Device,
    OnBadImage,
    Plain,
    PrecisionAsked,
    PriorGiven,
    SplitName,
    SplitsFolder,
    as_given,
)
from cliptune.errors import UserError


def evaluate(
    checkpoint: CheckpointPath,
    data_dir: SplitsFolder = None,
    split: SplitName = "test",
    output_dir: Annotated[Path, typer.Option(help="Where the report goes.")] = Path(
        "outputs/evaluation"
    ),
    batch_size: BatchSize = 32,
    unknown: Annotated[
        Path | None,
        typer.Option(help="Photos of none of the classes: how many are told from known ones."),
    ] = None,
    prior: PriorGiven = None,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Measure on blurred, noisy, … photos, too.")
    ] = False,
    baseline: Annotated[bool, typer.Option(help="Measure zero-shot CLIP beside it.")] = True,
    on_bad_image: OnBadImage = "error",
    device: Device = "auto",
    base_model: BaseModelName = None,
    precision: PrecisionAsked = None,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Measure a checkpoint on a split, beside zero-shot CLIP, and write a report."""
    from cliptune.hints import check_choice

    check_choice("--on-bad-image", on_bad_image, ("error", "skip"))

    from cliptune.commands.screen import evaluation_summary, quiet_libraries
    from cliptune.evaluation.evaluate import evaluate as run_evaluation
    from cliptune.model.checkpoint import is_of_several_labels

    quiet_libraries(debug=debug)
    if is_of_several_labels(checkpoint):
        _evaluate_several(
            checkpoint, given={"unknown": unknown, "prior": prior, "corruptions": corruptions},
            output_dir=output_dir, data_dir=data_dir, split=split, batch_size=batch_size,
            baseline=baseline, on_bad_image=on_bad_image, device=device, base_model=base_model,
            precision=precision, fast=not plain,
        )  # fmt: skip
        return
    evaluation = run_evaluation(
        checkpoint,
        data_dir=data_dir,
        split=split,
        output_dir=output_dir,
        unknown=unknown,
        prior=prior,
        corruptions=corruptions,
        batch_size=batch_size,
        baseline=baseline,
        on_bad_image="skip" if on_bad_image == "skip" else "error",
        device=device,
        base_model=base_model,
        precision=precision,
        fast=not plain,
        command=as_given(
            "evaluate", checkpoint=checkpoint, data_dir=data_dir, split=split,
            batch_size=batch_size, unknown=unknown, on_bad_image=on_bad_image, device=device,
            base_model=base_model, prior=prior, corruptions=corruptions,
            no_baseline=not baseline, precision=precision, plain=plain,
        ),
    )  # fmt: skip
    evaluation_summary(evaluation, output_dir)


def _evaluate_several(
    checkpoint: Path, *, given: dict[str, Any], output_dir: Path, on_bad_image: str, **options: Any
) -> None:
    """The same for a checkpoint of several labels, without the options it does not know."""
    from cliptune.commands.screen import multilabel_to_screen
    from cliptune.evaluation.multilabel.evaluate import evaluate_multilabel

    if beside := [f"--{name}" for name, value in given.items() if value]:
        raise UserError(
            f"{', '.join(beside)}: not known for any number of labels to a photo. Leave it out."
        )
    again = {key: value for key, value in options.items() if key not in ("baseline", "fast")}
    evaluation = evaluate_multilabel(
        checkpoint,
        output_dir=output_dir,
        on_bad_image="skip" if on_bad_image == "skip" else "error",
        command=as_given(
            "evaluate", checkpoint=checkpoint, on_bad_image=on_bad_image,
            no_baseline=not options["baseline"], plain=not options["fast"], **again,
        ),
        **options,
    )  # fmt: skip
    multilabel_to_screen(evaluation, output_dir)

"""`cliptune compare`: models on the same photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliptune.commands.options import (
    BaseModelName,
    BatchSize,
    Debug,
    Device,
    OnBadImage,
    Plain,
    PrecisionAsked,
    SplitName,
    SplitsFolder,
    as_given,
)


def compare(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="Checkpoint folders, or run folders (then: their best). The others are compared "
            "with the first.",
        ),
    ],
    data_dir: SplitsFolder = None,
    split: SplitName = "test",
    output_dir: Annotated[Path, typer.Option(help="Where the comparison goes.")] = Path(
        "outputs/comparison"
    ),
    batch_size: BatchSize = 32,
    on_bad_image: OnBadImage = "error",
    device: Device = "auto",
    base_model: BaseModelName = None,
    precision: PrecisionAsked = None,
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
        precision=precision,
        fast=not plain,
        command=as_given(
            "compare", *checkpoints, data_dir=data_dir, split=split, batch_size=batch_size,
            on_bad_image=on_bad_image, device=device, base_model=base_model,
            precision=precision, plain=plain,
        ),
    )  # fmt: skip
    comparison_to_screen(comparison, output_dir)

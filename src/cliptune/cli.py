"""The command line: parse, call one function, turn our errors into a message and an exit code.

Nothing heavy is imported before a command needs it: `cliptune --help` loads no torch.
"""

from __future__ import annotations

import atexit
import gc
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="cliptune",
    help="Fine-tune CLIP-family models with LoRA into image classifiers you can trust.",
    epilog="New here? Run 'cliptune demo': a whole run in minutes, without a network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    # --data_dir is --data-dir: the names of older scripts go on working.
    context_settings={
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
    },
)

CheckpointPath = Annotated[
    Path, typer.Option(help="A checkpoint folder, or a run folder (then: its best).")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
BaseModelName = Annotated[
    str | None, typer.Option(help="Where the base model lies now, if it was moved.")
]
Plain = Annotated[
    bool, typer.Option("--plain", help="Compute by transformers and PEFT alone, unfused.")
]
Profile = Annotated[
    bool,
    typer.Option(
        "--profile", help="Show where the time went; a trace file, too, from the sixth batch on."
    ),
]
ChangedCheckpoint = Annotated[
    Path | None, typer.Option(help="The new checkpoint folder. [default: beside CHECKPOINT]")
]
MeasuredSplit = Annotated[str, typer.Option(help="Measure on train, val or test.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and library messages.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from cliptune import __version__

        print(f"cliptune {__version__}")
        raise typer.Exit()


@app.callback()
def top(
    version: Annotated[
        bool,
        # Eager: answered before a missing command is complained of.
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Fine-tune CLIP-family models with LoRA into image classifiers you can trust."""


@app.command(epilog="Example: cliptune prepare --output-dir data/dogs --num-classes 10")
def prepare(
    output_dir: Annotated[Path, typer.Option(help="Where the splits go.")] = Path("data/dogs"),
    num_classes: Annotated[
        int | None, typer.Option(help="How many breeds, up to 120. [default: 10 for dogs]")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names, with commas between them.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Keep so many photos of each class in train; all elsewhere.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="A .tar archive; a folder: one folder of photos for each class, photos named by "
            "class (pug_1.jpg), train/CLASS/, or Oxford-IIIT Pet's; a list of path,label[,split] "
            "(.csv, .tsv, .jsonl); .parquet; or hf:OWNER/NAME on the Hugging Face hub."
        ),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="How --source names classes: auto, folders, names or pets.")
    ] = "auto",
    splits: Annotated[
        str,
        typer.Option(
            help="source: its own splits, such as Stanford Dogs' official lists; random: deal "
            "anew; auto: its own where it brings them along."
        ),
    ] = "auto",
    root: Annotated[
        Path | None, typer.Option(help="Where the paths of a list start. [default: beside it]")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of a list's paths. [default: found by its name]")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of a list's labels. [default: found by its name]")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Link to the photos, copy none.")] = False,
    resize: Annotated[
        int | None, typer.Option(help="Make copies with a shorter edge of so many pixels.")
    ] = None,
    download: Annotated[bool, typer.Option(help="Fetch Stanford Dogs if nothing is there.")] = True,
    train_ratio: Annotated[float, typer.Option(help="Share of each class for train.")] = 0.7,
    val_ratio: Annotated[
        float | None, typer.Option(help="Share for val. [default: half of what train leaves]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses which photo goes where.")] = 42,
    validate: Annotated[
        bool, typer.Option("--validate", help="Only check the data in --output-dir.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Make train/, val/ and test/ from labelled photos of any form, and dataset.json."""
    from cliptune.data.prepare import prepare as run_preparation

    if validate:
        from cliptune.data.audit import check as run_check
        from cliptune.data.check_report import check_text

        checked = run_check(output_dir)
        print(check_text(checked))
        raise typer.Exit(checked.exit_code())
    result = run_preparation(
        output_dir,
        num_classes=num_classes,
        classes=[name.strip() for name in classes.split(",")] if classes else None,
        shots=shots,
        source=source,
        layout=layout,
        splits=splits,
        root=root,
        image_column=image_column,
        label_column=label_column,
        link=link,
        resize=resize,
        download=download,
        train_ratio=train_ratio,
        val_ratio=val_ratio,
        seed=seed,
    )
    print(result.summary())


@app.command(epilog="Example: cliptune check data/dogs --output outputs/check")
def check(
    data: Annotated[Path, typer.Argument(help="Folder with train/, val/ and test/.")],
    output: Annotated[
        Path, typer.Option("--output", "--output-dir", help="Where check.html and check.json go.")
    ] = Path("outputs/check"),
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 3 where there are warnings, too.")
    ] = False,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Move unreadable files, copies and leaks to DATA/.quarantine; delete none.",
        ),
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Bring back what the last --fix moved.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Say what is wrong with a folder of photos: damage, copies, leaks, conflicts, names."""
    from cliptune.screen import check_to_screen

    raise typer.Exit(check_to_screen(data, output=output, strict=strict, fix=fix, undo=undo))


@app.command(epilog="Example: cliptune train --config config.yaml --set training.num_epochs=5")
def train(
    config: Annotated[Path | None, typer.Option(help="Settings in YAML.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with train/ and val/.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Where checkpoints go.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Photos in one micro-batch.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting; may be repeated."),
    ] = None,
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
    from cliptune.config import load_settings
    from cliptune.config_source import parse_override

    overrides: dict[str, Any] = dict(parse_override(text) for text in set_ or [])
    given = {
        "data.data_dir": str(data_dir) if data_dir else None,
        "output.output_dir": str(output_dir) if output_dir else None,
        "training.batch_size": batch_size,
        "data.batch_size": batch_size,
        "hardware.device": device,
        "hardware.fast": False if plain else None,
    }
    overrides |= {key: value for key, value in given.items() if value is not None}
    settings = load_settings(config, overrides=overrides)

    from cliptune.screen import quiet_libraries, training_summary
    from cliptune.training.train import train as run_training

    quiet_libraries(debug=debug)
    result = run_training(settings, resume=resume, overwrite=overwrite, profile=profile)
    training_summary(result, settings)


@app.command(epilog="Example: cliptune evaluate --checkpoint outputs/lora_finetuning --split test")
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
    from cliptune.errors import UserError

    if on_bad_image not in ("error", "skip"):
        raise UserError(f"--on-bad-image {on_bad_image}: expected error or skip.")

    from cliptune.evaluation.evaluate import evaluate as run_evaluation
    from cliptune.screen import evaluation_summary, quiet_libraries

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


@app.command(epilog="Example: cliptune compare outputs/run_a outputs/run_b --split test")
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
    from cliptune.errors import UserError

    if on_bad_image not in ("error", "skip"):
        raise UserError(f"--on-bad-image {on_bad_image}: expected error or skip.")

    from cliptune.evaluation.compare import compare as run_comparison
    from cliptune.screen import comparison_to_screen, quiet_libraries

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


@app.command(
    "add-class",
    epilog="Example: cliptune add-class outputs/lora_finetuning corgi --images photos/corgi",
)
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
    from cliptune.evaluation.class_changes import add_class as run_addition
    from cliptune.screen import class_change_summary, quiet_libraries

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


@app.command("remove-class", epilog="Example: cliptune remove-class outputs/lora_finetuning pug")
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
    from cliptune.evaluation.class_changes import remove_class as run_removal
    from cliptune.screen import class_change_summary, quiet_libraries

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


@app.command(
    epilog="Example: cliptune predict --checkpoint outputs/lora_finetuning --image dog.jpg"
)
def predict(
    checkpoint: CheckpointPath,
    image: Annotated[
        list[Path] | None, typer.Option(help="A photo; may be given several times.")
    ] = None,
    image_dir: Annotated[
        Path | None, typer.Option(help="A folder of photos, with all its sub-folders.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    output: Annotated[
        Path | None, typer.Option(help="A file to write: .txt, .csv, .json or .jsonl.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos at a time.")] = 32,
    device: Device = "auto",
    base_model: BaseModelName = None,
    plain: Plain = False,
    profile: Profile = False,
    debug: Debug = False,
) -> None:
    """Say what is on photos: one, several, or a folder of any size."""
    from cliptune.screen import predict_to_screen_or_file, quiet_libraries

    quiet_libraries(debug=debug)
    unreadable = predict_to_screen_or_file(
        checkpoint,
        images=image or [],
        image_dir=image_dir,
        top_k=top_k,
        output=output,
        batch_size=batch_size,
        device=device,
        base_model=base_model,
        fast=not plain,
        profile=profile,
    )
    if unreadable:
        raise typer.Exit(1)


@app.command(epilog="Example: cliptune demo --output-dir demo_run")
def demo(
    output_dir: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo_run"),
    seed: Annotated[int, typer.Option(help="Draws other dogs.")] = 42,
    debug: Debug = False,
) -> None:
    """A whole run on drawn dogs, offline: prepare, train, evaluate, predict."""
    from cliptune.demo.run import run_demo
    from cliptune.screen import quiet_libraries, show_demo

    quiet_libraries(debug=debug)
    show_demo(run_demo(output_dir, seed=seed))


def keep_freed_memory() -> None:
    """Let glibc hand freed blocks of up to 32 MiB out again instead of returning them to Linux.

    A training step frees and takes the same large blocks over and over; without this the kernel
    clears each page anew. Measured: a step of ViT-B/32 on two cores takes about a tenth less.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        m_mmap_threshold, m_trim_threshold = -3, -1
        mallopt(m_mmap_threshold, 32 * 2**20)
        mallopt(m_trim_threshold, 2**31 - 1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line on `arguments` (default: those of the process) and exit."""
    from cliptune.errors import CliptuneError, Interrupted
    from cliptune.messages import set_up_logging, system_error_in_words

    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    set_up_logging(debug=debug)
    # The libraries' imports make millions of objects that live to the end: going through them
    # again and again, and once more at the exit, takes a quarter of a prediction's time.
    gc.set_threshold(100_000, 20, 100)
    atexit.register(gc.freeze)
    keep_freed_memory()
    try:
        app(args=arguments, prog_name="cliptune")
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(stop.exit_code) from None
    except CliptuneError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except OSError as error:
        if debug:
            raise
        _fail(system_error_in_words(error), 1)
    except Exception as error:
        if debug:
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error}\nThis is a fault of cliptune. "
            "The same command with --debug shows where it happened.",
            1,
        )


def _fail(message: str, exit_code: int) -> None:
    from cliptune.messages import for_terminal

    print(f"error: {for_terminal(message)}", file=sys.stderr)
    raise SystemExit(exit_code)

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

from cliptune.commands import data, measuring
from cliptune.commands.options import BaseModelName, CheckpointPath, Debug, Device, Plain, Profile

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


# In the order in which --help lists them.
app.command(
    epilog="Example: cliptune prepare --output-dir data/dogs --num-classes 10\n\n"
    "Example: cliptune prepare --source photos --output-dir data/my --exclude misc --min-photos 20"
    "\n\nExample: cliptune prepare --source labels.csv --root photos/train --label-column breed"
)(data.prepare)
app.command(epilog="Example: cliptune check data/dogs --output outputs/check")(data.check)


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
        "hardware.fast": False if plain else None,
    }
    overrides |= {key: value for key, value in given.items() if value is not None}
    settings = load_settings(config, overrides=overrides)

    from cliptune.commands.screen import quiet_libraries, training_summary
    from cliptune.training.train import train as run_training

    quiet_libraries(debug=debug)
    result = run_training(
        settings, resume=resume, overwrite=overwrite, profile=profile, base_model=base_model
    )
    training_summary(result, settings)


app.command(epilog="Example: cliptune evaluate --checkpoint outputs/lora_finetuning --split test")(
    measuring.evaluate
)
app.command(epilog="Example: cliptune compare outputs/run_a outputs/run_b --split test")(
    measuring.compare
)
app.command(
    "add-class",
    epilog="Example: cliptune add-class outputs/lora_finetuning corgi --images photos/corgi",
)(measuring.add_class)
app.command("remove-class", epilog="Example: cliptune remove-class outputs/lora_finetuning pug")(
    measuring.remove_class
)


@app.command(
    epilog="Example: cliptune predict --checkpoint outputs/lora_finetuning --image dog.jpg"
)
def predict(
    checkpoint: CheckpointPath,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A photo, or '*.jpg'; may be given several times."),
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
    from cliptune.commands.screen import predict_to_screen_or_file, quiet_libraries

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
    from cliptune.commands.screen import quiet_libraries, show_demo
    from cliptune.demo.run import run_demo

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
    from cliptune.commands.messages import set_up_logging, system_error_in_words, write_any_text
    from cliptune.errors import CliptuneError, Interrupted

    write_any_text()
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
    from cliptune.commands.messages import for_terminal

    print(f"error: {for_terminal(message)}", file=sys.stderr)
    raise SystemExit(exit_code)

"""The command line: parse, call one function, turn our errors into a message and an exit code.

Nothing heavy is imported before a command needs it: `cliptune --help` loads no torch.
"""

from __future__ import annotations

import atexit
import gc
import sys
import time
from typing import Annotated

import typer

from cliptune.commands.add_class import add_class
from cliptune.commands.check import check
from cliptune.commands.compare import compare
from cliptune.commands.demo import demo
from cliptune.commands.doctor import doctor
from cliptune.commands.evaluate import evaluate
from cliptune.commands.export import export
from cliptune.commands.helping import Command, Group
from cliptune.commands.init import init
from cliptune.commands.manifest import manifest
from cliptune.commands.predict import predict
from cliptune.commands.prepare import prepare
from cliptune.commands.push import push
from cliptune.commands.remove_class import remove_class
from cliptune.commands.select import select
from cliptune.commands.serve import serve
from cliptune.commands.train import train
from cliptune.commands.tune import tune

app = typer.Typer(
    name="cliptune",
    cls=Group,
    help="Fine-tune CLIP-family models with LoRA into image classifiers you can trust.",
    epilog="New here? Run 'cliptune demo': a whole run in minutes, without a network.",
    no_args_is_help=True,
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
        from cliptune._version import __version__

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
)(prepare)
app.command(
    epilog="Example: cliptune check data/dogs --output outputs/check\n\n"
    "Example: cliptune check data/dogs --model openai/clip-vit-base-patch32 "
    "--export-suspects suspects.csv"
)(check)
app.command(epilog="Example: cliptune train --config config.yaml --set training.num_epochs=5")(
    train
)
app.command(
    epilog="Example: cliptune tune data/dogs --trials 30 --minutes 60\n\n"
    "Example: cliptune tune data/few --trials 20 --folds 5 --set training.num_epochs=10\n\n"
    "Then: cliptune train --config outputs/tuning/best_config.yaml"
)(tune)
app.command(epilog="Example: cliptune evaluate --checkpoint outputs/lora_finetuning --split test")(
    evaluate
)
app.command(epilog="Example: cliptune compare outputs/run_a outputs/run_b --split test")(compare)
app.command(
    "add-class",
    epilog="Example: cliptune add-class outputs/lora_finetuning corgi --images photos/corgi",
)(add_class)
app.command("remove-class", epilog="Example: cliptune remove-class outputs/lora_finetuning pug")(
    remove_class
)
app.command(
    epilog="Example: cliptune predict --checkpoint outputs/lora_finetuning --image dog.jpg\n\n"
    "Example: cliptune predict --engine ray --checkpoint s3://bucket/run --images m.parquet "
    "--output s3://bucket/answers"
)(predict)
app.command(
    epilog="Example: cliptune select outputs/lora_finetuning --images photos/new --number 100"
)(select)
app.command(epilog="Example: cliptune manifest s3://bucket/photos --output m.parquet")(manifest)
app.command(
    epilog="Example: cliptune export outputs/lora_finetuning --output exported\n\n"
    "Then, with numpy, Pillow and onnxruntime alone: python exported/run.py dog.jpg"
)(export)
app.command(
    epilog="Example: cliptune push outputs/lora_finetuning owner/dogs --private --dry-run\n\n"
    "Then, anywhere: cliptune predict --checkpoint hf:owner/dogs --image dog.jpg"
)(push)
app.command(
    epilog="Example: cliptune serve outputs/lora_finetuning --port 8000\n\n"
    "Then: curl -F image=@dog.jpg http://127.0.0.1:8000/predict, or open that address in a browser"
)(serve)
app.command(epilog="Example: cliptune demo --output-dir demo_run")(demo)
app.command(epilog="Example: cliptune init my-classifier")(init)
app.command(epilog="Example: cliptune doctor --json > machine.json")(doctor)
for each in app.registered_commands:
    each.cls = Command


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
    from cliptune.commands.messages import set_up_logging, write_any_text
    from cliptune.errors import AlreadyTold, CliptuneError, Interrupted
    from cliptune.foreign_errors import system_error_in_words
    from cliptune.training.several.starting import refuse_several

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
        if arguments and not arguments[0].startswith("-") and arguments[0] != "train":
            refuse_several(arguments[0])
        app(args=arguments, prog_name="cliptune")
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(stop.exit_code) from None
    except AlreadyTold as told:
        raise SystemExit(told.exit_code) from None
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
    from cliptune.training.several.starting import is_to_tell

    if not is_to_tell():
        time.sleep(10)  # torchrun ends all once one has gone: the one that tells goes first
        raise SystemExit(exit_code)
    print(f"error: {for_terminal(message)}", file=sys.stderr)
    raise SystemExit(exit_code)

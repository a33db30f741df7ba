"""What the commands show on the screen, at 80 columns; colours only on a terminal."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from cliptune.storage import (
    address_of,
    joined,
)
from cliptune.text import command, counted

if TYPE_CHECKING:
    from cliptune.config import Settings
    from cliptune.demo.run import DemoResult
    from cliptune.doctor import Finding
    from cliptune.editing.change import ClassChange
    from cliptune.evaluation.comparison.comparison import Comparison
    from cliptune.evaluation.comparison.multilabel import MultilabelComparison
    from cliptune.evaluation.multilabel.measured import MultilabelEvaluation
    from cliptune.evaluation.report import Evaluation
    from cliptune.inference.export.export import Export
    from cliptune.model.checkpoint import Checkpoint
    from cliptune.serving.worker import Loaded
    from cliptune.sharing.push import Push
    from cliptune.training.reporting import TrainResult
    from cliptune.tuning.tuning import Tuning


def quiet_libraries(*, debug: bool) -> None:
    """Leave the screen to cliptune: libraries' warnings and bars only with `debug`."""
    if debug:
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it warns when workers fork
    warnings.filterwarnings("ignore")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def training_summary(result: TrainResult, settings: Settings) -> None:
    """The final table of a run, and the command that evaluates its best checkpoint."""
    from cliptune.training.reporting import clock

    best = result.best
    lines: list[tuple[str, str]] = []
    before, after = result.baseline_accuracy, best.val_accuracy if best else None
    if before is not None and after is not None:
        first = result.history[0]
        head = f"{first['val_accuracy']:.1%} fitted head → " if first["epoch"] == 0 else ""
        lines.append(("val accuracy", f"{before:.1%} zero-shot → {head}{after:.1%} best"))
    if best and best.record.task == "multilabel":
        lines = [("val mAP", _mean_ap_in_words(result, best))]
    early = ", stopped early: val no longer improved" if result.stopped_early else ""
    lines.append(("epochs", f"{result.epochs} of {settings.training.num_epochs}{early}"))
    speed = f"{clock(result.train_seconds)} training, {result.images_per_second:.1f} images/s"
    lines.append(("time", f"{speed}, {counted(result.updates, 'update')}"))
    share = result.trainable_parameters / result.all_parameters
    lines.append(("trainable", f"{result.trainable_parameters:,} parameters ({share:.2%})"))
    lines.append(("peak memory", f"{result.peak_memory / 2**30:.1f} GiB"))
    if best:
        lines.append(("best", str(best.path)))
    if result.last and best and result.last.path != best.path:
        lines.append(("last", str(result.last.path)))
    lines.append(("curves", str(result.output_dir / "training_curves.png")))
    _show("training finished", lines)
    if result.profile:
        print(f"\n{result.profile}")
    if best and best.record.epoch == 0 and result.epochs:
        print(
            "\nThe fitted head stays the best: by val's photos, what adapters learned after it may "
            "as well\nbe chance. More val photos show smaller gains."
        )
    if best:
        words = ["--checkpoint", best.path, "--data-dir", place_of(settings.data.data_dir)]
        print(f"\nEvaluate it:\n  {command('cliptune', 'evaluate', *words)}")


def _mean_ap_in_words(result: TrainResult, best: Checkpoint) -> str:
    figures, first = best.record.metrics, result.history[0]
    if figures.get("val_mean_ap") is None:
        return "not measured"
    head = f"{first['val_mean_ap']:.1%} fitted head → " if first["epoch"] == 0 else ""
    return (
        f"{figures['baseline_val_mean_ap']:.1%} zero-shot → {head}{figures['val_mean_ap']:.1%} best"
    )


def tuning_summary(tuning: Tuning) -> None:
    """The table of a search, what its best is worth, and the command that trains with it."""
    from cliptune.tuning.text import tuning_text

    folder = tuning.output_dir
    print(f"\n{tuning_text(tuning)}\n\nPicture: {folder / 'tuning.png'}")
    if tuning.best is not None and tuning.best is not tuning.default:
        words = ["--config", folder / "best_config.yaml"]
        print(f"\nTrain with the best settings:\n  {command('cliptune', 'train', *words)}")


def evaluation_summary(evaluation: Evaluation, output_dir: Path) -> None:
    """Before and after, the most confused pairs, and where the report lies."""
    from cliptune.evaluation.report_text import summary_text

    print(summary_text(evaluation))
    print(f"\nReport: {below(output_dir, 'report.html')}, and its text and pictures beside it")


def multilabel_to_screen(evaluation: MultilabelEvaluation, output_dir: Path) -> None:
    """The figures of several labels, and where the report lies."""
    from cliptune.evaluation.multilabel.text import multilabel_summary

    print(multilabel_summary(evaluation))
    print(f"\nReport: {below(output_dir, 'report.html')}, and its text and tables beside it")


def below(folder: Path, name: str) -> str:
    """The file `name` of the folder, which may be an address."""
    address = address_of(folder)
    return joined(address, name) if address else str(folder / name)


def place_of(path: Path) -> Path | str:
    """`path`, an address as it was given."""
    return address_of(path) or path


def comparison_to_screen(comparison: Comparison | MultilabelComparison, output_dir: Path) -> None:
    """The figures beside one another, the differences, and where the page lies."""
    from cliptune.evaluation.comparison.comparison import Comparison
    from cliptune.evaluation.comparison.multilabel_text import multilabel_comparison_summary
    from cliptune.evaluation.comparison.text import comparison_summary

    if isinstance(comparison, Comparison):
        print(comparison_summary(comparison))
    else:
        print(multilabel_comparison_summary(comparison))
    page = below(output_dir, "comparison.html")
    print(f"\nReport: {page}, and its text and table of photos beside it")


def class_change_summary(change: ClassChange) -> None:
    """Where the new checkpoint is, and what the change does to the other classes."""
    from cliptune.editing.text import change_text

    print(change_text(change))


def served_here(address: str, loaded: Loaded) -> None:
    """Where the server is, and what answers."""
    print(f"{address}  ({loaded.checkpoint}, {counted(len(loaded.classes), 'class')}, "
          f"{loaded.precision} on {loaded.device}; Ctrl-C ends it)", flush=True)  # fmt: skip


def export_summary(made: Export) -> None:
    """Where it lies, and how near its answers are."""
    from cliptune.inference.export.int8 import int8_text

    verified = made.verified
    print(f"exported: {made.folder}, {made.num_bytes / 1e6:.1f} MB")
    whose = "cliptune's" if made.int8 is None else "cliptune's by the same graph"
    print(
        f"{made.runner.name} beside {whose}, {counted(verified.photos, 'photo')}: probabilities "
        f"differ by {verified.largest_difference:.1e}\nat most; {verified.others}"
    )
    if verified.left_out:
        print(f"left out, {len(verified.left_out)}: {verified.left_out[0]}")
    if made.int8 is not None:
        print(f"\n{int8_text(made.int8)}")
    print(f"\nTry it:\n  {command('python', made.runner, 'photo.jpg')}")


def show_demo(result: DemoResult) -> None:
    """What the demo reached, where everything is, and what to do next."""
    from cliptune.evaluation.report_text import summary_text
    from cliptune.inference.output import bar_chart

    print(f"\n{summary_text(result.evaluation)}\n\n{result.example.source}")
    print(bar_chart(result.example))
    _show("demo finished (these are drawings, not photos)", result.lines())
    print("\nPredict any picture:")
    predict = command("cliptune", "predict", "--checkpoint", result.checkpoint, "--image", "FILE")
    print(f"  {predict}\nOr by a page in the browser (pip install 'cliptune[serve]'):")
    print(f"  {command('cliptune', 'serve', result.checkpoint)}\nLook at the curves:")
    print(f"  {command('tensorboard', '--logdir', result.output_dir / 'logs')}")


def show_tutorial(folder: Path, written: list[Path]) -> None:
    """What was written, and how to begin."""
    lines = [("written", str(path)) for path in written] or [("there already", str(folder))]
    _show("the tutorial's files", lines)
    print(f"\nHow to begin:  {folder / 'README.md'}  (中文: README.zh-CN.md)")


def show_push(push: Push) -> None:
    """What was put on the hub, or would be, and the line that uses it."""
    lines = [(f"{size:,} bytes", name) for name, size in push.files]
    total = sum(size for _, size in push.files)
    _show(f"{push.source} → {push.place}", [*lines, (f"{total:,} bytes", "in all")])
    if push.replaced:
        _show(
            "not for others, and so replaced",
            [
                (each.file, f"{each.key}: {each.before} → {each.after or 'left out'}")
                for each in push.replaced
            ],
        )
    if push.url is None:
        print("\nNothing was pushed. Without --dry-run it is.")
        return
    base = ["--base-model", "FOLDER"] if push.needs_base else []
    line = command(
        "cliptune", "predict", "--checkpoint", str(push.place), "--image", "photo.jpg", *base
    )
    print(f"\nPushed:  {push.url}  ({push.commit})\nUse it:  {line}")
    if push.needs_base:
        print(
            f"FOLDER is the base model '{push.base_model}', which lay in a folder. If it is on the "
            "hub, push again with --base-model OWNER/NAME."
        )


def show_examination(findings: list[Finding]) -> None:
    """What was found on this machine by group; last, what to do."""
    console = Console(highlight=False)
    styles = {"ok": "green", "slow": "yellow", "missing": "dim", "fault": "red"}
    for group in dict.fromkeys(finding.group for finding in findings):
        console.print(Text(f"\n{group}", style="bold"))
        for found in (each for each in findings if each.group == group):
            mark = Text(f"  {found.state:<8}", style=styles[found.state])
            console.print(mark + Text(f"{found.name:<16} {found.value}"), soft_wrap=True)
    to_do = [each for each in findings if each.state in ("slow", "fault")]
    console.print(Text("\nwhat to do" if to_do else "\nnothing is in the way", style="bold"))
    for found in to_do:
        console.print(f"  {found.name}: {found.do}", soft_wrap=True)
    missing = [each for each in findings if each.state == "missing"]
    if missing:
        console.print("\nWhat is missing is optional: pip install 'cliptune[NAME]' brings it.")


def _show(title: str, lines: Iterable[tuple[str, str]]) -> None:
    console = Console(highlight=False)
    console.print(Text(f"\n{title}", style="bold"))
    for name, value in lines:
        # Not wrapped: a path that is cut in two cannot be copied.
        console.print(Text.assemble((f"  {name + ' ':<15}", "cyan"), value), soft_wrap=True)

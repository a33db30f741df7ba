"""What the commands show on the screen, at 80 columns; colours only on a terminal."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from cliptune.language import amount
from cliptune.language import translated as _
from cliptune.storage import (
    address_of,
    joined,
)
from cliptune.text import command, left

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
        lines.append((_("val accuracy"), _gain(before, result.history[0], "val_accuracy", after)))
    if best and best.record.task == "multilabel":
        lines = [(_("val mAP"), _mean_ap_in_words(result, best))]
    epochs = _("{done} of {planned}").format(
        done=result.epochs, planned=settings.training.num_epochs
    )
    early = _(", stopped early: val no longer improved") if result.stopped_early else ""
    lines.append((_("epochs"), epochs + early))
    lines.append((
        _("time"),
        _("{time} training, {speed:.1f} images/s, {updates}").format(
            time=clock(result.train_seconds), speed=result.images_per_second,
            updates=amount(result.updates, "update"),
        ),
    ))  # fmt: skip
    share = result.trainable_parameters / result.all_parameters
    lines.append((
        _("trainable"),
        _("{count:,} parameters ({share:.2%})").format(
            count=result.trainable_parameters, share=share
        ),
    ))  # fmt: skip
    lines.append((_("peak memory"), f"{result.peak_memory / 2**30:.1f} GiB"))
    if best:
        lines.append((_("best"), str(best.path)))
    if result.last and best and result.last.path != best.path:
        lines.append((_("last"), str(result.last.path)))
    lines.append((_("curves"), str(result.output_dir / "training_curves.png")))
    _show(_("training finished"), lines)
    if result.profile:
        print(f"\n{result.profile}")
    if best and best.record.epoch == 0 and result.epochs:
        print(
            "\n"
            + _(
                "The fitted head stays the best: by val's photos, what adapters learned after it "
                "may as well\nbe chance. More val photos show smaller gains."
            )
        )
    if best:
        words = ["--checkpoint", best.path, "--data-dir", place_of(settings.data.data_dir)]
        print(f"\n{_('Evaluate it:')}\n  {command('cliptune', 'evaluate', *words)}")


def _gain(before: float, first: Mapping[str, float | None], key: str, after: float) -> str:
    """A figure of zero-shot CLIP, of the fitted head where training began with one, of the best."""
    start = _("{before:.1%} zero-shot → ").format(before=before)
    head = first[key] if first["epoch"] == 0 else None
    if head is not None:
        start += _("{figure:.1%} fitted head → ").format(figure=head)
    return start + _("{figure:.1%} best").format(figure=after)


def _mean_ap_in_words(result: TrainResult, best: Checkpoint) -> str:
    figures = best.record.metrics
    after, before = figures.get("val_mean_ap"), figures.get("baseline_val_mean_ap")
    if after is None or before is None:
        return _("not measured")
    return _gain(before, result.history[0], "val_mean_ap", after)


def tuning_summary(tuning: Tuning) -> None:
    """The table of a search, what its best is worth, and the command that trains with it."""
    from cliptune.tuning.text import tuning_text

    folder = tuning.output_dir
    picture = _("Picture: {path}").format(path=folder / "tuning.png")
    print(f"\n{tuning_text(tuning)}\n\n{picture}")
    if tuning.best is not None and tuning.best is not tuning.default:
        words = ["--config", folder / "best_config.yaml"]
        title = _("Train with the best settings:")
        print(f"\n{title}\n  {command('cliptune', 'train', *words)}")


def evaluation_summary(evaluation: Evaluation, output_dir: Path) -> None:
    """Before and after, the most confused pairs, and where the report lies."""
    from cliptune.evaluation.report_text import summary_text

    print(summary_text(evaluation))
    page = below(output_dir, "report.html")
    print("\n" + _("Report: {page}, and its text and pictures beside it").format(page=page))


def multilabel_to_screen(evaluation: MultilabelEvaluation, output_dir: Path) -> None:
    """The figures of several labels, and where the report lies."""
    from cliptune.evaluation.multilabel.text import multilabel_summary

    print(multilabel_summary(evaluation))
    page = below(output_dir, "report.html")
    print("\n" + _("Report: {page}, and its text and tables beside it").format(page=page))


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
    print("\n" + _("Report: {page}, and its text and table of photos beside it").format(page=page))


def class_change_summary(change: ClassChange) -> None:
    """Where the new checkpoint is, and what the change does to the other classes."""
    from cliptune.editing.text import change_text

    print(change_text(change))


def served_here(address: str, loaded: Loaded) -> None:
    """Where the server is, and what answers."""
    about = _("{checkpoint}, {classes}, {precision} on {device}; Ctrl-C ends it").format(
        checkpoint=loaded.checkpoint,
        classes=amount(len(loaded.classes), "class"),
        precision=loaded.precision,
        device=loaded.device,
    )
    print(f"{address}  ({about})", flush=True)


def export_summary(made: Export) -> None:
    """Where it lies, and how near its answers are."""
    from cliptune.inference.export.int8 import int8_text

    verified = made.verified
    print(_("exported: {folder}, {size:.1f} MB").format(
        folder=made.folder, size=made.num_bytes / 1e6
    ))  # fmt: skip
    text = (
        _("{runner} beside cliptune's, {photos}: probabilities differ by "
          "{difference:.1e}\nat most; {others}")
        if made.int8 is None
        else _("{runner} beside cliptune's by the same graph, {photos}: probabilities differ by "
               "{difference:.1e}\nat most; {others}")
    )  # fmt: skip
    print(
        text.format(
            runner=made.runner.name,
            photos=amount(verified.photos, "photo"),
            difference=verified.largest_difference,
            others=_(verified.others),
        )
    )
    if verified.left_out:
        print(_("left out, {count}: {first}").format(
            count=len(verified.left_out), first=verified.left_out[0]
        ))  # fmt: skip
    if made.int8 is not None:
        print(f"\n{_(int8_text(made.int8))}")
    print(f"\n{_('Try it:')}\n  {command('python', made.runner, 'photo.jpg')}")


def show_demo(result: DemoResult) -> None:
    """What the demo reached, where everything is, and what to do next."""
    from cliptune.evaluation.report_text import summary_text
    from cliptune.inference.output import bar_chart

    print(f"\n{summary_text(result.evaluation)}\n\n{result.example.source}")
    print(bar_chart(result.example))
    _show(_("demo finished (these are drawings, not photos)"), result.lines())
    print()
    predict = command("cliptune", "predict", "--checkpoint", result.checkpoint, "--image", "FILE")
    for title, line in (
        (_("Predict any picture:"), predict),
        (
            _("Or by a page in the browser (pip install 'cliptune[serve]'):"),
            command("cliptune", "serve", result.checkpoint),
        ),
        (_("Look at the curves:"), command("tensorboard", "--logdir", result.output_dir / "logs")),
    ):
        print(f"{title}\n  {line}")


def show_tutorial(folder: Path, written: list[Path]) -> None:
    """What was written, and how to begin."""
    lines = [(_("written"), str(path)) for path in written] or [(_("there already"), str(folder))]
    _show(_("the tutorial's files"), lines)
    begin = _("How to begin:  {english}  (中文: {chinese})")
    print("\n" + begin.format(english=folder / "README.md", chinese="README.zh-CN.md"))


def show_push(push: Push) -> None:
    """What was put on the hub, or would be, and the line that uses it."""
    lines = [(_("{size:,} bytes").format(size=size), name) for name, size in push.files]
    total = _("{size:,} bytes").format(size=sum(size for _name, size in push.files))
    _show(f"{push.source} → {push.place}", [*lines, (total, _("in all"))])
    if push.replaced:
        _show(
            _("not for others, and so replaced"),
            [
                (each.file, f"{each.key}: {each.before} → {each.after or _('left out')}")
                for each in push.replaced
            ],
        )
    if push.url is None:
        print("\n" + _("Nothing was pushed. Without --dry-run it is."))
        return
    base = ["--base-model", "FOLDER"] if push.needs_base else []
    line = command(
        "cliptune", "predict", "--checkpoint", str(push.place), "--image", "photo.jpg", *base
    )
    print("\n" + _("Pushed:  {url}  ({commit})").format(url=push.url, commit=push.commit))
    print(_("Use it:  {line}").format(line=line))
    if push.needs_base:
        print(
            _(
                "FOLDER is the base model '{name}', which lay in a folder. If it is on the hub, "
                "push again with --base-model OWNER/NAME."
            ).format(name=push.base_model)
        )


def show_examination(findings: list[Finding]) -> None:
    """What was found on this machine by group; last, what to do."""
    console = Console(highlight=False)
    styles = {"ok": "green", "slow": "yellow", "missing": "dim", "fault": "red"}
    for group in dict.fromkeys(finding.group for finding in findings):
        console.print(Text(f"\n{_(group)}", style="bold"))
        for found in (each for each in findings if each.group == group):
            mark = Text(f"  {left(_(found.state), 8)}", style=styles[found.state])
            name = found.name if group == "extras" else _(found.name)
            console.print(mark + Text(f"{left(name, 16)} {_(found.value)}"), soft_wrap=True)
    to_do = [each for each in findings if each.state in ("slow", "fault")]
    title = _("what to do") if to_do else _("nothing is in the way")
    console.print(Text(f"\n{title}", style="bold"))
    for found in to_do:
        console.print(f"  {_(found.name)}: {_(found.do)}", soft_wrap=True)
    missing = [each for each in findings if each.state == "missing"]
    if missing:
        text = _("What is missing is optional: pip install 'cliptune[NAME]' brings it.")
        console.print(f"\n{text}")


def _show(title: str, lines: Iterable[tuple[str, str]]) -> None:
    console = Console(highlight=False)
    console.print(Text(f"\n{title}", style="bold"))
    for name, value in lines:
        # Not wrapped: a path that is cut in two cannot be copied.
        console.print(Text.assemble((f"  {left(name + ' ', 15)}", "cyan"), value), soft_wrap=True)

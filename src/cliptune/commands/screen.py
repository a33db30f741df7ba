"""What the commands show on the screen, at 80 columns; colours only on a terminal."""

from __future__ import annotations

import glob
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.text import Text
from tqdm import tqdm

from cliptune.errors import UserError
from cliptune.files import user_path
from cliptune.hints import address_fault, check_choice
from cliptune.storage import (
    address_of,
    check_output_folder,
    folder_here,
    is_address,
    joined,
    local_folder,
    output_folder,
    path_in,
)
from cliptune.text import command, counted

if TYPE_CHECKING:
    from cliptune.checking.check import CheckResult
    from cliptune.config import Settings
    from cliptune.demo.run import DemoResult
    from cliptune.editing.change import ClassChange
    from cliptune.evaluation.comparison.comparison import Comparison
    from cliptune.evaluation.multilabel.measured import MultilabelEvaluation
    from cliptune.evaluation.report import Evaluation
    from cliptune.inference.export.export import Export
    from cliptune.inference.predictor import Predictor
    from cliptune.model.checkpoint import Checkpoint
    from cliptune.serving.worker import Loaded
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


class SuspectsWanted(NamedTuple):
    """The options of `check` that are about labels photos contradict; no `model`: none."""

    model: str | None = None
    export: Path | None = None
    base_model: str | None = None
    device: str = "auto"

    def refuse_unfit(self) -> None:
        """Raise `UserError` for a list that cannot be written."""
        from cliptune.checking.suspects import check_suspects_file

        if self.export is not None:
            if self.model is None:
                raise UserError(
                    f"--export-suspects {self.export}: which labels are suspect a model says. Add "
                    "--model NAME_OR_CHECKPOINT."
                )
            check_suspects_file(self.export)

    def added_to(self, result: CheckResult) -> CheckResult:
        """`result` with them; the list is written."""
        from cliptune.checking.suspects import write_suspects
        from cliptune.labelling.suspects import find_suspects

        if self.model is None:
            return result
        found = find_suspects(result, self.model, base_model=self.base_model, device=self.device)
        if self.export is not None:
            write_suspects(found.photos, user_path(self.export))
        return result.with_suspects(found)


def check_to_screen(
    data_dir: Path, *, output: Path, strict: bool, fix: bool, undo: bool, line: str,
    suspects: SuspectsWanted, engine: str, ray_address: str | None, debug: bool,
) -> int:  # fmt: skip
    """Check, show and write what was found; set aside or bring back. Returns the exit code.

    `line` is the command that checks the same again, for the page.
    """
    from cliptune.checking.quarantine import QUARANTINE, finish
    from cliptune.checking.quarantine import fix as set_aside
    from cliptune.checking.quarantine import undo as bring_back
    from cliptune.checking.report import check_text, write_check

    if fix and undo:
        raise UserError("--fix and --undo: choose one of the two.")
    if fix or undo:
        data_dir = folder_here(data_dir, "--fix and --undo:")
    data_dir = local_folder(data_dir)
    check_output_folder(output)
    suspects.refuse_unfit()
    if undo:
        back = bring_back(data_dir)
        print(f"{data_dir}: {counted(len(back), 'file')} brought back from {data_dir / QUARANTINE}")
        return 0
    if fix and (moved := finish(data_dir)):
        files = counted(len(moved), "file")
        print(f"{data_dir}: finished a --fix that was broken off; {files} set aside.")
        return 0
    result = suspects.added_to(
        _checked(data_dir, engine=engine, ray_address=ray_address, debug=debug)
    )
    with output_folder(output) as folder:
        page = write_check(result, folder, line)[1]
    print(f"{check_text(result)}\n\nPictures: {_below(output, page.name)}")
    if suspects.export is not None:
        print(f"To edit: {suspects.export}")
    if not fix:
        return result.exit_code(strict=strict)
    moved = set_aside(data_dir, result.offenders)
    print(
        f"\n{counted(len(moved), 'file')} set aside in {data_dir / QUARANTINE}; none was deleted."
    )
    if moved:
        print(f"To bring them back: {command('cliptune', 'check', data_dir, '--undo')}")
    # What no file's absence mends is left: a missing folder, say.
    return 2 if any(not finding.offenders for finding in result.errors) else 0


def _checked(data_dir: Path, *, engine: str, ray_address: str | None, debug: bool) -> CheckResult:
    check_choice("--engine", engine, ("here", "ray"))
    if engine == "ray":
        from cliptune.distributed import check as check_on_cluster

        return check_on_cluster(data_dir, ray_address=ray_address, debug=debug)
    from cliptune.checking.check import check

    return check(data_dir)


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
        words = ["--checkpoint", best.path, "--data-dir", _place(settings.data.data_dir)]
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
    print(f"\nReport: {_below(output_dir, 'report.html')}, and its text and pictures beside it")


def multilabel_to_screen(evaluation: MultilabelEvaluation, output_dir: Path) -> None:
    """The figures of several labels, and where the report lies."""
    from cliptune.evaluation.multilabel.text import multilabel_summary

    print(multilabel_summary(evaluation))
    print(f"\nReport: {_below(output_dir, 'report.html')}, and its text and tables beside it")


def _below(folder: Path, name: str) -> str:
    """The file `name` of the folder, which may be an address."""
    address = address_of(folder)
    return joined(address, name) if address else str(folder / name)


def _place(path: Path) -> Path | str:
    """`path`, an address as it was given."""
    return address_of(path) or path


def comparison_to_screen(comparison: Comparison, output_dir: Path) -> None:
    """The figures beside one another, the differences, and where the page lies."""
    from cliptune.evaluation.comparison.text import comparison_summary

    print(comparison_summary(comparison))
    page = _below(output_dir, "comparison.html")
    print(f"\nReport: {page}, and its text and table of photos beside it")


def class_change_summary(change: ClassChange) -> None:
    """Where the new checkpoint is, and what the change does to the other classes."""
    from cliptune.editing.text import change_text

    print(change_text(change))


def predict_to_screen_or_file(
    checkpoint: Path,
    *,
    images: list[str],
    image_dir: Path | None,
    top_k: int,
    output: Path | None,
    prior: str | None,
    batch_size: int,
    device: str,
    base_model: str | None,
    precision: str | None,
    reduced_decoding: bool,
    fast: bool,
    profile: bool,
) -> int:
    """Predict and show or write; returns how many images could not be read."""
    from cliptune.inference.output import check_output

    if output is not None:
        output = user_path(output)
        check_output(output)
    paths = photos_to_predict(images, image_dir)

    from cliptune.inference.predictor import Predictor
    from cliptune.timing import measured

    predictor = Predictor(
        checkpoint, device=device, batch_size=batch_size, base_model=base_model, prior=prior,
        precision=precision, reduced_decoding=reduced_decoding, fast=fast,
    )  # fmt: skip
    trace = Path("cliptune_trace.json") if profile else None
    with measured(trace) as watch:
        unreadable = _show_or_write(predictor, paths, top_k=top_k, output=output)
    if watch:
        print(watch.table())
    return unreadable


def predict_on_cluster(
    checkpoint: Path, images: str | None, output: str | None, *, beside: list[Any], **options: Any
) -> int:
    """Predict for a manifest by Ray and say what was done; returns how many photos had errors."""
    from cliptune.distributed import predict

    if beside or images is None or output is None:
        raise UserError(
            "--engine ray: name --images MANIFEST and --output FOLDER, and no other photos. "
            "`cliptune manifest FOLDER --output m.parquet` makes a manifest."
        )
    done = predict(checkpoint, images, output, **options)
    new = done.rows - done.before
    earlier = f", {done.before:,} of them earlier" if done.before else ""
    print(f"{counted(done.rows, 'image')} answered{earlier}: {done.output}")
    if new:
        print(f"{new:,} in {tqdm.format_interval(done.seconds)}, {done.rate:.1f} images/s")
    if done.errors:
        print(
            f"error: {counted(done.errors, 'image')} could not be read; column error says why",
            file=sys.stderr,
        )
    return done.errors


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


def _show_or_write(
    predictor: Predictor, paths: Sequence[Path | str], *, top_k: int, output: Path | None
) -> int:
    """How many images could not be read."""
    from cliptune.data.reading import Unreadable
    from cliptune.errors import ImageError
    from cliptune.inference.output import bar_chart, open_output, result_line

    results = predictor.stream(paths, top_k=top_k)
    if output is None and len(paths) == 1:
        result = next(results)
        if isinstance(result, Unreadable):
            raise ImageError(str(result))
        print(f"{result.source}\n{bar_chart(result)}")
        return 0

    unreadable = []
    hidden = len(paths) <= predictor.batch_size or None  # None: shown on a terminal only
    bar = tqdm(results, "predicting", len(paths), unit="img", disable=hidden, leave=False)
    if output is None:
        for result in bar:
            unreadable += [result] if isinstance(result, Unreadable) else []
            tqdm.write(result_line(result))
    else:
        named = min(top_k, len(predictor.class_names))
        with open_output(output, top_k=named, further=predictor.engine.further) as write:
            for result in bar:
                unreadable += [result] if isinstance(result, Unreadable) else []
                write(result)
        done = counted(len(paths) - len(unreadable), "image")
        print(f"{done} predicted: {_place(output)}")
    if unreadable:
        from cliptune.errors import listing

        print(
            f"error: {len(unreadable)} of {counted(len(paths), 'image')} could not be read:\n"
            f"{listing([str(fault) for fault in unreadable])}",
            file=sys.stderr,
        )
    return len(unreadable)


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


def photos_to_predict(images: list[str], image_dir: Path | None) -> list[Path | str]:
    """The photos given with --image, patterns such as '*.jpg' expanded, or those in `image_dir`.

    Addresses stay what they are.

    Raises `UserError` where none, or both sources, are given, and for what is no file's path.
    """
    from cliptune.data.image_files import photos_at, photos_below

    if bool(images) == (image_dir is not None):
        raise UserError("name photos with --image FILE, or a folder with --image-dir FOLDER.")
    if image_dir is None:
        return [path for given in images for path in _photos_named(given)]
    if address := address_of(image_dir):
        return [*photos_at(address, "--image-dir")]
    return [*photos_below(image_dir, "--image-dir")]


def _photos_named(given: str) -> list[Path | str]:
    """The file that `given` names, or those that it is a pattern of."""
    if is_address(given):
        path_in(given)  # refuses what cannot be read
        return [given]
    if fault := address_fault(given):
        raise UserError(f"--image {given}: {fault}.")
    path = user_path(given)
    if path.is_dir():
        raise UserError(f"{path}: this is a folder. For all photos in it, use --image-dir.")
    # A shell leaves a pattern in quotes as it is, and that of Windows any pattern.
    if os.path.lexists(path) or not glob.has_magic(given):
        return [path]
    folder = Path(path.anchor)
    found = [each for each in folder.glob(str(path.relative_to(folder))) if each.is_file()]
    if found := sorted(each for each in found if not each.name.startswith(".")):
        return [*found]
    raise UserError(
        f"--image {given}: no file of this pattern. Expected a photo's path, or a pattern of some; "
        "for all photos in a folder, use --image-dir."
    )


def _show(title: str, lines: Iterable[tuple[str, str]]) -> None:
    console = Console(highlight=False)
    console.print(Text(f"\n{title}", style="bold"))
    for name, value in lines:
        # Not wrapped: a path that is cut in two cannot be copied.
        console.print(Text.assemble((f"  {name:<15}", "cyan"), value), soft_wrap=True)

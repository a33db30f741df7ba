"""Photos to answers, on the screen or in files."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cliptune.commands.screen import place_of
from cliptune.errors import UserError
from cliptune.files import user_path
from cliptune.hints import address_fault
from cliptune.language import amount
from cliptune.language import translated as _
from cliptune.storage import (
    address_of,
    is_address,
    path_in,
)
from cliptune.text import counted

if TYPE_CHECKING:
    from cliptune.inference.predictor import Predictor


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
    text = (
        _("{images} answered, {before:,} of them earlier: {output}")
        if done.before
        else _("{images} answered: {output}")
    )
    images = amount(done.rows, "image")
    print(text.format(images=images, before=done.before, output=done.output))
    if new:
        print(_("{count:,} in {time}, {rate:.1f} images/s").format(
            count=new, time=tqdm.format_interval(done.seconds), rate=done.rate
        ))  # fmt: skip
    if done.errors:
        print(
            f"error: {counted(done.errors, 'image')} could not be read; column error says why",
            file=sys.stderr,
        )
    return done.errors


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
    bar = tqdm(results, _("predicting"), len(paths), unit="img", disable=hidden, leave=False)
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
        done = amount(len(paths) - len(unreadable), "image")
        print(_("{images} predicted: {output}").format(images=done, output=place_of(output)))
    if unreadable:
        from cliptune.errors import listing

        print(
            f"error: {len(unreadable)} of {counted(len(paths), 'image')} could not be read:\n"
            f"{listing([str(fault) for fault in unreadable])}",
            file=sys.stderr,
        )
    return len(unreadable)


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

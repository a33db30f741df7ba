"""`select`: which photos of a folder are worth labelling next, for a checkpoint.

Shape suffixes: N photos of the pool, M known ones, C classes, D feature.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cliptune.data.digests import NONE, content_sums
from cliptune.data.folder import Sample, scan_classes
from cliptune.data.image_files import photos_below
from cliptune.data.label_studio import task, write_tasks
from cliptune.data.reading import Unreadable, read_reduced
from cliptune.data.splits import split_folders
from cliptune.errors import DataError, ImageError, StorageError, UserError
from cliptune.files import user_path, whole_file
from cliptune.hints import check_choice
from cliptune.html import picture, render
from cliptune.labelling.opinions import standardised
from cliptune.labelling.selection import METHODS, select, unsureness
from cliptune.language import amount
from cliptune.language import translated as _
from cliptune.model.answers import answered
from cliptune.model.checkpoint import Checkpoint, resolve_checkpoint
from cliptune.model.classifier import Classifier
from cliptune.model.device import resolve_device
from cliptune.model.measuring import Measuring
from cliptune.model.restore import load_answers, saved_settings, training_folder
from cliptune.text import counted, no_formula
from cliptune.training.head.logistic import Floats, directions

log = logging.getLogger(__name__)

DEFAULT_METHOD = "unsure-clusters"
COLUMNS = ("path", "label", "suggested", "probability", "unsure", "why")
_EDGE = 180  # pixels of a picture on the page


@dataclass(frozen=True)
class Chosen:
    """A photo to label; `unsure` is one less the margin of the two most probable classes."""

    path: Path
    suggested: str
    probability: float
    unsure: float
    second: str

    @property
    def why(self) -> str:
        """What it is unsure between."""
        return f"{self.suggested} or {self.second}"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Photos to label, in the order of choice, of a pool of `num_pool`, beside `num_known`.

    `num_left_out` of the pool are known already or copies; `unreadable` could not be read.
    """

    checkpoint: Path
    method: str
    photos: tuple[Chosen, ...]
    num_pool: int
    num_known: int
    num_left_out: int
    unreadable: tuple[Unreadable, ...]

    def text(self) -> str:
        """What was chosen of what, in a sentence."""
        beside = (
            _("unlike {photos} it knows").format(photos=amount(self.num_known, "photo"))
            if self.num_known
            else _("the photos it learned from are not here, and were not compared with")
        )
        left = bad = ""
        if self.num_left_out:
            left = _("; {count:,} known already, or copies").format(count=self.num_left_out)
        if self.unreadable:
            bad = _("; {count:,} cannot be read").format(count=len(self.unreadable))
        return _("{photos} of {pool:,} by {method}, {beside}{left}{bad}.").format(
            photos=amount(len(self.photos), "photo"),
            pool=self.num_pool,
            method=self.method,
            beside=beside,
            left=left,
            bad=bad,
        )


def select_photos(
    checkpoint: Path | str,
    images: Path,
    *,
    number: int = 100,
    method: str = DEFAULT_METHOD,
    data_dir: Path | None = None,
    base_model: str | None = None,
    device: str = "auto",
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> Selection:
    """`number` photos of the folder `images` whose labels would teach `checkpoint` most.

    What it knows are the photos of `data_dir`, or of the folder it was trained on where that is
    there. Photos of the same content as those, or as another, are left out.

    Raises `UserError` for an unknown method or a number below 1, `DataError` where no photo is
    left, and as loading a checkpoint does.
    """
    check_choice("--method", method, tuple(METHODS))
    if number < 1:
        raise UserError(f"--number {number}: expected a number of photos from 1.")
    found = resolve_checkpoint(checkpoint)
    load_answers(found)  # refuses checkpoints of another kind before anything is read
    pool = photos_below(images, "--images")
    known = _known_photos(found, data_dir)
    fresh = _without_copies(pool, known)
    if not fresh:
        raise DataError(
            f"--images {images}: all of its {counted(len(pool), 'photo')} are known already. "
            "Expected photos without a label yet."
        )
    measuring = Measuring(
        device=resolve_device("cpu" if found.exported else device), batch_size=batch_size,
        base_model=base_model, progress=progress,
    )  # fmt: skip
    classifier = measuring.loaded(found).tuned().to(measuring.device)
    samples = [Sample(path, 0) for path in (*fresh, *known)]
    said = measuring.predict([classifier], samples, _("looking"))
    places_N = said.indices
    new_N = places_N < len(fresh)
    chances_NC = _chances(found, classifier, said.logits[0][new_N], said.features[0][new_N])
    towards_ND = directions(standardised(np.asarray(said.features[0], dtype=np.float64)))
    order = select(
        chances_NC, towards_ND[new_N], towards_ND[~new_N], number, method=method, seed=seed
    )
    paths = [fresh[place] for place in places_N[new_N]]
    photos = _described(order, paths, chances_NC, found.record.class_names)
    return Selection(
        checkpoint=found.path, method=method, photos=photos, num_pool=len(pool),
        num_known=int((~new_N).sum()), num_left_out=len(pool) - len(fresh),
        unreadable=tuple(said.unreadable),
    )  # fmt: skip


def _known_photos(checkpoint: Checkpoint, data_dir: Path | None) -> list[Path]:
    """The photos of train and val that it learned from, where they are here."""
    if data_dir is None:
        try:
            data_dir = training_folder(checkpoint, saved_settings(checkpoint))
        except (StorageError, DataError):  # at an address where it is no longer
            data_dir = None
        if data_dir is None or not data_dir.is_dir():
            log.info("%s: the photos it learned from are not here", checkpoint.path)
            return []
    elif not data_dir.is_dir():
        raise DataError(f"--data-dir {data_dir}: no such folder. Expected train/<class>/ in it.")
    folders = split_folders(data_dir)
    splits = [scan_classes(folders[name]) for name in ("train", "val") if name in folders]
    return [path for split in splits for photos in split.values() for path in photos]


def _without_copies(pool: Sequence[Path], known: Sequence[Path]) -> list[Path]:
    """Of each content in `pool` the first, where it is none of `known`."""
    seen = set(content_sums(known).tolist()) - {NONE}
    fresh = []
    for path, total in zip(pool, content_sums(pool).tolist(), strict=True):
        if total == NONE or total not in seen:  # what cannot be read is told of later
            fresh.append(path)
            seen.add(total)
    return fresh


def _chances(
    checkpoint: Checkpoint, classifier: Classifier, logits_NC: Floats, features_ND: Floats
) -> Floats:
    """(N, C) calibrated probabilities."""
    answers, means_CD = load_answers(checkpoint)
    weights_CD = classifier.class_weights().detach().cpu().numpy()
    found = answered(answers, logits_NC, features_ND, weights_CD=weights_CD, means_CD=means_CD)
    return found.probabilities_NC


def _described(
    order: Sequence[int], paths: Sequence[Path], chances_NC: Floats, class_names: Sequence[str]
) -> tuple[Chosen, ...]:
    unsure_N = unsureness(chances_NC)
    photos = []
    for place in order:
        first, second = np.argsort(-chances_NC[place], kind="stable")[:2]
        photos.append(
            Chosen(
                paths[place], class_names[first], float(chances_NC[place, first]),
                float(unsure_N[place]), class_names[second],
            )
        )  # fmt: skip
    return tuple(photos)


def check_list_file(path: Path) -> None:
    """Raise `UserError` unless a list can be written to `path`."""
    if path.suffix.lower() not in (".csv", ".json") or path.is_dir():
        raise UserError(
            f"--output {path}: expected a file that ends in .csv, or in .json for tasks of Label "
            "Studio."
        )


def write_selection(selection: Selection, path: Path, *, images: Path) -> Path:
    """Write the list, whose column `label` is to be filled, to the CSV file `path`; a page with
    the photos beside it, whose path is returned.

    To a .json file they go as tasks of Label Studio, with the most probable class filled in.
    Paths are relative to `images`: `cliptune prepare --source LIST --root IMAGES` reads them so.
    """
    path, images = user_path(path), user_path(images)
    if path.suffix.lower() == ".json":
        _write_tasks(selection, path, images=images)
    else:
        _write_rows(selection, path, images=images)
    page = path.with_suffix(".html")
    with whole_file(page) as partial:
        text = selection_page(selection, images=images)
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return page


def _write_tasks(selection: Selection, path: Path, *, images: Path) -> None:
    tasks = [
        task(
            _below(each.path, images), each.suggested, score=each.probability,
            more={"why": each.why},
        )
        for each in selection.photos
    ]  # fmt: skip
    write_tasks(tasks, path)


def _write_rows(selection: Selection, path: Path, *, images: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for each in selection.photos:
            row = (
                _below(each.path, images), "", each.suggested, f"{each.probability:.4f}",
                f"{each.unsure:.4f}", each.why,
            )  # fmt: skip
            writer.writerow(map(no_formula, row))


def selection_page(selection: Selection, *, images: Path) -> str:
    """The chosen photos in their order, in one self-contained page."""
    from cliptune._version import __version__

    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(lambda each: _picture(each.path), selection.photos))
    photos = [
        {"file": _below(each.path, images), "photo": each, "picture": data}
        for each, data in zip(selection.photos, pictures, strict=True)
    ]
    return render("selection.html", selection=selection, photos=photos, version=__version__)


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _picture(path: Path) -> str:
    try:
        pixels = read_reduced(path, edge=_EDGE, resample=Image.Resampling.BILINEAR)
    except ImageError:
        return ""  # gone since it was looked at
    return picture(Image.fromarray(pixels), edge=_EDGE)

"""Whether photos that a checkpoint is measured on are photos it already knows.

A figure on photos that were trained on tells nothing of new ones, and one on photos that chose
and calibrated a checkpoint flatters it. The checkpoint keeps the sums of both; an earlier one
does not, and there the name of the split has to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cliptune.data.digests import PhotoSums
from cliptune.language import translated as _


@dataclass(frozen=True, kw_only=True)
class SeenPhotos:
    """Of the photos measured, how many training learned from, and how many others it chose by.

    `known_by` says how that is known: by the files' content, by the name of the split (then of
    all photos or none), or not at all (both numbers are 0).
    """

    num_images: int
    trained_on: int
    chosen_by: int
    known_by: Literal["content", "split"] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def seen_photos(
    sums: PhotoSums | None, paths: Sequence[Path], *, split: str = "", of_training: bool = False
) -> SeenPhotos:
    """What the checkpoint with `sums` (None for one of an earlier version) knows of `paths`.

    `split` is that of the photos, and `of_training` whether their folder is the one of training.
    """
    count = len(paths)
    if sums is not None:
        trained, chosen = sums.count(paths)
        return SeenPhotos(
            num_images=count, trained_on=trained, chosen_by=chosen, known_by="content"
        )
    known = of_training and split in ("train", "val")
    return SeenPhotos(
        num_images=count,
        trained_on=count if known and split == "train" else 0,
        chosen_by=count if known and split == "val" else 0,
        known_by="split" if known else None,
    )


def seen_in_words(seen: SeenPhotos | None, *, split: str = "") -> str:
    """What that means for the figures; "" where there is nothing to say."""
    if seen is None:
        return ""
    if seen.known_by is None:
        if split == "test":
            return ""
        return _(
            "Whether training learned from these photos of {split}, or chose by them, is not "
            "known: the checkpoint was made by an earlier version."
        ).format(split=split)
    texts = []
    if seen.trained_on:
        texts.append(
            _("{photos} trained on: these figures do not tell of new photos.")
            if seen.trained_on == seen.num_images
            else _("{photos} trained on: of new photos, figures without them tell more.")
        )
        texts[-1] = texts[-1].format(photos=_part(seen.trained_on, seen))
    if seen.chosen_by:
        texts.append(
            _(
                "{photos} used to choose and calibrate the checkpoint: on new photos its figures "
                "tend to be lower."
            ).format(photos=_part(seen.chosen_by, seen))
        )
    if texts and seen.known_by == "split":
        texts.append(
            _(
                "(So says the split's name: the checkpoint, of an earlier version, keeps no sums "
                "of its photos.)"
            )
        )
    elif texts and max(seen.trained_on, seen.chosen_by) < seen.num_images:
        texts.append(_("(Found by the files' content, whatever they are called.)"))
    return " ".join(texts)


def seen_unknown_in_words(seen: SeenPhotos | None) -> str:
    """The same of photos that were given as ones of none of the classes."""
    count = 0 if seen is None else seen.trained_on + seen.chosen_by
    if seen is None or not count:
        return ""
    return _(
        "{photos} trained on or validated on, as photos of its classes, and given here as photos "
        "of none of them."
    ).format(photos=_part(count, seen))


def _part(count: int, seen: SeenPhotos) -> str:
    """ "All 12 photos were", "1 of 12 photos was"."""
    if count == seen.num_images:
        text = _("The only photo was") if count == 1 else _("All {count} photos were")
    else:
        text = (
            _("{count} of {total} photos was")
            if count == 1
            else _("{count} of {total} photos were")
        )
    return text.format(count=count, total=seen.num_images)

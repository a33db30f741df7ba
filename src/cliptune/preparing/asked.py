"""What was asked of `prepare`, checked before any photo is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cliptune.data.manifest import PrepareOptions
from cliptune.data.naming import clean_name
from cliptune.errors import DataError
from cliptune.hints import check_choice
from cliptune.preparing.choosing import Wish
from cliptune.preparing.renaming import names_called
from cliptune.preparing.sources.opening import LAYOUTS, SPLIT_CHOICES
from cliptune.preparing.splitting import Shares


@dataclass(frozen=True)
class Asked:
    """What was asked for, whole and in the terms of those who choose classes and share photos."""

    options: PrepareOptions
    wish: Wish
    shares: Shares

    def names_of(self, classes: Sequence[str], *, where: str) -> dict[str, str]:
        """As `names_called`, by --rename and --merge."""
        options = self.options
        return names_called(classes, rename=options.rename, merge=options.merge, where=where)


def asked_for(options: PrepareOptions, *, seed: int) -> Asked:
    """What `options` ask for. Raises `DataError` where that is wrong whatever the photos are."""
    wish = Wish(
        classes=options.classes,
        num_classes=options.num_classes,
        exclude=options.exclude,
        min_photos=options.min_photos,
    )
    shares = Shares(
        train_ratio=options.train_ratio,
        val_ratio=options.val_ratio,
        seed=seed,
        shots=options.shots,
    )
    check_choice("--layout", options.layout, LAYOUTS, refusal=DataError)
    check_choice("--splits", options.splits, SPLIT_CHOICES, refusal=DataError)
    if options.resize is not None and (options.resize < 16 or options.link):
        expected = "no --link beside it" if options.link else "at least 16 pixels"
        raise DataError(f"--resize {options.resize}: expected {expected}.")
    return Asked(options, wish, shares)


def cleaned(names: Sequence[str] | None) -> list[str] | None:
    """Names of classes in their one spelling."""
    return None if names is None else [clean_name(name) for name in names]

"""Sharing out whole groups: photos of one patient, animal, camera or video stay in one split.

Shape suffixes: N photos.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from cliptune.data.groups import take_groups
from cliptune.data.splits import SPLITS
from cliptune.errors import DataError, listing, named
from cliptune.language import joined, said
from cliptune.preparing.splitting import Parts, Shares, shuffled
from cliptune.text import counted

Photos = Sequence[PurePosixPath]


def share_out_groups(
    classes: Mapping[str, Photos],
    splits: Mapping[PurePosixPath, str],
    groups: Mapping[PurePosixPath, str],
    shares: Shares,
    *,
    where: object,
) -> dict[str, Parts[PurePosixPath]]:
    """As `share_out`, with no group in two splits; `shares.shots` counts groups of a class.

    What goes where depends on all photos, since a group may hold several classes. Raises
    `DataError` where splits that are given part a group, naming every class of too few groups,
    and for a class that no whole groups bring to every split.
    """
    if splits:
        every = [photo for own in classes.values() for photo in own]
        mend = "Deal anew with --splits random, which keeps groups together, or leave"
        refuse_parted(every, splits, groups, where=where, mend=mend)
    missing = [split for split in ("val", "test") if split not in set(splits.values())]
    _refuse_few(classes, splits, groups, shares, needed=1 + len(missing), where=where)
    split_of = dict(splits)
    if not splits:
        split_of = {photo: "train" for photos in classes.values() for photo in photos}
    _take(classes, split_of, groups, shares, missing)
    dealt: dict[str, Parts[PurePosixPath]] = {}
    for name, photos in classes.items():
        dealt[name] = {s: [photo for photo in photos if split_of[photo] == s] for s in SPLITS}
        if shares.shots is not None:
            kept = _some_groups(dealt[name]["train"], groups, shares, name=name)
            dealt[name]["train"] = [p for p in dealt[name]["train"] if groups[p] in kept]
    _refuse_lacking(dealt, (*missing, "train"), where=where)
    return dealt


def _take(
    classes: Mapping[str, Photos],
    split_of: dict[PurePosixPath, str],
    groups: Mapping[PurePosixPath, str],
    shares: Shares,
    missing: Sequence[str],
) -> None:
    """Give the `missing` splits their groups of what `split_of` has in train."""
    val = (1 - shares.train_ratio) / 2 if shares.val_ratio is None else shares.val_ratio
    ratios = {"val": val, "test": 1 - shares.train_ratio - val}
    numbers = {group: i for i, group in enumerate(sorted(set(groups.values())))}
    left = 1.0
    for after, split in enumerate(missing):
        rows = [
            (photo, label, numbers[groups[photo]])
            for label, photos in enumerate(classes.values())
            for photo in photos
            if split_of[photo] == "train"
        ]
        out_N = take_groups(
            np.array([label for _, label, _ in rows]), np.array([group for _, _, group in rows]),
            share=ratios[split] / left, seed=shares.seed, leave=len(missing) - after,
        )  # fmt: skip
        for (photo, _, _), out in zip(rows, out_N, strict=True):
            if out:
                split_of[photo] = split
        left -= ratios[split]


def _some_groups(
    photos: Photos, groups: Mapping[PurePosixPath, str], shares: Shares, *, name: str
) -> set[str]:
    order = shuffled(sorted({groups[photo] for photo in photos}), name=name, seed=shares.seed)
    return set(order[: shares.shots])


def refuse_parted(
    photos: Photos,
    splits: Mapping[PurePosixPath, str],
    groups: Mapping[PurePosixPath, str],
    *,
    where: object,
    mend: str,
) -> None:
    """Raise `DataError` where splits that are given part a group; `mend` says how else to split."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for photo in photos:
        found[groups[photo]][splits[photo]] += 1
    parted = [
        f"{group}: " + ", ".join(f"{count[split]} in {split}" for split in SPLITS if count[split])
        for group, count in sorted(found.items())
        if len(count) > 1
    ]
    if parted:
        lies = "group lies" if len(parted) == 1 else "groups lie"
        raise DataError(
            f"{where}: --group: {len(parted):,} {lies} across the source's own splits:\n"
            f"{listing(parted)}\nA test on photos whose group was learned from tests too little. "
            f"{mend} --group out to take the splits as they are."
        )


def _refuse_few(
    classes: Mapping[str, Photos],
    splits: Mapping[PurePosixPath, str],
    groups: Mapping[PurePosixPath, str],
    shares: Shares,
    *,
    needed: int,
    where: object,
) -> None:
    enough = needed - 1 + (shares.shots or 1)
    few = {}
    for name, photos in classes.items():
        own = {groups[photo] for photo in photos if not splits or splits[photo] == "train"}
        if len(own) < enough:
            few[name] = f"{counted(len(own), 'group')} ({named(sorted(own), limit=3)})"
    if few:
        kind = "one for each of train, val and test" if needed == len(SPLITS) else "for train"
        if 1 < needed < len(SPLITS):
            kind = "for train and what is taken from it"
        asked = f", and {shares.shots} for train (--shots)" if (shares.shots or 1) > 1 else ""
        raise DataError(
            f"{where}: classes with fewer than {enough} groups, {kind}{asked}:\n"
            f"{listing([f'{name}: {what}' for name, what in few.items()], limit=120)}\n"
            f"Leave them out with --exclude {','.join(few)}, add photos of other groups, or leave "
            "--group out."
        )


def _refuse_lacking(
    dealt: Mapping[str, Parts[PurePosixPath]], made: Sequence[str], *, where: object
) -> None:
    lacking = [f"{name}: none for {split}" for name in dealt for split in made
               if not dealt[name][split]]  # fmt: skip
    if lacking:
        raise DataError(
            f"{where}: --group: groups that hold several classes cannot be shared out so that each "
            f"split has every class:\n{listing(lacking)}\nTry another --seed, leave these classes "
            "out (--exclude), or add photos of other groups."
        )


def numbers_in_words(photos: Mapping[str, Photos], groups: Mapping[PurePosixPath, str]) -> str:
    """How many groups each split holds, given its photos."""
    numbers = {split: len({groups[photo] for photo in photos[split]}) for split in SPLITS}
    parts = [said("{count:,} in {split}", count=numbers[split], split=split) for split in SPLITS]
    return said(
        "Groups: {count:,}, none of them in two splits: {parts}.",
        count=sum(numbers.values()), parts=joined(parts, ", "),
    )  # fmt: skip


def groups_in_words(
    dealt: Mapping[str, Parts[PurePosixPath]],
    groups: Mapping[PurePosixPath, str],
    shares: Shares,
    *,
    given: bool,
) -> str:
    """How many groups each split holds, and how near the shares came to what was asked for."""
    photos = {split: [p for parts in dealt.values() for p in parts[split]] for split in SPLITS}
    text = numbers_in_words(photos, groups)
    if shares.shots is not None:
        return said(
            "{numbers} --shots counts groups here: all photos of {count} a class.",
            numbers=text, count=shares.shots,
        )  # fmt: skip
    if given:
        return text
    val = (1 - shares.train_ratio) / 2 if shares.val_ratio is None else shares.val_ratio
    asked = {"train": shares.train_ratio, "val": val, "test": 1 - shares.train_ratio - val}
    found = {s: len(photos[s]) / sum(map(len, photos.values())) for s in SPLITS}
    off = {
        name: max(
            abs(len(parts[s]) / sum(map(len, parts.values())) - asked[s]) for s in SPLITS
        )
        for name, parts in dealt.items()
    }  # fmt: skip
    worst = max(off, key=off.__getitem__)
    own = {s: len(dealt[worst][s]) / sum(map(len, dealt[worst].values())) for s in SPLITS}
    return said(
        "{numbers} Of the photos, {found} % are in train, val and test, where {asked} were asked "
        "for; farthest off is {worst}, with {own}.",
        numbers=text, found=_percents(found), asked=_percents(asked), worst=worst,
        own=_percents(own),
    )  # fmt: skip


def _percents(shares: Mapping[str, float]) -> str:
    return " / ".join(f"{100 * shares[split]:.0f}" for split in SPLITS)

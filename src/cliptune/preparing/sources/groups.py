"""Which photos of a source belong together: by a column, or by what their paths have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from cliptune.errors import DataError, listing, named
from cliptune.text import counted


def find_groups(
    photos: Sequence[PurePosixPath],
    found: Mapping[PurePosixPath, str],
    group: str,
    *,
    where: str,
) -> Mapping[PurePosixPath, str]:
    """The group of each of `photos`: `found` in a column, else by the expression `group`.

    Of a regular expression, the first group that takes part in the match is the name, or else the
    whole match. Raises `DataError` where it is none, and with the photos it says nothing of.
    """
    by = f"column '{group}'"
    if not found:
        found, by = _by_path(photos, group, where=where), f"the expression '{group}'"
    without = [photo for photo in photos if not found.get(photo)]
    if len(without) == len(photos):
        raise DataError(
            f"{where}: --group {group}: no column is called so, and as a regular expression it "
            f"matches none of the paths, such as {photos[0]}. Expected the title of a column of a "
            r"list, or an expression such as 'patient(\d+)', whose brackets hold the group's name."
        )
    if without:
        raise DataError(
            f"{where}: --group: {by} says nothing of {counted(len(without), 'photo')} of "
            f"{len(photos):,}:\n{listing(list(map(str, without)), limit=6)}\nFill in a group for "
            "each, a name of its own for a photo that belongs to no other; in an expression, '|.*' "
            "at the end makes each photo that nothing before it matches a group of its own."
        )
    _refuse_one(photos, found, by=by, where=where)
    return {photo: found[photo] for photo in photos}


def _by_path(
    photos: Sequence[PurePosixPath], expression: str, *, where: str
) -> dict[PurePosixPath, str]:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise DataError(
            f"{where}: --group {expression}: no column is called so, and it is no regular "
            rf"expression ({error}). Expected such as 'patient(\d+)' or '^[^/]+/[^/_]+'."
        ) from None
    matches = {photo: pattern.search(photo.as_posix()) for photo in photos}
    return {
        photo: next(filter(None, match.groups()), match[0])
        for photo, match in matches.items()
        if match is not None
    }


def _refuse_one(
    photos: Sequence[PurePosixPath], found: Mapping[PurePosixPath, str], *, by: str, where: str
) -> None:
    """Raise `DataError` where all photos are one group: then there is nothing to split."""
    names = {found[photo] for photo in photos}
    if len(names) == 1:
        raise DataError(
            f"{where}: --group: by {by}, all {counted(len(photos), 'photo')} are one group, "
            f"{named(sorted(names))}, which cannot be shared among train, val and test. Expected "
            "what tells patients, animals, cameras or videos apart."
        )

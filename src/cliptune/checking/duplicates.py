"""From files and hashes to findings: copies in a class, across classes, across splits.

Paths here are relative: `split/class/file`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cliptune.checking.findings import Finding
from cliptune.checking.fingerprints import HASH_BITS, VIEWS
from cliptune.checking.inspection import Inspected
from cliptune.checking.near_duplicates import Near, near_pairs
from cliptune.data.naming import clean_name
from cliptune.data.splits import SPLIT_NAMES, SPLITS
from cliptune.language import joined, said


@dataclass(frozen=True)
class _Group:
    """Files that are copies of one another; `links`: near ones with what makes them so."""

    files: tuple[str, ...]
    links: tuple[tuple[str, str, Near], ...] = ()


def find_duplicates(
    files: Mapping[str, Inspected], *, classes: Mapping[str, str] | None = None
) -> list[Finding]:
    """Findings about every group of equal, and of nearly equal, files; `files`: path -> content.

    `classes` are those of each path, where its folder does not tell.
    """
    class_of = _class if classes is None else classes.__getitem__
    readable = {name: found for name, found in files.items() if not found.fault}
    by_content: dict[str, list[str]] = defaultdict(list)
    for name in sorted(readable):
        by_content[readable[name].sha256].append(name)
    findings = []
    for same in by_content.values():
        if len(same) > 1:
            findings += _exact(_Group(tuple(same)), class_of)
    one_of_each = [same for same in by_content.values() if readable[same[0]].hashes is not None]
    for group in _near_groups(one_of_each, readable):
        findings += _near(group, class_of)
    return findings


def _near_groups(
    contents: Sequence[Sequence[str]], files: Mapping[str, Inspected]
) -> Iterable[_Group]:
    """Groups of different contents joined by near pairs, each with all its files."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if len(contents) < 2:
        return
    hashes = [files[same[0]].hashes for same in contents]
    pairs = near_pairs(np.stack([h for h in hashes if h is not None]))
    if not pairs:
        return
    ends = np.array([pair[:2] for pair in pairs])
    graph = coo_matrix((np.ones(len(ends)), ends.T), shape=(len(contents), len(contents)))
    component = connected_components(graph, directed=False)[1]
    members: dict[int, list[int]] = defaultdict(list)
    for place in sorted(set(ends.ravel().tolist())):
        members[component[place]].append(place)
    links: dict[int, list[tuple[str, str, Near]]] = defaultdict(list)
    for pair in pairs:
        first, second = contents[pair.first], contents[pair.second]
        links[component[pair.first]] += [(a, b, pair) for a in first for b in second]
    for key, places in members.items():
        names = sorted(name for place in places for name in contents[place])
        yield _Group(tuple(names), tuple(links[key]))


def _exact(group: _Group, class_of: Callable[[str], str]) -> list[Finding]:
    files, findings = group.files, []
    detail = said("{count} copies of one file", count=len(files))
    if len({class_of(name) for name in files}) > 1:
        return [
            Finding("copies_across_classes", detail, files, files),
            *leak("copies_across_splits", files, detail),
        ]
    findings += leak("copies_across_splits", files, detail)
    for split in SPLITS:
        inside = tuple(name for name in files if split_of(name) == split)
        if len(inside) > 1:
            copies = said("{count} copies of one file", count=len(inside))
            findings.append(Finding("copies_in_class", copies, inside, inside[1:]))
    return findings


def leak(kind: str, files: Sequence[str], detail: str) -> list[Finding]:
    """A finding of `kind` where `files` lie in several splits.

    What is in train goes before what is in val; test stays as it is.
    """
    if len({split_of(name) for name in files}) == 1:
        return []
    last = max(SPLITS.index(split_of(name)) for name in files)
    offenders = tuple(name for name in files if SPLITS.index(split_of(name)) < last)
    return [Finding(kind, detail, tuple(files), offenders)]


def _near(group: _Group, class_of: Callable[[str], str]) -> list[Finding]:
    detail, findings = _in_words(group), []
    if len({class_of(name) for name in group.files}) > 1:
        findings.append(Finding("near_across_classes", detail, group.files))
    if len({split_of(name) for name in group.files}) > 1:
        # Only those that resemble a photo of a later split themselves, not by way of others.
        offenders = {
            min((a, b), key=lambda name: SPLITS.index(split_of(name)))
            for a, b, _ in group.links
            if split_of(a) != split_of(b)
        }
        findings.append(
            Finding("near_across_splits", detail, group.files, tuple(sorted(offenders)))
        )
    return findings or [Finding("near_in_class", detail, group.files)]


def _in_words(group: _Group) -> str:
    near = [pair for _, _, pair in group.links]
    farthest = max(pair.distance for pair in near)
    views = [name for view, name in enumerate(VIEWS) if view and any(p.view == view for p in near)]
    if not views:
        return said("{count} of {bits} bits differ", count=farthest, bits=HASH_BITS)
    return said(
        "{count} of {bits} bits differ, one {views}",
        count=farthest, bits=HASH_BITS, views=joined([said(view) for view in views], " or "),
    )  # fmt: skip


def split_of(name: str) -> str:
    """The split of the file `split/class/file`."""
    return SPLIT_NAMES[name.split("/", 1)[0].lower()]


def _class(name: str) -> str:
    return clean_name(name.split("/", 2)[1])

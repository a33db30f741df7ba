"""Classes of a source under other names, and several of them as one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from cliptune.data.naming import class_name_fault, clean_name, name_key
from cliptune.errors import DataError, named
from cliptune.language import Said, joined, said
from cliptune.preparing.breeds import find_classes
from cliptune.preparing.sources.layouts import ClassLayout


def names_called(
    classes: Sequence[str],
    *,
    rename: Mapping[str, str] | None,
    merge: Mapping[str, Sequence[str]] | None,
    where: str,
) -> dict[str, str]:
    """Those of `classes` that get another name -> that name, in the order of `classes`.

    `rename`: old -> new, `merge`: new -> the two or more that become it, the old ones however
    spelt. Raises `DataError` for names that are no classes, for a class that is named twice, for a
    new name that another class has or that no folder can have, and for a merger of one.
    """
    called: dict[str, str] = {}
    for old, new in (rename or {}).items():
        _call(called, [old], new, "--rename", classes, where=where)
    for new, olds in (merge or {}).items():
        if len(olds) < 2:
            raise DataError(
                f"--merge {','.join(olds)}={new}: expected two classes or more before the '=', "
                "with commas between them. To give one another name: --rename OLD=NEW."
            )
        _call(called, olds, new, "--merge", classes, where=where)
    _refuse_clashes(classes, called, merge or {})
    return {name: called[name] for name in classes if called.get(name, name) != name}


def _call(
    called: dict[str, str],
    olds: Sequence[str],
    new: str,
    option: str,
    classes: Sequence[str],
    *,
    where: str,
) -> None:
    """Note that `olds` are called `new`."""
    clean = clean_name(new)
    if fault := class_name_fault(clean):
        raise DataError(f"{option} {','.join(olds)}={new}: no class can be called so ({fault}).")
    found = find_classes(classes, olds, option=option, where=where)
    if again := [name for name in found if name in called]:
        raise DataError(
            f"{option} {','.join(olds)}={new}: {named(again)} would be {called[again[0]]}, too. "
            "Name each class once in --rename and --merge together."
        )
    called |= dict.fromkeys(found, clean)


def _refuse_clashes(
    classes: Sequence[str], called: Mapping[str, str], merge: Mapping[str, Sequence[str]]
) -> None:
    merged = {clean_name(new) for new in merge}
    own: dict[str, list[str]] = defaultdict(list)  # what file systems take for one name -> classes
    for name in classes:
        own[name_key(called.get(name, name))].append(name)
    for same in own.values():
        names = {called.get(name, name) for name in same}
        if len(same) < 2 or not any(name in called for name in same):
            continue
        if len(names) == 1 and names <= merged and all(name in called for name in same):
            continue
        raise DataError(
            f"{named(same)} would all be called {named(sorted(names))}. If they are one class, "
            f"merge them: --merge {','.join(same)}={min(names)}; else choose another name."
        )


def with_names(layout: ClassLayout, called: Mapping[str, str]) -> ClassLayout:
    """`layout` with its classes as they are `called`; one that is merged stands where its first."""
    if not called:
        return layout
    classes: dict[str, list[PurePosixPath]] = defaultdict(list)
    for name, photos in layout.classes.items():
        classes[called.get(name, name)] += photos
    return replace(layout, classes={name: sorted(photos) for name, photos in classes.items()})


def called_in_words(called: Mapping[str, str]) -> list[Said]:
    """What became of names, a sentence each for those renamed and those merged."""
    counts = Counter(called.values())
    renamed = [
        said("{old} is {new}", old=old, new=new) for old, new in called.items() if counts[new] == 1
    ]
    together: dict[str, list[str]] = defaultdict(list)
    for old, new in called.items():
        together[new].append(old)
    merged = [
        said("{old} are {new}", old=joined(olds, " and "), new=new)
        for new, olds in together.items() if len(olds) > 1
    ]  # fmt: skip
    sentences = []
    if renamed:
        sentences.append(said("Renamed: {names}.", names=joined(renamed, "; ")))
    if merged:
        sentences.append(said("Merged: {names}.", names=joined(merged, "; ")))
    return sentences

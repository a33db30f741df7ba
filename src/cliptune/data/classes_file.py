"""`classes.yaml` in a data folder: what its classes are called, and which belong together.

    # data/dogs/classes.yaml: every entry is optional
    golden_retriever:
      name: 金毛寻回犬                       # shown in reports and predictions
      prompts: [golden retriever, goldie]   # the names that fill the {} of prompts
      parent: retriever                     # what several classes are, one with another
    pug: 巴哥犬                              # short form: the name shown, nothing else
    retriever:                              # a parent may have an entry, too, without prompts
      name: 寻回犬
      parent: gun_dog

Everything in the file is text: a class called 007 or no needs no quotes.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from cliptune.config_source import Loader, read_mapping
from cliptune.data.naming import (
    class_name_fault,
    clean_name,
    display_names,
    name_key,
    spoken_name,
)
from cliptune.data.parents import ancestors
from cliptune.errors import DataError, named, together

CLASSES_FILE = "classes.yaml"
KEYS = ("name", "prompts", "parent")
MOST_KEYS = 100_000  # in a file; ImageNet's 21,841 classes would take some 65,000
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 2  # aliases: a few lines may be a list of lists without end


@dataclass(frozen=True)
class GivenNames:
    """What a `classes.yaml` says beyond the defaults, by the name of a class or a parent.

    `parents` has the parent of each class, and of each parent, that has one.
    """

    display: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, list[str]] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)


def read_names(data_dir: Path, class_names: Sequence[str]) -> GivenNames:
    """What `data_dir/classes.yaml` says of `class_names`; nothing where there is no such file.

    Names that are the default are left out. Raises `DataError` listing every fault of the file:
    an unknown class or key, a value of the wrong type, an empty name, two classes shown alike, a
    key written twice, a parent that is a class or its own ancestor; or the one that keeps it from
    being read.
    """
    path = data_dir / CLASSES_FILE
    if not os.path.lexists(path):
        return GivenNames()
    values, lines, repeated = read_mapping(
        path,
        refusal=DataError,
        what="file of class names",
        expected="class names with what they are called, such as 'pug: 巴哥犬'",
        most_keys=MOST_KEYS,
        loader=_TextLoader,
    )
    lines |= {clean_name(key): lines[key] for key in values if key in lines}
    entries = _Entries(path, lines, faults=[f"{path}: written twice: {key}" for key in repeated])
    parents = entries.parents(values, class_names)
    above = set(parents.values())
    known = {*class_names, *above}
    own_key: dict[str, str] = {}  # clean name -> the key as it is written in the file
    display: dict[str, str] = {}
    prompts: dict[str, list[str]] = {}
    for key, entry in values.items():
        class_name = clean_name(key) if isinstance(key, str) else key
        if class_name not in known:
            entries.refuse(str(key), _unknown(key, class_names, sorted(above)))
            continue
        if own_key.setdefault(class_name, key) != key:
            twice = f"{own_key[class_name]!a} and {key!a}"
            entries.refuse(key, f"written twice: {twice} are one class, '{class_name}'")
            continue
        parts = {"name": entry} if isinstance(entry, str) else entries.parts(key, entry)
        if "name" in parts and (name := entries.name(key, "name", parts["name"])):
            display[class_name] = name
        if "prompts" in parts and class_name in above:
            entries.refuse(
                f"{key}.prompts",
                f"{key}.prompts: '{key}' is a parent of classes, and prompts name classes alone; "
                "give them to its classes",
            )
        elif "prompts" in parts and (names := entries.prompts(key, parts["prompts"])):
            prompts[class_name] = names
    named_all = [*class_names, *sorted(above)]
    entries.refuse_same(display_names(named_all, display))
    if entries.faults:
        raise DataError(together(path, entries.faults, limit=50))
    default = display_names(named_all, {})
    return GivenNames(
        display={key: name for key, name in display.items() if name != default[key]},
        prompts={key: names for key, names in prompts.items() if names != [spoken_name(key)]},
        parents=parents,
    )


def entries_of(
    folder: Path,
    *,
    known: Sequence[str],
    chosen: Sequence[str],
    called: Mapping[str, str] = MappingProxyType({}),
) -> str | None:
    """`folder/classes.yaml` for those `chosen` of its `known` classes, as YAML; None without one.

    The text is the file's own where all classes are chosen; else entries of the others, and
    comments, are left out. Those of `known` that are `called` otherwise among the chosen bring
    their entries along; of several that are one class now, only the one of its name. Raises
    `DataError` as `read_names` does.
    """
    if not os.path.lexists(folder / CLASSES_FILE):
        return None
    given = read_names(folder, known)
    if set(known) == set(chosen) and not called:
        return (folder / CLASSES_FILE).read_text(encoding="utf-8")
    entries: dict[str, dict[str, str | list[str]]] = {}
    of_chosen = (above for name in chosen for above in ancestors(name, given.parents))
    for name in dict.fromkeys([*chosen, *of_chosen]):
        olds = [old for old in known if called.get(old, old) == name]
        own = olds[0] if len(olds) == 1 else name
        if own in given.parents:
            entries.setdefault(name, {})["parent"] = given.parents[own]
        if own in given.display:
            entries.setdefault(name, {})["name"] = given.display[own]
        if own in given.prompts:
            entries.setdefault(name, {})["prompts"] = given.prompts[own]
    return yaml.safe_dump(entries, allow_unicode=True, sort_keys=False) if entries else None


class _TextLoader(Loader):
    """Takes every value for text as it is written; only nothing at all is None."""


_TextLoader.yaml_implicit_resolvers = {}
_TextLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])


@dataclass(frozen=True)
class _Entries:
    """The entries of the file `path`, and the faults met while reading them."""

    path: Path
    lines: dict[str, int]  # of dotted keys
    faults: list[str]

    def refuse(self, key: str, fault: str) -> None:
        """Note `fault` with the line of the dotted `key`, or of the nearest thing around it."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        self.faults.append(f"{self.path}{f':{self.lines[key]}' if key else ''}: {fault}")

    def parts(self, class_name: str, entry: Any) -> dict[Any, Any]:
        """What stands under a class: some of `KEYS`."""
        if entry is None:
            return {}
        if not isinstance(entry, dict):
            self.refuse(
                class_name,
                f"{class_name}: found {_SHORT.repr(entry)}; expected the name shown, or 'name:' "
                "and 'prompts:', and 'parent:', under the class",
            )
            return {}
        for key in entry:
            if key not in KEYS:
                near = difflib.get_close_matches(str(key), KEYS, n=1)
                hint = f" Did you mean '{near[0]}'?" if near else ""
                fault = f"{class_name}: unknown key {_SHORT.repr(key)}.{hint}"
                self.refuse(f"{class_name}.{key}", f"{fault} Keys: {', '.join(KEYS)}")
        return entry

    def name(self, class_name: str, key: str, value: Any) -> str | None:
        """`value` as a name in one line; None, and a fault, where it is none."""
        where, what = f"{class_name}.{key}", None
        if not isinstance(value, str):
            what = "nothing" if value is None else _SHORT.repr(value)
        elif not clean_name(value):
            what = "an empty name"
        elif any(unicodedata.category(c) in ("Cc", "Cs") and not c.isspace() for c in value):
            what = f"control characters in {_SHORT.repr(value)}"
        if what is not None:
            self.refuse(where, f"{where}: found {what}; expected text")
            return None
        return " ".join(clean_name(value).split())

    def prompts(self, class_name: str, value: Any) -> list[str]:
        """`value` as names for prompts; a fault where it is no list, holds none or repeats one."""
        where = f"{class_name}.prompts"
        if not isinstance(value, list) or not value:
            found = "nothing" if value is None else _SHORT.repr(value)
            example = f"[{spoken_name(class_name)}, another name]"
            self.refuse(where, f"{where}: found {found}; expected a list, such as {example}")
            return []
        names = [name for each in value if (name := self.name(class_name, "prompts", each))]
        # A name given twice would weigh twice in the mean, which nobody says this way on purpose.
        for name in [name for name, count in Counter(names).items() if count > 1]:
            self.refuse(where, f"{where}: '{name}' stands there more than once")
        return names

    def parents(self, values: Mapping[Any, Any], class_names: Sequence[str]) -> dict[str, str]:
        """The parent of each class, and of each parent of one, that has one.

        Faults: a parent whose name is none, or a class's, and one that is its own ancestor. Those
        of entries that are neither class nor parent are left to who finds these unknown.
        """
        given: dict[str, tuple[str, Any]] = {}
        for key, entry in values.items():
            if isinstance(key, str) and isinstance(entry, dict) and "parent" in entry:
                given.setdefault(clean_name(key), (key, entry["parent"]))
        alike = {name_key(spoken_name(name)): name for name in class_names}
        found: dict[str, str] = {}
        open_names = [name for name in class_names if name in given]
        met = set(open_names)
        while open_names:
            name = open_names.pop()
            key, value = given[name]
            if (parent := self.name(key, "parent", value)) is None:
                continue
            where = f"{key}.parent"
            if fault := class_name_fault(parent):
                self.refuse(where, f"{where}: found {_SHORT.repr(value)}: {fault}")
            elif taken := alike.get(name_key(spoken_name(parent))):
                self.refuse(
                    where,
                    f"{where}: found '{parent}', which is the class '{taken}'; a parent is what "
                    "several classes are, and none itself: give it a name of its own",
                )
            else:
                found[name] = parent
                if parent in given and parent not in met:
                    met.add(parent)
                    open_names.append(parent)
        self._refuse_rings(found, {name: key for name, (key, _) in given.items()})
        return found

    def _refuse_rings(self, found: Mapping[str, str], keys: Mapping[str, str]) -> None:
        """No parent may be its own ancestor; a ring of several is told once."""
        rings: set[frozenset[str]] = set()
        for name in found:
            way = ancestors(name, found)
            if found.get((way or [name])[-1]) == name:
                ring = frozenset([name, *way])
                if ring not in rings:
                    where = f"{keys[name]}.parent"
                    round_it = " -> ".join([name, *way, name])
                    self.refuse(where, f"{where}: '{name}' is its own ancestor: {round_it}")
                rings.add(ring)

    def refuse_same(self, shown: Mapping[str, str]) -> None:
        """No two classes may be shown by one name."""
        for name, count in Counter(shown.values()).items():
            if count > 1:
                alike = [key for key in shown if shown[key] == name]
                line = next((key for key in alike if key in self.lines), "")
                self.refuse(
                    line, f"{', '.join(alike)} would all be shown as '{name}'; name them apart"
                )


def _unknown(key: Any, class_names: Sequence[str], parents: Sequence[str]) -> str:
    by_spoken = {spoken_name(name).casefold(): name for name in [*class_names, *parents]}
    near = difflib.get_close_matches(spoken_name(str(key)).casefold(), list(by_spoken), n=3)
    nearest = ", ".join(by_spoken[name] for name in near)
    hint = f"nearest: {nearest}" if near else f"classes: {named(class_names)}"
    what = "neither a class nor the parent of one:" if parents else "unknown class"
    return f"{what} {_SHORT.repr(key)} ({hint})"

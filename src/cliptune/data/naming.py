"""What classes are called: readable names, and those of `classes.yaml` in the data folder.

    # data/dogs/classes.yaml: every entry is optional
    golden_retriever:
      name: 金毛寻回犬                       # shown in reports and predictions
      prompts: [golden retriever, goldie]   # the names that fill the {} of prompts
    pug: 巴哥犬                              # short form: the name shown, nothing else

Without an entry a class is shown, and put into prompts, as its folder's readable name: "golden
retriever". A name shown never enters a prompt by itself: it may be in a language that the text
tower does not know. Everything in the file is text: a class called 007 or no needs no quotes.

Names that look alike to the last dot are one name: `clean_name` says how each is written.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import reprlib
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cliptune.config_source import Loader, read_mapping
from cliptune.errors import DataError, listing, named

log = logging.getLogger(__name__)

CLASSES_FILE = "classes.yaml"
KEYS = ("name", "prompts")
MOST_KEYS = 100_000  # in a file; ImageNet's 21,841 classes would take some 65,000
SYNSET = re.compile(r"^n\d{8}[-_]")  # the WordNet id before a folder's name in ImageNet's sets
# Names Windows keeps for devices; a class is a folder that should work there, too.
DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_TAGS = "".join(map(chr, range(0xE0020, 0xE0080)))  # they spell out a region after a flag
_JOINERS = "\u200c\u200d" + _TAGS  # what of category Cf may carry meaning
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 2  # aliases: a few lines may be a list of lists without end


def clean_name(name: str) -> str:
    """`name` of a class in its one spelling: composed (NFC), with plain spaces, nothing invisible.

    Spaces of other kinds (Unicode's category Z) become plain ones, and those at the ends go;
    format characters (Cf: U+200B, U+FEFF, marks of direction, …) go, save where they mean
    something: `_differs_by`. It may be empty afterwards. Case stays, and so do letters that merely
    resemble others. Cleaning twice changes nothing more.
    """
    if name.isascii():
        return name.strip()
    kinds = [(c, unicodedata.category(c)) for c in name]
    plain = ["" if k == "Cf" and c not in _JOINERS else " " if k[0] == "Z" else c for c, k in kinds]
    # Composed before joiners are looked at: an accent is then part of its letter, and no mark.
    whole = unicodedata.normalize("NFC", "".join(plain))
    kept = [c for i, c in enumerate(whole) if c not in _JOINERS or _differs_by(whole, i)]
    cleaned = unicodedata.normalize("NFC", "".join(kept)).strip()
    # What went may have stood between a letter and its accent.
    return cleaned if cleaned == name else clean_name(cleaned)


def _differs_by(name: str, place: int) -> bool:
    """Whether the joiner or tag at `place` changes what one reads, so that names differ by it.

    A zero width (non-)joiner does beside a mark (scripts of India, emoji), between two Arabic
    letters (Persian: می‌خواهم), and between two symbols (emoji of professions and families). Between
    other letters it shows nothing. Tags do after a symbol: the flags of England and Scotland.
    """
    before, after = name[:place], name[place + 1 :]
    if name[place] in _TAGS:
        return unicodedata.category(before.rstrip(_TAGS)[-1:] or " ") == "So"
    beside = [each for each in (before[-1:], after[:1]) if each]
    kinds = [unicodedata.category(each)[0] for each in beside]
    arabic = [unicodedata.bidirectional(each) == "AL" for each in beside]
    return "M" in kinds or kinds == ["S", "S"] or arabic == [True, True]


def spellings(names: Iterable[str], *, where: object) -> dict[str, list[str]]:
    """Clean name -> those of `names` that it stands for, both in the order in which they come.

    What cleaning did is told in the log, unless all it did was to compose letters of one spelling.
    """
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        found.setdefault(clean_name(name), []).append(name)
    told = []
    for clean, own in found.items():
        odd = [
            name
            for name in own
            if unicodedata.normalize("NFC", name).strip(string.whitespace) != clean
        ]
        told += [f"{name!r} is taken as '{clean}'" for name in odd]
        if len(own) > 1 and not odd:
            told.append(f"'{clean}' is written in {len(own)} ways that look the same: one class")
    if told:
        log.warning(
            "%s: class names, without invisible characters and with plain spaces:\n%s",
            where, listing(told),
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class GivenNames:
    """What a `classes.yaml` says beyond the defaults, by class name."""

    display: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, list[str]] = field(default_factory=dict)


def class_name_fault(name: str) -> str | None:
    """Why no class can be called `name`, or None: it is a folder's name on every system, and text.

    The one rule for all who name a class: prepare's sources, and classes added to a checkpoint.
    """
    if not name or name != name.strip():
        return "empty, or with spaces at an end"
    if any(unicodedata.category(c) == "Cs" for c in name):  # how Python reads such a folder's name
        return "no text, but bytes of another encoding than UTF-8"
    if bad := sorted({c for c in name if c in '/\\:*?"<>|' or _unseen(c)}):
        return f"holds {' '.join(map(ascii, bad))}"
    if name.startswith(".") or name.endswith("."):
        return "a full stop at an end"
    if DEVICES.match(name):
        return "the name of a device on Windows"
    if len(name.encode()) > 200:
        return "longer than 200 bytes"
    return None


def _unseen(character: str) -> bool:
    """Whether nobody can see it in a name: a control, a space that is no " ", a mark of format.

    Joiners and tags may stay: they change how letters and emoji beside them look.
    """
    kind = unicodedata.category(character)
    if kind == "Cf":
        return character not in "\u200c\u200d" and not "\U000e0020" <= character <= "\U000e007f"
    return kind == "Cc" or (kind[0] == "Z" and character != " ")


def name_key(name: str) -> str:
    """Equal for names that some file systems take for one."""
    return unicodedata.normalize("NFC", name).casefold()


def spoken_name(class_name: str) -> str:
    """A class name as one would say it: "golden retriever" for "n02099601-golden_retriever"."""
    name = SYNSET.sub("", class_name)
    return " ".join(name.replace("_", " ").replace("-", " ").split()) or class_name


def display_names(class_names: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Class name -> the name shown: the `given` one, or else the readable one.

    Classes whose readable names are alike ("n02110958-pug" and "pug") are shown by class name.
    """
    readable = {name: spoken_name(name) for name in class_names}
    counts = Counter(readable.values())
    return {
        name: given.get(name) or (spoken if counts[spoken] == 1 else name)
        for name, spoken in readable.items()
    }


def names_in_prompts(
    class_names: Sequence[str], given: Mapping[str, Sequence[str]]
) -> list[Sequence[str]]:
    """For each class the names that fill the {} of prompts: those `given`, or the readable one."""
    return [given.get(name) or [spoken_name(name)] for name in class_names]


def read_names(data_dir: Path, class_names: Sequence[str]) -> GivenNames:
    """What `data_dir/classes.yaml` says of `class_names`; nothing where there is no such file.

    Names that are the default are left out. Raises `DataError` listing every fault of the file:
    an unknown class or key, a value of the wrong type, an empty name, two classes shown alike, a
    key written twice; or the one that keeps it from being read.
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
    known = set(class_names)
    own_key: dict[str, str] = {}  # clean name -> the key as it is written in the file
    display: dict[str, str] = {}
    prompts: dict[str, list[str]] = {}
    for key, entry in values.items():
        class_name = clean_name(key) if isinstance(key, str) else key
        if class_name not in known:
            entries.refuse(str(key), _unknown(key, class_names))
            continue
        if own_key.setdefault(class_name, key) != key:
            twice = f"{own_key[class_name]!a} and {key!a}"
            entries.refuse(key, f"written twice: {twice} are one class, '{class_name}'")
            continue
        parts = {"name": entry} if isinstance(entry, str) else entries.parts(key, entry)
        if "name" in parts and (name := entries.name(key, "name", parts["name"])):
            display[class_name] = name
        if "prompts" in parts and (names := entries.prompts(key, parts["prompts"])):
            prompts[class_name] = names
    entries.refuse_same(display_names(class_names, display))
    if entries.faults:
        raise DataError(_together(path, entries.faults))
    default = display_names(class_names, {})
    return GivenNames(
        display={key: name for key, name in display.items() if name != default[key]},
        prompts={key: names for key, names in prompts.items() if names != [spoken_name(key)]},
    )


def entries_of(folder: Path, *, known: Sequence[str], chosen: Sequence[str]) -> str | None:
    """`folder/classes.yaml` for those `chosen` of its `known` classes, as YAML; None without one.

    The text is the file's own where all classes are chosen; else entries of the others, and
    comments, are left out. Raises `DataError` as `read_names` does.
    """
    if not os.path.lexists(folder / CLASSES_FILE):
        return None
    given = read_names(folder, known)
    if set(known) == set(chosen):
        return (folder / CLASSES_FILE).read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = {}
    for name in chosen:
        if name in given.display:
            entries.setdefault(name, {})["name"] = given.display[name]
        if name in given.prompts:
            entries.setdefault(name, {})["prompts"] = given.prompts[name]
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
                "and 'prompts:' under the class",
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

    def refuse_same(self, shown: Mapping[str, str]) -> None:
        """No two classes may be shown by one name."""
        for name, count in Counter(shown.values()).items():
            if count > 1:
                alike = [key for key in shown if shown[key] == name]
                line = next((key for key in alike if key in self.lines), "")
                self.refuse(
                    line, f"{', '.join(alike)} would all be shown as '{name}'; name them apart"
                )


def _unknown(key: Any, class_names: Sequence[str]) -> str:
    by_spoken = {spoken_name(name).casefold(): name for name in class_names}
    near = difflib.get_close_matches(spoken_name(str(key)).casefold(), list(by_spoken), n=3)
    nearest = ", ".join(by_spoken[name] for name in near)
    hint = f"nearest: {nearest}" if near else f"classes: {named(class_names)}"
    return f"unknown class {_SHORT.repr(key)} ({hint})"


def _together(path: Path, faults: list[str]) -> str:
    if len(faults) == 1:
        return f"{faults[0]}."
    return f"{path}: {len(faults)} faults:\n{listing(faults, limit=50)}"

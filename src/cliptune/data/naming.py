"""What classes are called: names in one spelling, what may be one, and how they are said.

Without an entry in `classes.yaml` a class is shown, and put into prompts, as its folder's readable
name: "golden retriever". A name shown never enters a prompt by itself: it may be in a language that
the text tower does not know. Names that look alike to the last dot are one name: `clean_name` says
how each is written.
"""

from __future__ import annotations

import logging
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cliptune.errors import listing

log = logging.getLogger(__name__)


SYNSET = re.compile(r"^n\d{8}[-_]")  # the WordNet id before a folder's name in ImageNet's sets
# Names Windows keeps for devices; a class is a folder that should work there, too.
DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_TAGS = "".join(map(chr, range(0xE0020, 0xE0080)))  # they spell out a region after a flag
_JOINERS = "\u200c\u200d" + _TAGS  # what of category Cf may carry meaning


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

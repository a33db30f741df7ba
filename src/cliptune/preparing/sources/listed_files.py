"""Files by the names that lists give them: web-encoded, without ending, in other letters."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from cliptune.language import said
from cliptune.preparing.sources.archive import is_photo

_MOST_FOLDERS = 1000  # to look through for photos that are not where a list says


class PhotoFolder:
    """A folder below which a list names photos; remembers which were found by other names."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._names: dict[Path, dict[str, list[str]]] = {}
        self._renamed: list[tuple[str, str]] = []
        self._missing: PurePosixPath | None = None

    def find(self, written: str) -> Path | str:
        """The file called `written`, links in the folders above it followed; or what is wrong."""
        slashes = written.removeprefix("file://").replace("\\", "/")
        texts = (slashes, unquote(slashes))  # as they stand, and as macOS and others spell letters
        spelt = [unicodedata.normalize(form, text) for text in texts for form in ("NFC", "NFD")]
        places = []
        # Last with its own backslashes: archives packed with such leave them in file names.
        for text in dict.fromkeys((*texts, *spelt, written)):
            if "\0" in text:
                return "a path with a zero byte"
            path = self.base / text
            # Where its name leads: not the photo's own, if that is a link.
            place = path.parent.resolve() / path.name
            if path.name in ("", "..") or not place.is_relative_to(self.base):
                return f"{written} leads out of {self.base}"
            if path.is_file():
                return place
            places.append(place)
        return self._by_other_ending(written, places)

    def _by_other_ending(self, written: str, places: Sequence[Path]) -> Path | str:
        for place in places:
            match self._names_in(place.parent).get(_without_case_of_ending(place.name), []):
                case [name]:
                    self._renamed.append((written, name))
                    return place.with_name(name)
                case [_, *_] as names:
                    return f"{written} could be {' or '.join(names)}"
        self._missing = self._missing or PurePosixPath(written.replace("\\", "/"))
        return f"{written}: no such file"

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        """Name without ending, and with it in small letters -> the photos it may mean."""
        if folder not in self._names:
            names = self._names[folder] = defaultdict(list)
            for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
                if is_photo(PurePosixPath(entry.name)):
                    names[unicodedata.normalize("NFC", entry.stem)].append(entry.name)
                    names[_without_case_of_ending(entry.name)].append(entry.name)
        return self._names[folder]

    def notes(self) -> tuple[str, ...]:
        """What to say of photos that were found by another name than the list's."""
        if not self._renamed:
            return ()
        written, name = self._renamed[0]
        count = len(self._renamed)
        return (
            said(
                "{count:,} line names its photo without ending, or with it in other letters: "
                "'{name}' is taken for '{written}'."
                if count == 1
                else "{count:,} lines name their photos without ending, or with it in other "
                "letters: '{name}' is taken for '{written}'.",
                count=count, name=name, written=written,
            ),
        )  # fmt: skip

    def hint(self) -> str:
        """Which folder the list's first missing photo is below, or nothing."""
        if self._missing is None:
            return ""
        *above, name = self._missing.parts
        wanted = _without_case_of_ending(name)
        for root, _, files in islice(os.walk(self.base), _MOST_FOLDERS):
            folder = Path(root)
            start = Path(*folder.parts[: len(folder.parts) - len(above)])
            if folder != start.joinpath(*above):
                continue
            for name in files:
                photo = is_photo(PurePosixPath(name))
                if photo and wanted in (PurePosixPath(name).stem, _without_case_of_ending(name)):
                    return f" {name} lies in {folder}: try --root {start}."
        return ""


def _without_case_of_ending(name: str) -> str:
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    return path.stem + path.suffix.lower()

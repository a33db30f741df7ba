"""Find the texts that people read, and bring the catalogues up to date: `make catalogues`.

Each text of the code, the pages and `--help` gets its place in `locale/zh/LC_MESSAGES/*.po`, those
that are gone lose it, and the `.mo` that gettext reads are compiled. Needs Babel.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import typer
from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from cliptune.checking.findings import KINDS
from cliptune.cli import app
from cliptune.commands.helping import places
from cliptune.files import whole_file
from cliptune.language import CATALOGUES, COUNTED, FOLDER

PACKAGE = FOLDER.parent
TRANSLATIONS = ("zh",)
HEADER = """# Texts of cliptune. `make catalogues` finds and compiles them; see README.md.
msgid ""
msgstr ""
"Language: {language}\\n"
"Content-Type: text/plain; charset=utf-8\\n"

"""
# As `cliptune.html` looks texts up: in one line, "%" written as "%%".
JINJA = {"trimmed": "true", "newstyle_gettext": "true"}
# Functions of `cliptune.language` that are given texts: which of their arguments that is, and the
# key it is looked up by.
KEYWORDS = {
    "translated": (0, "{what}"), "marked": (0, "{what}"), "said": (0, "{what}"),
    "joined": (1, "{what}"), "amount": (1, COUNTED), "counting": (1, COUNTED),
}  # fmt: skip
# Catalogue and method of a file: those of the first pattern that fits.
SOURCES = (
    ("pages", "pages/*.html", "jinja2"),
    ("pages", "html.py", "python"),
    ("pages", "**/*page*.py", "python"),
    ("screen", "**/*.py", "python"),
)


def texts(catalogue: str) -> Catalog:
    """The template of a catalogue: every text that belongs in it, and the file it stands in."""
    found = Catalog(domain=catalogue)
    for path, method in sorted(sources()[catalogue].items()):
        for text in texts_of(path, method):
            found.add(text, locations=[(path.relative_to(PACKAGE).as_posix(), 1)])
    if catalogue == "screen":
        for place, held in (("--help", help_texts()), ("checking/findings.py", kinds_texts())):
            for text in held:
                found.add(text, locations=[(place, 1)])
    return found


def sources() -> dict[str, dict[Path, str]]:
    """For each catalogue its files, and the method by which their texts are found."""
    found: dict[str, dict[Path, str]] = {name: {} for name in CATALOGUES}
    taken: set[Path] = set()
    for catalogue, pattern, method in SOURCES:
        new = {path: method for path in PACKAGE.glob(pattern) if path not in taken}
        found[catalogue] |= new
        taken |= new.keys()
    return found


def texts_of(path: Path, method: str) -> Iterator[str]:
    """The texts of one file."""
    if method == "python":
        yield from python_texts(path.read_text(encoding="utf-8"))
        return
    for _, text, *_ in extract(method, io.BytesIO(path.read_bytes()), options=JINJA):
        yield text if isinstance(text, str) else text[0]  # Chinese has no plural


def python_texts(code: str) -> Iterator[str]:
    """The texts given to functions of `cliptune.language`, those inside f-strings too."""
    tree = ast.parse(code)
    names = {  # that these functions have here
        alias.asname or alias.name: KEYWORDS[alias.name]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "cliptune.language"
        for alias in node.names
        if alias.name in KEYWORDS
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            place, key = names[node.func.id]
            for argument in node.args[place : place + 1]:
                yield from (key.format(what=text) for text in _constants(argument))


def _constants(node: ast.expr) -> Iterator[str]:
    """The texts that `node` may be: one, or one of two."""
    if isinstance(node, ast.IfExp):
        yield from (*_constants(node.body), *_constants(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def help_texts() -> list[str]:
    """Every text of `--help`, of all commands."""
    command = typer.main.get_command(app)
    context = command.make_context("cliptune", [], resilient_parsing=True)
    return list(dict.fromkeys(place.text for place in places(command, context) if place.text))


def kinds_texts() -> list[str]:
    """What is said of every kind of finding."""
    return [text for kind in KINDS.values() for text in (kind.title, kind.remedy)]


def updated(catalogue: str, language: str) -> Catalog:
    """The texts that are there now, with the translations that are on the disk."""
    known = Catalog(locale=language)
    for path in (po_file(name, language) for name in CATALOGUES):  # a text may have moved
        if path.exists():
            with path.open("rb") as file:
                for old in read_po(file, locale=language):
                    if old.id and old.string:
                        known[old.id] = old
    found = Catalog(locale=language, creation_date=datetime.fromtimestamp(0, UTC), fuzzy=False)
    for text in texts(catalogue):
        if text.id:
            old = known.get(text.id)
            found.add(text.id, old.string if old else "", text.locations,
                      user_comments=old.user_comments if old else ())  # fmt: skip
    return found


def po_file(catalogue: str, language: str) -> Path:
    """Where translators write."""
    return FOLDER / language / "LC_MESSAGES" / f"{catalogue}.po"


def main() -> None:
    for language in TRANSLATIONS:
        for catalogue in CATALOGUES:
            path = po_file(catalogue, language)
            path.parent.mkdir(parents=True, exist_ok=True)
            found = updated(catalogue, language)
            for message in found:
                message.flags -= {"python-format", "python-brace-format"}  # "95 % intervals"
            with whole_file(path) as partial, partial.open("wb") as file:
                file.write(HEADER.format(language=language).encode())
                write_po(file, found, width=100, omit_header=True, include_lineno=False,
                         sort_by_file=True)  # fmt: skip
            with whole_file(path.with_suffix(".mo")) as partial, partial.open("wb") as file:
                write_mo(file, found)
            lacking = [message.id for message in found if message.id and not message.string]
            print(f"{path.name}, {language}: {len(found)} texts, {len(lacking)} not translated")
            for text in lacking:
                print(f"  {str(text)[:90]!r}")


if __name__ == "__main__":
    main()

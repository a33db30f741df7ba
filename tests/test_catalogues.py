"""No text that people read lacks its translation."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from types import ModuleType

import pytest

import cliptune
from cliptune.language import (
    CATALOGUES,
    FOLDER,
)

ROOT = Path(__file__).parents[1]
PACKAGE = Path(cliptune.__file__).parent
# Modules that hold little but what people read.
PROSE = [
    *PACKAGE.rglob("*text.py"),
    *(PACKAGE / "commands").glob("*.py"),
    *(PACKAGE / name for name in (
        "evaluation/families.py", "evaluation/heading.py", "evaluation/seen.py",
        "evaluation/sets.py", "preparing/report.py", "checking/report.py",
    )),
]  # fmt: skip
# What is given to these is translated, or help, which is found otherwise, or an English message.
GIVEN = {"_", "said", "marked", "amount", "counting", "joined", "Option", "Argument", "UserError",
         "folder_here"}  # fmt: skip


@pytest.fixture(scope="module")
def catalogues() -> ModuleType:
    """The tool that finds texts: release/catalogues.py."""
    pytest.importorskip("babel", reason="of the extra dev")
    found = importlib.util.spec_from_file_location("catalogues", ROOT / "release/catalogues.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_text_found_in_the_code_stands_translated_in_its_catalogue(
    name: str, catalogues: ModuleType
) -> None:
    known = {message.id: message.string for message in read_po(name)}
    found = {message.id for message in catalogues.texts(name) if message.id}
    assert found - known.keys() == set(), "make catalogues, and translate what it names"
    assert known.keys() - found == set(), "make catalogues: it takes out what is gone"
    assert [text for text, shown in known.items() if not shown] == []


@pytest.mark.parametrize("name", CATALOGUES)
def test_a_translation_is_not_the_english_again(name: str, catalogues: ModuleType) -> None:
    same = [message.id for message in read_po(name) if message.id == message.string]
    assert [text for text in same if re.search(r"[a-z]{4}", text)] == []


@pytest.mark.parametrize("name", CATALOGUES)
def test_a_translation_holds_what_its_english_is_filled_with(
    name: str, catalogues: ModuleType
) -> None:
    for message in read_po(name):
        assert fields(message.string) == fields(message.id), message.id


@pytest.mark.parametrize("name", CATALOGUES)
def test_the_compiled_catalogue_is_that_which_people_write(
    name: str, catalogues: ModuleType
) -> None:
    from babel.messages.mofile import read_mo

    with (FOLDER / "zh" / "LC_MESSAGES" / f"{name}.mo").open("rb") as file:
        compiled = {message.id: message.string for message in read_mo(file) if message.id}
    assert compiled == {message.id: message.string for message in read_po(name)}


def test_a_text_in_two_catalogues_is_translated_alike(catalogues: ModuleType) -> None:
    first, second = ({m.id: m.string for m in read_po(name)} for name in CATALOGUES)
    both = first.keys() & second.keys()
    assert {text: first[text] for text in both} == {text: second[text] for text in both}


def read_po(name: str) -> list[ModuleType]:
    from babel.messages.pofile import read_po as read

    with (FOLDER / "zh" / "LC_MESSAGES" / f"{name}.po").open("rb") as file:
        return [message for message in read(file, locale="zh") if message.id]


def fields(text: str) -> set[tuple[str, str | None]]:
    """What stands in braces, and how it is written; and %(name)s of pages."""
    named = {(name, None) for name in re.findall(r"%\((\w+)\)s", text)}
    try:
        braced = {(field, spec) for _, field, spec, _ in Formatter().parse(text) if field}
    except ValueError:  # braces of a page's own
        braced = set()
    return named | braced


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("from cliptune.language import translated as _\n_('a b')", ["a b"]),
        ("from cliptune.language import translated as _\nf'{_(\"in f\")}'", ["in f"]),
        ("from cliptune.language import said\nsaid('x' if y else 'z', n=1)", ["x", "z"]),
        ("from cliptune.language import amount\namount(3, 'photo')", ["{number:,} photo"]),
        ("def _(text): ...\n_('nothing of ours')", []),
    ],
)
def test_texts_are_found_wherever_they_stand(
    code: str, texts: list[str], catalogues: ModuleType
) -> None:
    assert sorted(catalogues.python_texts(code)) == texts


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_where_people_are_spoken_to_no_sentence_bypasses_the_catalogue(path: Path) -> None:
    assert bare_sentences(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_a_sentence_that_bypasses_the_catalogue_is_found() -> None:
    code = 'print(_("this one is well"), f"{this} is not so")'
    assert bare_sentences(ast.parse(code)) == [" is not so"]


def bare_sentences(tree: ast.Module) -> list[str]:
    """Literals of several words that no function of `cliptune.language` is given."""
    given: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.Assert) or is_document(node) or (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) in GIVEN
        ):  # fmt: skip
            given |= {id(each) for each in ast.walk(node)}
        if isinstance(node, ast.Call) and any(
            keyword.arg == "file" and ast.unparse(keyword.value) == "sys.stderr"
            for keyword in node.keywords
        ):
            given |= {id(each) for each in ast.walk(node)}  # errors stay English
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and id(node) not in given and re.search(r"[a-z]{2,} [a-z]{2,}", node.value)
    ]  # fmt: skip


def is_document(node: ast.AST) -> bool:
    """Whether the statement is a docstring, which nobody is shown."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_the_glossary_names_the_terms_that_are_used(catalogues: ModuleType) -> None:
    rows = list(glossary())
    assert len(rows) > 30
    everything = "\n".join(message.string for name in CATALOGUES for message in read_po(name))
    assert [chinese for chinese in rows if chinese not in everything] == []


def glossary() -> Iterator[str]:
    """The Chinese of each row of the table of terms."""
    for line in (FOLDER / "zh" / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "English":
            yield cells[1]

"""The documents as tests read them: their files, links, headings and blocks of code."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"
DOCUMENTS = sorted(
    path
    for pattern in (
        "README*.md",
        "docs/**/*.md",
        "benchmarks/results.md",
        "benchmarks/results/*.md",
    )
    for path in ROOT.glob(pattern)
)


class Block(NamedTuple):
    """A block of code, with the line at which it opens and its language."""

    path: Path
    line: int
    language: str
    text: str


def site_module(name: str) -> ModuleType:
    """A module of docs/site, which is no package."""
    spec = importlib.util.spec_from_file_location(name, SITE / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tokens(path: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))


def inline(path: Path) -> Iterator[Token]:
    """The parts of running text: text, code, links, pictures."""
    for token in tokens(path):
        yield from token.children or ()


def blocks(path: Path) -> Iterator[Block]:
    for token in tokens(path):
        if token.type == "fence":
            assert token.map
            yield Block(path, token.map[0] + 1, token.info.split(" ")[0], token.content)


def links(path: Path) -> Iterator[str]:
    """Where the links and pictures of a document lead, those to other sites left out."""
    for token in inline(path):
        target = token.attrGet("href") or token.attrGet("src")
        if target and not re.match(r"[a-z]+:", str(target)):
            yield str(target)


def anchors(path: Path) -> set[str]:
    """What links within a document may name: its headings, as GitHub and the site write them."""
    found = set()
    parts = tokens(path)
    for opening, content in pairwise(parts):
        if opening.type == "heading_open":
            words = "".join(
                token.content
                for token in content.children or ()
                if token.type in ("text", "code_inline")
            )
            found.add(re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-"))
    return found


def code_spans(path: Path) -> set[str]:
    return {token.content for token in inline(path) if token.type == "code_inline"}

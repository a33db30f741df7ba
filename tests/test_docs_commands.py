"""What the documents tell readers to type is what the program takes.

Commands in blocks marked `bash` are parsed by the program itself, without being run; a block that
is not meant to be typed is marked `text`.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

import cliptune
from cliptune.cli import app
from cliptune.config import TEXT_KEYS, load_settings
from cliptune.config_source import parse_override
from documents import DOCUMENTS, ROOT, Block, blocks, inline

PROGRAM = typer.main.get_command(app)
COMMANDS = PROGRAM.commands  # type: ignore[attr-defined]
TYPED = ("bash", "sh", "console")
MESSAGES = {"cliptune writes no such adapter"}  # what it says, and not what is typed
ENDS = {"|", "||", "&&", ";", ">", "2>", "<", "&"}


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each call of cliptune in a block, without its name: ["train", "--config", …]."""
    text = block.text.replace("\\\n", " ")
    if (
        block.language == "console"
    ):  # what is typed stands behind a prompt, what is printed does not
        text = "\n".join(re.findall(r"^\$ (.*)$", text, re.MULTILINE))
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        for at, word in enumerate(words):
            module = word == "cliptune" and words[at - 1 : at] == ["-m"]
            first = at == 0 or words[at - 1] in ENDS or "=" in words[at - 1]
            if word.rsplit("/", 1)[-1] == "cliptune" and (module or first):
                rest = [each for each in words[at + 1 :] if each != "…"]  # the reader's own options
                end = next((i for i, each in enumerate(rest) if each in ENDS), len(rest))
                yield rest[:end]


def faults(words: list[str]) -> list[str]:
    """What is wrong with a call of cliptune, by the program's own parser and settings."""
    if not words or words[0].startswith("-"):
        known = {option for each in PROGRAM.params for option in each.opts} | {"--help"}
        return [word for word in words if word not in known]
    if words[0] not in COMMANDS:
        return [f"no command {words[0]!r}"]
    if "--help" in words:
        return []
    command = COMMANDS[words[0]]
    try:
        context = command.make_context(words[0], words[1:], parent=PROGRAM.context_class(PROGRAM))
    except Exception as error:  # the parser's own class has moved between versions of typer
        return [f"{words}: {getattr(error, 'message', error)}"]
    try:
        load_settings(
            overrides=dict(
                parse_override(text, as_written=TEXT_KEYS)
                for text in context.params.get("set_") or ()
            )
        )
    except cliptune.UserError as error:
        return [str(error)]
    return []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_in_a_block_is_one_that_the_program_takes(path: Path) -> None:
    found = [
        f"line {block.line}: {fault}"
        for block in blocks(path)
        if block.language in TYPED
        for words in commands(block)
        for fault in faults(words)
    ]
    assert found == []


def test_commands_are_found_and_wrong_ones_told() -> None:
    block = Block(
        ROOT, 1, "bash", "X=1 cliptune check A --undo | tee b\nfoo cliptune x  # cliptune y\n"
    )
    assert [*commands(block)] == [["check", "A", "--undo"]]
    session = Block(ROOT, 1, "console", "$ cliptune \\\n    check A\nit isn't\ncliptune x\n")
    assert [*commands(session)] == [["check", "A"]]
    typed = [block for path in DOCUMENTS for block in blocks(path) if block.language in TYPED]
    assert sum(len([*commands(block)]) for block in typed) > 100
    for wrong in (
        ["fly"],
        ["train", "--no-such"],
        ["predict", "--image"],
        ["export"],
        ["train", "--set", "lora.rank=4"],
    ):
        assert faults(wrong), wrong


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_in_running_text_exists_with_its_options(path: Path) -> None:
    wrong = []
    for token in inline(path):
        words = token.content.split() if token.type == "code_inline" else []
        if len(words) < 2 or words[0] != "cliptune" or not re.fullmatch(r"[a-z-]+", words[1]):
            continue
        if token.content in MESSAGES:
            continue
        if words[1].startswith("--"):
            wrong += faults(words[1:])
            continue
        if words[1] not in COMMANDS:
            wrong.append(token.content)
            continue
        known = {
            o for each in COMMANDS[words[1]].params for o in (*each.opts, *each.secondary_opts)
        }
        options = re.findall(r"(?<!\S)--[a-z][\w-]*", token.content)
        wrong += [f"{token.content}: {option}" for option in options if option not in known]
    assert wrong == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_in_the_documents_compiles_and_imports_public_names(path: Path) -> None:
    for block in blocks(path):
        if block.language != "python":
            continue
        tree = ast.parse(block.text, filename=f"{path.name}:{block.line}")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "cliptune":
                for name in (alias.name for alias in node.names):
                    assert name in cliptune.__all__ or find_spec(f"cliptune.{name}"), name

"""What `--help` says of every command, from the typer app itself."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO

import typer

from cliptune.cli import app as command_line


def as_markdown() -> str:
    """A heading, the usage, a table of options and the examples of each command."""
    top = typer.main.get_command(command_line)
    lines: list[str] = []
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        context = command.context_class(command, info_name=f"cliptune {name}")
        with redirect_stdout(StringIO()):
            command.get_help(context)  # puts the texts of the reader's language in place
        usage = " ".join([context.info_name, *command.collect_usage_pieces(context)])
        lines += ["", f"## `cliptune {name}`", "", _plain(command.help or ""), ""]
        lines += ["```text", usage, "```", "", "| | |", "|---|---|"]
        for parameter in command.params:
            record = parameter.get_help_record(context)
            if record is not None:
                lines += [f"| `{record[0]}` | {_plain(record[1])} |"]
        lines += ["", "```text", *_examples(command.epilog or ""), "```", ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """`text` of a help page, where nothing but marks of code is markup."""
    text = " ".join(text.replace("\b", "").replace(r"\[", "[").split())
    for mark in "|*<{":
        text = text.replace(mark, "\\" + mark)
    return text


def _examples(epilog: str) -> list[str]:
    return [line.strip() for line in epilog.split("\n\n")]

"""`--help` in the reader's language: the texts of the commands, translated when they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from typer.core import TyperCommand, TyperGroup

from cliptune.language import language, marked
from cliptune.language import translated as _

# What typer itself says.
FIXED = ("ARGUMENTS_PANEL_TITLE", "OPTIONS_PANEL_TITLE", "COMMANDS_PANEL_TITLE", "DEFAULT_STRING",
         "ENVVAR_STRING", "REQUIRED_LONG_STRING")  # fmt: skip
USAGE = marked("Usage: ")


class Place(NamedTuple):
    """An attribute that holds a text of the help."""

    owner: Any
    name: str

    @property
    def text(self) -> str:
        """What is there now."""
        return str(getattr(self.owner, self.name) or "")


def places(command: Any, context: Any) -> Iterator[Place]:
    """Every text of the help of `command`, and of the commands below it."""
    from typer import rich_utils  # rich takes its time, and is for help alone

    yield from (Place(command, name) for name in ("help", "short_help", "epilog"))
    yield from (Place(param, "help") for param in command.get_params(context))
    yield from (Place(rich_utils, name) for name in FIXED)
    for each in getattr(command, "commands", {}).values():
        yield from places(each, context)


def _translate(command: Any, context: Any) -> None:
    """Put the texts of the reader's language in place, if that is not English."""
    if language() == "en":
        return
    from cliptune.commands.wide_help import break_anywhere

    break_anywhere()
    for place in places(command, context):
        if place.text:
            setattr(place.owner, place.name, _(place.text))

    class Formatter(context.formatter_class):  # type: ignore[misc]
        def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
            super().write_usage(prog, args, prefix or _(USAGE))

    context.formatter_class = Formatter


class Command(TyperCommand):
    """A command whose help is in the reader's language."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _translate(self, ctx)
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    """The commands, whose help is in the reader's language."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _translate(self, ctx)
        super().format_help(ctx, formatter)

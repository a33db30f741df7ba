"""Made from the program: `{settings-reference}`, `{commands-reference}`, `{api-reference}`."""

from __future__ import annotations

import inspect
import os
from typing import Any

import command_tables
import settings_tables
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import cliptune


def described() -> str:
    """What autodoc is to show of each name in `cliptune.__all__`: functions, classes, errors."""
    public = {name: getattr(cliptune, name) for name in cliptune.__all__ if name != "__version__"}
    functions = [name for name, each in public.items() if inspect.isfunction(each)]
    classes = [name for name in public if name not in functions]
    lines: list[str] = []
    for name in functions:
        lines += [f".. autofunction:: cliptune.{name}", ""]
    for name in classes:
        kind = "autoexception" if issubclass(public[name], Exception) else "autoclass"
        lines += [f".. {kind}:: cliptune.{name}", "   :members:", "   :show-inheritance:"]
        if name == "Settings":  # its sections have a page of their own
            lines += ["   :exclude-members: model_config, model_post_init"]
        lines += [""]
    return "\n".join(lines)


class SettingsReference(SphinxDirective):
    """Every setting, in the language of the site."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(settings_tables.COMMENTED))
        text = settings_tables.as_markdown(os.environ["CLIPTUNE_DOCS_LANGUAGE"])
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class CommandsReference(SphinxDirective):
    """Every command with its options and examples."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(command_tables.as_markdown(), allow_section_headings=True)


class ApiReference(SphinxDirective):
    """Every public name of `cliptune`, from its docstring and annotations."""

    def run(self) -> list[nodes.Node]:
        text = f"```{{eval-rst}}\n{described()}\n```"
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("settings-reference", SettingsReference)
    app.add_directive("commands-reference", CommandsReference)
    app.add_directive("api-reference", ApiReference)
    return {"parallel_read_safe": True}

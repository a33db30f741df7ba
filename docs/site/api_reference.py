"""`{api-reference}`: every public name of `cliptune`, from its docstring and annotations."""

from __future__ import annotations

import inspect
from typing import Any

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


class ApiReference(SphinxDirective):
    """Stands where the reference is to be."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(
            f"```{{eval-rst}}\n{described()}\n```", allow_section_headings=True
        )


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("api-reference", ApiReference)
    return {"parallel_read_safe": True}

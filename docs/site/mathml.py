"""Formulas as MathML, which browsers draw themselves: no script, no font from elsewhere.

docutils, which Sphinx stands on, turns TeX into MathML.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

# What pages write and docutils knows by another name.
_OTHER_NAMES = {r"\dots": r"\ldots", r"\lt": "<"}


def _mathml(tex: str, *, as_block: bool = False) -> str:
    for name, other in _OTHER_NAMES.items():
        tex = re.sub(re.escape(name) + r"(?![A-Za-z])", lambda _, other=other: other, tex)
    return str(tex2mathml(tex, as_block=as_block))


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(_mathml(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{_mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_inline, None), block_renderers=(_block, None)
    )
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True}

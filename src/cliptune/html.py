"""Pages for people: one self-contained HTML file each, without scripts or pictures from elsewhere.

Templates lie in `cliptune/pages/`. Whatever is put into one is escaped by Jinja2.
"""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

_QUALITY = 80  # of the JPEGs inside


def render(template: str, **values: Any) -> str:
    """The page `template` (a file name in `cliptune/pages/`) filled with `values`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from cliptune.text import counted, one_line

    environment = Environment(
        loader=PackageLoader("cliptune", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # File names of another encoding hold characters that no UTF-8 file can.
    environment.filters["name"] = lambda text: one_line(str(text))
    environment.filters["thousands"] = lambda number: f"{number:,}"
    environment.filters["counted"] = counted
    return environment.get_template(template).render(**values)


def picture(image: Image.Image, *, edge: int) -> str:
    """A data URI: `image` (RGB) as a JPEG whose longer edge has at most `edge` pixels."""
    small = image.copy()
    small.thumbnail((edge, edge))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")

"""The notebooks as they are committed; `make notebooks` runs them."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 300_000  # bytes
# Folders that are one machine's, and addresses of objects in its memory.
OF_A_MACHINE = re.compile(r"/(?:home|root|Users|tmp|work|opt|usr|var)/|[A-Z]:\\\\|\b0x[0-9a-f]{6,}")
# Where hosted notebooks have a user's files; named in a comment for who fills in a folder.
HOSTED = "/content/my_photos"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def test_there_are_two_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS] == [
        "first-steps.ipynb", "your-photos-to-a-server.ipynb",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_of_the_format_that_every_host_opens(path: Path) -> None:
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", each) for each in ids)
    for cell in notebook["cells"]:
        wanted = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            wanted |= {"execution_count", "outputs"}
        assert cell.keys() == wanted
        assert cell["metadata"] == {}  # no times, no states of somebody's editor


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_ran_in_its_turn_and_none_failed(path: Path) -> None:
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {
        "display_data", "execute_result", "stream",
    }  # fmt: skip
    # Warnings of libraries go there, and would be all that a newcomer sees.
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_line_tells_of_the_machine_that_it_ran_on(path: Path) -> None:
    told = [line for cell in code_cells(path) for line in [*cell["source"], *texts(cell)]]
    assert len(told) > 50
    assert [x for x in told if OF_A_MACHINE.search(x.replace(HOSTED, ""))] == []


def texts(cell: dict[str, Any]) -> list[str]:
    """The lines of all that a cell printed."""
    found = []
    for output in cell["outputs"]:
        found += output.get("text", [])
        for kind, data in output.get("data", {}).items():
            found += [] if kind.startswith("image/") else data
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_code_installs_what_is_not_there_and_all_code_can_be_read(path: Path) -> None:
    cells = ["".join(cell["source"]) for cell in code_cells(path)]
    assert re.search(r"^    %pip install -q .*cliptune", cells[0], re.MULTILINE)
    assert "find_spec" in cells[0]
    for source in cells:
        ast.parse(re.sub(r"^(\s*)%pip .*$", r"\1pass", source, flags=re.MULTILINE))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small(path: Path) -> None:
    assert path.stat().st_size < LARGEST


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_heading_has_a_line_in_chinese(path: Path) -> None:
    cells = ["".join(c["source"]) for c in read(path)["cells"] if c["cell_type"] == "markdown"]
    parts = [part for cell in cells for part in re.split(r"^(?=#+ )", cell, flags=re.MULTILINE)]
    titled = [part for part in parts if part.startswith("#")]
    assert len(titled) > 4
    assert [part for part in titled if not re.search(r"[\u4e00-\u9fff]{4}", part)] == []

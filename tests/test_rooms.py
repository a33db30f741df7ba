"""The order of the rooms: imports run down, never up, never in a circle.

All imports of `cliptune` by `cliptune` count, wherever they stand: one inside a function only puts
the same knowledge off to a later hour, and one for type checkers alone still knows the name. The
package's own door, `cliptune/__init__.py`, knows every room so that its names can be had from it;
it stands on the highest floor, and nothing below may import it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import cliptune

Import = tuple[str, str]  # who imports, what; both without the leading "cliptune."

# From the ground up. A room may import from itself and from floors below; rooms on one floor do
# not know one another. A room is a module or folder with all in it, less the rooms named in it.
FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(floor.split())
    for floor in (
        "errors _version",
        "text foreign_errors",
        "language",
        "timing",
        "files hints html",
        "locks",
        "storage",
        "config_source",
        "config",
        "data",
        "preparing checking model",
        "evaluation.statistics",
        "evaluation",
        "training editing inference",
        "tuning estimator serving distributed labelling doctor tutorial sharing",
        "demo",
        "commands",
        "cli",
        "__main__ __init__",
    )
)

# Besides the floors: what stands beside training needs no report of a split.
APART = {
    ("editing", "evaluation"),
    ("inference", "evaluation"),
    ("distributed", "editing"),
    ("distributed", "evaluation"),
    ("distributed", "training"),
    ("serving", "evaluation"),
    ("serving", "training"),
    ("serving", "editing"),
}


def modules_of(package: Path) -> dict[str, Path]:
    """Each module's name, without "cliptune.", and its file. A folder's door is the folder."""
    names = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        door = parts[-1] == "__init__" and len(parts) > 1
        names[".".join(parts[:-1] if door else parts)] = path
    return names


def imports_of(modules: dict[str, Path]) -> set[Import]:
    """Who imports what, of the modules among themselves; relative imports are not house style."""
    found = set()
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}:{node.lineno}: a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            ours = [name for name in names if name.partition(".")[0] == "cliptune"]
            found |= {(module, module_named(name, modules)) for name in ours}
    return found


def module_named(name: str, modules: dict[str, Path]) -> str:
    """The module of a dotted name: the name itself, or what it is taken from."""
    parts = name.split(".")[1:]
    for end in (len(parts), len(parts) - 1):
        if ".".join(parts[:end]) in modules:
            return ".".join(parts[:end])
    return "__init__"


def room_of(module: str) -> str | None:
    """The room a module stands in: the longest that its name begins with."""
    rooms = [room for floor in FLOORS for room in floor if f"{module}.".startswith(f"{room}.")]
    return max(rooms, key=len, default=None)


def running_up(imports: Iterable[Import]) -> set[Import]:
    """Imports from a room not on a floor below, or from one they are to stand apart from."""
    floor = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
    wrong = set()
    for who, what in imports:
        a, b = room_of(who), room_of(what)
        if a != b and (floor[str(a)] <= floor[str(b)] or (a, b) in APART):
            wrong.add((who, what))
    return wrong


MODULES = modules_of(Path(cliptune.__file__).parent)
IMPORTS = imports_of(MODULES)


def test_every_module_belongs_to_a_room_and_every_room_has_a_module() -> None:
    assert [module for module in MODULES if room_of(module) is None] == []
    assert {room_of(module) for module in MODULES} == {room for rooms in FLOORS for room in rooms}


def test_imports_run_down() -> None:
    assert running_up(IMPORTS) == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    known: dict[str, set[str]] = {}
    for who, what in IMPORTS:
        known.setdefault(who, set()).add(what)
    try:
        TopologicalSorter(known).prepare()
    except CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("errors", "import cliptune.text"),
        ("data.folder", "from cliptune import hints, model"),
        ("data.folder", "def f():\n    from cliptune.model.answers import Answers"),
        ("model.lora", "if TYPE_CHECKING:\n    from cliptune.evaluation.evaluate import evaluate"),
        ("model.lora", "from cliptune import train"),
        ("evaluation.statistics.metrics", "from cliptune.evaluation import plots"),
        ("evaluation.evaluate", "from cliptune.training.train import train"),
        ("inference.predictor", "import cliptune.editing.change"),
        ("inference.predictor", "from cliptune.evaluation.evaluate import evaluate"),
        ("serving.worker", "from cliptune.training.train import train"),
        ("commands.train", "from cliptune.cli import main"),
    ],
)
def test_a_planted_import_that_runs_up_is_found(module: str, line: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(line, encoding="utf-8")
    found = running_up(imports_of(MODULES | {module: planted}))
    assert {who for who, _ in found} == {module}

"""Set files aside and bring them back: moved by a plan that outlives a kill, never deleted.

    data/dogs/.quarantine/
        fix-0001.json             what was moved, from where, why
        0001/train/pug/7.jpg      a file that was set aside

A plan is on the disk before the first file moves, as `fix-0001.pending.json`; whoever comes next
finishes it. Undoing is the same the other way round, as `fix-0001.undoing.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cliptune.errors import DataError, listing
from cliptune.files import rename, stays_inside, sync, whole_file
from cliptune.foreign_errors import disk_errors
from cliptune.locks import alone
from cliptune.text import command, counted

QUARANTINE = ".quarantine"  # hidden: neither training nor prepare takes it for data
_PLAN = re.compile(r"fix-(\d{4,})(\.pending|\.undoing|\.undone)?\.json")


@dataclass(frozen=True)
class Move:
    """A file to set aside, or that was: paths relative to the data folder."""

    source: str
    target: str
    kind: str  # of the finding that moved it


@dataclass(frozen=True)
class _Plan:
    number: int
    state: str  # "" once done, else ".pending", ".undoing", ".undone"
    path: Path
    moves: tuple[Move, ...]


def finish(data_dir: Path) -> list[Move]:
    """Carry a plan that was broken off to its end; its moves, or none where none was."""
    with disk_errors(data_dir), alone(data_dir):
        return [move for plan in _plans(data_dir) for move in _finish(data_dir, plan)]


def fix(data_dir: Path, offenders: Mapping[str, str]) -> list[Move]:
    """Move the files `offenders` (path relative to `data_dir` -> kind) into the quarantine."""
    if not offenders:
        return []
    with disk_errors(data_dir), alone(data_dir):
        number = max((plan.number for plan in _plans(data_dir)), default=0) + 1
        moves = [
            Move(name, f"{QUARANTINE}/{number:04}/{name}", kind) for name, kind in offenders.items()
        ]
        folder = data_dir / QUARANTINE
        folder.mkdir(exist_ok=True)
        pending = folder / f"fix-{number:04}.pending.json"
        with whole_file(pending) as path:
            text = json.dumps({"moves": [asdict(m) for m in moves]}, indent=1, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8", errors="surrogateescape", newline="\n")
        _finish(data_dir, _read(pending))
    return moves


def undo(data_dir: Path) -> list[Move]:
    """Bring back what the last fix that still stands set aside; its moves.

    Raises `DataError` when there is none, or where a file stands in the way: nothing is moved then.
    """
    with disk_errors(data_dir), alone(data_dir):
        for plan in _plans(data_dir):
            _finish(data_dir, plan)
        standing = [plan for plan in _plans(data_dir) if plan.state == ""]
        if not standing:
            fix_it = command("cliptune", "check", data_dir, "--fix")
            raise DataError(
                f"{data_dir}: nothing to undo. '{fix_it}' has set nothing aside here, or all of it "
                "is back."
            )
        plan = standing[-1]
        in_the_way = [
            move.source
            for move in plan.moves
            if _is_there(data_dir / move.source) and _is_there(data_dir / move.target)
        ]
        if in_the_way:
            raise DataError(
                f"{data_dir}: {counted(len(in_the_way), 'file')} cannot come back, since others "
                f"stand there:\n{listing(in_the_way)}\nMove those away first. Nothing was moved."
            )
        undoing = _rename(plan, ".undoing")
        return _finish(data_dir, undoing)


def set_aside(data_dir: Path) -> set[str]:
    """The files that are in quarantine now, by the paths they had."""
    return {
        move.source
        for plan in _plans(data_dir)
        if plan.state != ".undone"
        for move in plan.moves
        if _is_there(data_dir / move.target)
    }


def _finish(data_dir: Path, plan: _Plan) -> list[Move]:
    """Do what is left of a pending or an undoing plan."""
    if plan.state not in (".pending", ".undoing"):
        return []
    folders = set()
    for move in plan.moves:
        source, target = data_dir / move.source, data_dir / move.target
        if plan.state == ".undoing":
            source, target = target, source
        if _is_there(target) or not _is_there(source):
            continue  # done before a kill, or gone meanwhile
        target.parent.mkdir(parents=True, exist_ok=True)
        rename(source, target)
        folders |= {source.parent, target.parent}
    for folder in sorted(folders):
        sync(folder)
    if plan.state == ".undoing":
        _remove_empty(data_dir / QUARANTINE / f"{plan.number:04}")
    _rename(plan, "" if plan.state == ".pending" else ".undone")
    return list(plan.moves)


def _remove_empty(folder: Path) -> None:
    """Delete the empty folders of which `folder` consists; one that holds a file stays."""
    if not folder.is_dir():
        return
    for inner in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        if not any(inner.iterdir()):
            inner.rmdir()
    if not any(folder.iterdir()):
        folder.rmdir()


def _rename(plan: _Plan, state: str) -> _Plan:
    path = plan.path.with_name(f"fix-{plan.number:04}{state}.json")
    rename(plan.path, path)
    sync(path.parent)
    return _Plan(plan.number, state, path, plan.moves)


def _plans(data_dir: Path) -> list[_Plan]:
    """All plans, the oldest first."""
    folder = data_dir / QUARANTINE
    if not folder.is_dir():
        return []
    plans = [_read(path) for path in sorted(folder.iterdir()) if _PLAN.fullmatch(path.name)]
    return sorted(plans, key=lambda plan: plan.number)


def _read(path: Path) -> _Plan:
    match = _PLAN.fullmatch(path.name)
    assert match is not None
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        moves = tuple(Move(**move) for move in json.loads(text)["moves"])
        ends = [end for move in moves for end in (move.source, move.target)]
        if not all(isinstance(end, str) and stays_inside(end) for end in ends):
            raise ValueError("a path leaves the folder")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: this record of what was set aside is damaged ({error}). Nothing was moved. "
            f"The files lie in {path.parent}; move them back by hand, and this file away."
        ) from None
    return _Plan(int(match[1]), match[2] or "", path, moves)


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()

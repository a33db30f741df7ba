"""What of a checkpoint others may have: a copy that names no folder of the machine it was made on.

Tensors are copied as they are, so that the copy answers to the bit as the checkpoint does.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from cliptune.errors import CheckpointError, UserError
from cliptune.files import SUMS, stays_inside, write_sums
from cliptune.model.checkpoint import UNSUMMED, Checkpoint, read_checkpoint
from cliptune.model.restore import saved_settings
from cliptune.storage import is_address

CARD = "README.md"
SETTINGS = "config.yaml"
NOT_SHARED = "photos_not_shared"  # in the place of the data folder
TRAINING_ONLY = "resume"


@dataclass(frozen=True)
class Replaced:
    """In `file`, the value at `key` (dots between levels) was `before`, and is `after` now."""

    file: str
    key: str
    before: str
    after: str


@dataclass(frozen=True)
class PublicBase:
    """What a base model is called before others; `on_hub`: they find it there under that name."""

    name: str
    on_hub: bool


def public_base(recorded: str, given: str | None) -> PublicBase:
    """The public name of the base model `recorded`: `given`, or of a folder its own name alone.

    A folder in the hub's cache is the model it was fetched as.
    """
    if given is not None:
        return PublicBase(given, on_hub=True)
    if not _of_a_machine(recorded):
        return PublicBase(recorded, on_hub=True)
    parts = PurePosixPath(recorded.replace("\\", "/")).parts
    if cached := [part for part in parts if part.startswith("models--") and part.count("--") == 2]:
        return PublicBase(cached[-1].removeprefix("models--").replace("--", "/"), on_hub=True)
    return PublicBase(parts[-1] if len(parts) > 1 else "base-model", on_hub=False)


def copy_public(source: Checkpoint, folder: Path, base: PublicBase) -> list[Replaced]:
    """Fill the empty `folder` with what is public of `source`, but SHA256SUMS; what was replaced.

    Copied are the files that its SHA256SUMS names and its card: whatever else lies in it stays
    where it is, as does what only training needs. Raises `CheckpointError` where there is no
    SHA256SUMS.
    """
    for name in _files(source):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path / name, folder / name)
    replaced = _public_settings(source, folder / SETTINGS, base)
    renamed = {source.record.base_model.name: base.name}
    for path in sorted(folder.rglob("*.json")):
        replaced += _public_json(path, path.relative_to(folder).as_posix(), renamed)
    return replaced


def finish_public(source: Checkpoint, folder: Path) -> Checkpoint:
    """Write the sums of `folder` and look through all of it once more; it is a checkpoint then.

    Raises `UserError` for a file that still names a folder of this machine, such as a card that
    its owner wrote.
    """
    write_sums(folder, leave_out=UNSUMMED)
    private = _private_paths(source)
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        for text in private:
            for written in {text, json.dumps(text)[1:-1]}:
                if written.encode() in content:
                    line = content[: content.index(written.encode())].count(b"\n") + 1
                    raise UserError(
                        f"{source.path / path.relative_to(folder)}: line {line} names a folder of "
                        f"this machine, {text}, which others would read. Nothing was pushed. Take "
                        "it out of the file, and push again."
                    )
    return read_checkpoint(folder)


def _files(source: Checkpoint) -> list[str]:
    sums = source.path / SUMS
    if not sums.is_file():
        raise CheckpointError(
            f"{source.path}: no {SUMS}, which tells the files of a checkpoint from others beside "
            "them. Expected a checkpoint of this version of cliptune."
        )
    lines = filter(None, sums.read_text(encoding="utf-8").split("\n"))
    names = [line.partition("  ")[2] for line in lines]
    own = [name for name in names if stays_inside(name) and not _left_out(name)]
    return [*own, *(name for name in sorted(UNSUMMED) if (source.path / name).is_file())]


def _left_out(name: str) -> bool:
    return PurePosixPath(name).parts[0] == TRAINING_ONLY


def _public_settings(source: Checkpoint, path: Path, base: PublicBase) -> list[Replaced]:
    """Write the settings of `source` to `path`, without its folders."""
    if not path.is_file():
        return []
    settings = saved_settings(source)
    values = settings.without_folders()
    if not source.exported:
        values["data"]["data_dir"] = NOT_SHARED
    values["model"]["name"] = base.name
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8", newline="\n")
    new = dict(_leaves(values))
    return [
        Replaced(SETTINGS, key, str(value), str(new.get(key, "")))
        for key, value in _leaves(before)
        if new.get(key) != value and value is not None
    ]


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _public_json(path: Path, name: str, renamed: dict[str, str]) -> list[Replaced]:
    """Rewrite the file `path` where a value is a path of the machine; others stay as they are."""
    replaced: list[Replaced] = []

    def public(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {k: public(v, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
        if isinstance(value, list):
            return [public(each, key) if isinstance(each, dict) else each for each in value]
        if isinstance(value, str) and (value in renamed or _is_long_path(value)):
            new = renamed.get(value, PurePosixPath(value.replace("\\", "/")).name)
            if new != value:
                replaced.append(Replaced(name, key, value, new))
            return new
        return value

    values = public(json.loads(path.read_text(encoding="utf-8")), "")
    if replaced:
        text = json.dumps(values, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8", newline="\n")
    return replaced


def _of_a_machine(name: str) -> bool:
    """Whether `name` is a folder or an address, and no name on the hub."""
    return is_address(name) or _is_absolute(name) or name.startswith((".", "~"))


def _is_absolute(text: str) -> bool:
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


def _is_long_path(text: str) -> bool:
    """Whether `text` is a path from the top with a folder in it, as words hardly are."""
    windows = PureWindowsPath(text)
    return "\n" not in text and _is_absolute(text) and len(windows.parts) > 2


def _private_paths(source: Checkpoint) -> set[str]:
    """Folders of this machine, or of that of training, that a checkpoint could tell of."""
    settings = saved_settings(source)
    named = [
        settings.data.data_dir, settings.data.cache_dir, settings.model.cache_dir,
        settings.model.name, settings.output.output_dir, settings.output.log_dir,
        source.record.base_model.name, source.path, source.path.parent,
    ]  # fmt: skip
    paths = [Path(each) for each in named if each is not None and _is_absolute(str(each))]
    paths += [source.path.absolute(), source.path.absolute().parent]
    every = {str(each) for path in paths for each in (path, path.resolve())}
    home = Path.home()  # itself it may be as short as /root
    return {path for path in every if _is_long_path(path)} | (
        {f"{home}{os.sep}"} if home != Path(home.anchor) else set()
    )

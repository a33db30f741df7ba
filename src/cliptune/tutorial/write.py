"""Lay out the tutorial's folder: its commands then work there as they are typed in it."""

from __future__ import annotations

from pathlib import Path

from cliptune.errors import UserError, listing
from cliptune.files import whole_file
from cliptune.storage import folder_here

HERE = Path(__file__).parent
# Beside this module once installed; in a checkout, where the repository has them.
FILES = HERE / "files" if (HERE / "files").is_dir() else HERE.parents[2]
LORA = "code/02-fine-tuning/lora"
DOORS = (
    *(f"{LORA}/{name}" for name in (
        "__init__.py", "config.yaml", "dataset.py", "evaluate.py", "inference.py", "train.py",
    )),
    "scripts/prepare_dog_dataset.py",
)  # fmt: skip
WORDS = {
    "README.md": "README.md",
    "README.zh-CN.md": "README.zh-CN.md",
    "data.md": "data/README.md",
}


def write_tutorial(folder: Path | str) -> list[Path]:
    """Put settings, scripts, an empty data folder and how to begin into `folder`.

    Returns the files written. What is there already and the same stays; so does all else that the
    folder holds.

    Raises `UserError`, with nothing written, where a file of the tutorial is there and differs:
    someone has edited it.
    """
    folder = folder_here(folder, "DIR")
    wanted = {folder / name: (FILES / name).read_bytes() for name in DOORS}
    wanted |= {folder / name: (HERE / source).read_bytes() for source, name in WORDS.items()}
    edited = [
        path for path, content in wanted.items() if path.exists() and not _holds(path, content)
    ]
    if edited:
        raise UserError(
            f"{folder}: it holds other files under names of the tutorial:\n"
            f"{listing([str(path.relative_to(folder)) for path in edited])}\n"
            "Nothing was written. Take a new folder, or move these away."
        )
    written = [path for path in wanted if not path.exists()]
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_bytes(wanted[path])
    return written


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content

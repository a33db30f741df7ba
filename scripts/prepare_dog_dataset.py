"""Make data/dogs: `python scripts/prepare_dog_dataset.py --output_dir data/dogs [...]`."""

from __future__ import annotations

import sys


def main() -> None:
    """`cliptune prepare` with the arguments of this process."""
    try:
        from cliptune.cli import main as cliptune
    except ModuleNotFoundError as error:
        if error.name != "cliptune":
            raise
        sys.exit(
            "error: cliptune is not installed. From the repository root: "
            "pip install -e . -c constraints.txt"
        )
    cliptune(["prepare", *sys.argv[1:]])


if __name__ == "__main__":
    main()

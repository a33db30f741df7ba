"""Evaluate a checkpoint on labelled photos: `python evaluate.py --checkpoint DIR [...]`."""

from __future__ import annotations

import sys


def main() -> None:
    """`cliptune evaluate` with the arguments of this process."""
    try:
        from cliptune.cli import main as cliptune
    except ModuleNotFoundError as error:
        if error.name != "cliptune":
            raise
        sys.exit(
            "error: cliptune is not installed. From the repository root: "
            "pip install -e . -c constraints.txt"
        )
    cliptune(["evaluate", *sys.argv[1:]])


# Guarded: a library that imports a package named `evaluate` may meet this file instead.
if __name__ == "__main__":
    main()

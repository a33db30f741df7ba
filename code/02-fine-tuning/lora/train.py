"""Train with LoRA by this folder's config.yaml: `python train.py [--config FILE] [...]`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """`cliptune train`, with the settings beside this file unless others are named."""
    try:
        from cliptune.cli import main as cliptune
    except ModuleNotFoundError as error:
        if error.name != "cliptune":
            raise
        sys.exit(
            "error: cliptune is not installed. From the repository root: "
            "pip install -e . -c constraints.txt"
        )
    # Of an option given twice the last one counts, so --config on the command line wins.
    cliptune(["train", "--config", str(Path(__file__).with_name("config.yaml")), *sys.argv[1:]])


if __name__ == "__main__":
    main()

"""Run the notebooks beside this file as they stand: `make notebooks`.

    python notebooks/execute.py             in a temporary folder, up to the first cell that fails
    python notebooks/execute.py --update    and keeps what they printed and drew

Kept are outputs without times, addresses of objects and folders of the machine; `pip install
'cliptune[notebooks,serve]'` brings what this needs.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from cliptune.demo.run import HOME
from cliptune.files import default_cache_dir, whole_file

HERE = Path(__file__).parent
SECONDS = 900  # of one cell


def executed(path: Path, folder: Path) -> Any:
    """The notebook with the outputs of a run in `folder`. Raises `CellExecutionError`."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", record_timing=False,
        coalesce_streams=True,         resources={"metadata": {"path": str(folder)}},
    ).execute()  # fmt: skip
    return notebook


def clean(notebook: Any) -> Any:
    """The same notebook without what tells of one machine, its outputs small."""
    places = {str(HOME.parent): "…/cliptune", str(default_cache_dir()): "~/.cache/cliptune"}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "text" in output:
                for here, there in places.items():
                    output["text"] = output["text"].replace(here, there)
            if "data" in output:
                output["metadata"] = {}
                output["data"].pop("image/jpeg", None)  # the same picture once more
                plain = output["data"].get("text/plain", "")
                output["data"]["text/plain"] = re.sub(r" at 0x[0-9A-Fa-f]+", "", plain)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="keep the outputs")
    given = parser.parse_args()
    for path in sorted(HERE.glob("*.ipynb")):
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            notebook = clean(executed(path, Path(folder)))
        print(f"{path.name}: every cell ran, {time.monotonic() - started:.0f} s", flush=True)
        if given.update:
            with whole_file(path) as partial:
                text = nbformat.writes(notebook, version=4)
                partial.write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

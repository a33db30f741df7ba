"""Would what is about to be published work where nothing but it is? `make release-check`.

    python release/check.py                             this Python, tested and lowest versions
    python release/check.py --python python3.13         and another one
    python release/check.py --keep DIR                  leave sdist, wheel, bill of materials there

Builds sdist and wheel, checks their metadata, and installs each in an environment of its own, in a
folder far from this checkout: the wheel with the versions of constraints.txt, the sdist and most
extras with the lowest that pyproject.toml admits. There the demo runs, and the tests that need no
checkout. Last, the licences of all that was installed, and the bill of materials (CycloneDX).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOOLS = ["build", "cyclonedx-bom", "twine"]
TEST_TOOLS = ["httpx", "hypothesis", "pandas", "psutil", "pytest", "pytest-xdist", "statsmodels"]
# Rooms whose tests need nothing beside the package and these tools.
TESTS = ["tests/data", "tests/model"]
# By extra, what shows that its lowest versions do; the others need a bucket, a cluster, an account.
EXTRAS = {
    "export": "tests/inference/test_export.py",
    "http": "tests/storage",
    "hub": "tests/preparing/test_hub_labels.py",
    "serve": "tests/serving/test_answers_over_http.py",
    "sftp": "tests/storage",
    "tune": "tests/tuning/test_tuning.py",
}
# Whoever redistributes cliptune's environment may do so under these, or under a choice among them.
FREE = ("MIT", "BSD", "Apache", "ISC", "PSF", "Python Software Foundation", "Python-2.0", "MPL",
        "HPND", "Mozilla", "Zlib", "Unlicense", "CC0")  # fmt: skip
# What says nothing in a form that the bill of materials takes, and was looked up in the package.
LOOKED_UP = {
    "ImageHash": "BSD-2-Clause", "protobuf": "BSD-3-Clause", "transformers": "Apache-2.0",
    "multidict": "Apache-2.0", "onnx": "Apache-2.0",
    "paramiko": "LGPL-2.1", # of the extra sftp: imported as it is, and not in the wheel
}  # fmt: skip


def run(*words: object, cwd: Path, quiet: bool = True, **environment: str) -> str:
    """The output of a command; it ends this program where it fails."""
    line = [str(word) for word in words]
    ended = subprocess.run(
        line, cwd=cwd, env=os.environ | environment, text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if ended.returncode or not quiet:
        print(ended.stdout, flush=True)
    if ended.returncode:
        raise SystemExit(f"failed with {ended.returncode}: {' '.join(line)}")
    return ended.stdout


def environment(folder: Path, python: str, *requirements: object, constraints: Path) -> Path:
    """A new environment's Python, with `requirements` installed."""
    run(python, "-m", "venv", folder, cwd=ROOT)
    here = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(here, *pip, "-c", constraints, *requirements, cwd=folder)
    return here


def built(scratch: Path, python: Path) -> list[Path]:
    """sdist and wheel, their metadata checked."""
    run(python, "-m", "build", "--outdir", scratch / "dist", ROOT, cwd=scratch)
    made = sorted((scratch / "dist").iterdir())
    assert [path.suffix for path in made] == [".whl", ".gz"], made
    print(run(python, "-m", "twine", "check", "--strict", *made, cwd=scratch).strip())
    for path in made:
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")
    return made


def tried(
    scratch: Path, name: str, python: str, package: Path, constraints: Path, *, extras: bool = False
) -> Path:
    """What a newcomer does with `package`, and the tests that need no checkout; its Python.

    With `extras`, those of `EXTRAS` are installed and tested, too.
    """
    started = time.monotonic()
    wanted = f"{package}[{','.join(EXTRAS)}]" if extras else package
    here = environment(
        scratch / f"env-{name}", python, wanted, *TEST_TOOLS, constraints=constraints
    )
    empty = scratch / f"empty-{name}"
    empty.mkdir()
    cliptune = (here, "-m", "cliptune")
    print(f"\n{name}: {run(*cliptune, '--version', cwd=empty).strip()}", flush=True)
    told = json.loads(run(*cliptune, "doctor", "--json", "--no-network", cwd=empty))
    versions = {f["name"]: f["value"] for f in told["findings"] if f["group"] == "versions"}
    print(", ".join(f"{key} {value}" for key, value in versions.items()), flush=True)
    run(*cliptune, "init", "tutorial", cwd=empty)
    run(here, "code/02-fine-tuning/lora/train.py", "--help", cwd=empty / "tutorial")
    demo = run(*cliptune, "demo", cwd=empty)
    print(next(line for line in demo.splitlines() if "test accuracy" in line).strip(), flush=True)
    copied = scratch / f"tests-{name}"
    shutil.copytree(ROOT / "tests", copied / "tests")
    shutil.copytree(ROOT / "benchmarks", copied / "benchmarks")
    (copied / "pytest.ini").write_text(
        "[pytest]\npythonpath = tests benchmarks benchmarks/torture\nmarkers =\n slow:\n scale:\n "
        "long:\n", encoding="utf-8", newline="\n",
    )  # fmt: skip
    rooms = [*TESTS, *(dict.fromkeys(EXTRAS.values()) if extras else ())]
    tests = run(
        here, "-m", "pytest", "-q", "-n", 2, "-m", "not slow and not scale", *rooms, cwd=copied,
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    print(
        f"{tests.strip().splitlines()[-1]}; {time.monotonic() - started:.0f} s in all", flush=True
    )
    return here


def licence_of(entry: dict[str, Any]) -> str:
    """What an entry of CycloneDX says: an expression, or the name of one licence."""
    one = entry.get("license", {})
    return str(entry.get("expression") or one.get("id") or one.get("name") or "")


def licences(here: Path, tools: Path, scratch: Path) -> None:
    """Write the bill of materials of an environment, and end where a licence is not a free one."""
    bill = scratch / "dist" / "sbom.cdx.json"
    run(tools, "-m", "cyclonedx_py", "environment", "--output-file", bill, here, cwd=scratch)
    found = {}
    for part in json.loads(bill.read_text(encoding="utf-8"))["components"]:
        told = [licence_of(each) for each in part.get("licenses", [])]
        found[part["name"]] = told
    strange = {
        name: told for name, told in found.items()
        if not any(free.lower() in each.lower() for each in told for free in FREE)
    }  # fmt: skip
    if unknown := strange.keys() - LOOKED_UP.keys():
        lines = [f"{name}: {', '.join(strange[name])[:60] or 'none told'}" for name in unknown]
        raise SystemExit("but for these, whose licences are to be looked up:\n" + "\n".join(lines))
    print(f"\n{len(found)} packages in the bill of materials, all under free licences: {bill.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", default=[], help="another Python to try")
    parser.add_argument("--only", choices=["tested", "lowest"], help="one of the environments")
    parser.add_argument("--keep", type=Path, help="where to leave what was built")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        tested, lowest = ROOT / "constraints.txt", ROOT / "release" / "lowest.txt"
        tools = environment(scratch / "tools", sys.executable, *TOOLS, constraints=tested)
        wheel, sdist = built(scratch, tools)
        here = None
        if given.only != "lowest":
            here = tried(scratch, "tested", sys.executable, wheel, tested)
        if given.only != "tested":
            here = tried(scratch, "lowest", sys.executable, sdist, lowest, extras=True)
        for number, python in enumerate(given.python):
            tried(scratch, f"other-{number}", python, wheel, tested)
        assert here is not None
        licences(here, tools, scratch)
        if given.keep:
            shutil.copytree(scratch / "dist", given.keep, dirs_exist_ok=True)


if __name__ == "__main__":
    main()

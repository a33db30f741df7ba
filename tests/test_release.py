"""What `make release-check` rests on says what pyproject.toml says."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cliptune

ROOT = Path(__file__).parents[1]


EXTRAS: dict[str, str] = runpy.run_path(str(ROOT / "release" / "check.py"))["EXTRAS"]


def requirements(*extras: str) -> list[Requirement]:
    """What pyproject.toml says that cliptune needs, and its `extras`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    assert {canonicalize_name(asked.name) for asked in requirements()} <= pinned


def test_the_lowest_versions_tested_are_those_that_are_admitted() -> None:
    admitted = {}
    for asked in requirements(*EXTRAS):
        if asked.marker is None:
            (least,) = [each.version for each in asked.specifier if each.operator == ">="]
            admitted[canonicalize_name(asked.name)] = least
    text = (ROOT / "release" / "lowest.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    tested = {canonicalize_name(name): version for name, version in
              (line.split("==") for line in lines)}  # fmt: skip
    assert tested.keys() == admitted.keys()
    for name, least in admitted.items():
        if name != "torch":  # whatever build is there
            assert tested[name] == least or tested[name].startswith(f"{least}."), name


def test_what_shows_that_an_extra_does_is_there() -> None:
    assert EXTRAS
    for tests in EXTRAS.values():
        assert (ROOT / tests).exists()


def test_what_workflows_call_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert len(workflows) == 2
    called = set()
    for path in workflows:
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            lines = [step["run"] for step in job["steps"] if "run" in step]
            called |= {name for line in lines for name in re.findall(r"make ([a-z-]+)", line)}
    assert {"lint", "release-check"} <= called <= targets


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert cited == cliptune.__version__
    assert f"## {cited}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

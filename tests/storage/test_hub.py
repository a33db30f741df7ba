"""Checkpoints on the hub, against a server that speaks its protocol."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cliptune import Predictor
from cliptune.errors import CheckpointError
from cliptune.model.checkpoint import Checkpoint, resolve_checkpoint
from cliptune.storage.hub import HubPlace, hub_place
from hub_server import Hub, a_hub

# For each name: the folder it was fetched to, or what went wrong; and what was logged.
FETCH = """
import json, logging, sys
from cliptune.errors import CliptuneError
from cliptune.model.checkpoint import resolve_checkpoint
logging.basicConfig(level=logging.INFO, format="%(message)s")
for handler in logging.root.handlers: handler.addFilter(lambda r: r.name.startswith("cliptune"))
told = []
for name in sys.argv[1:]:
    try:
        told.append(str(resolve_checkpoint(name).path))
    except CliptuneError as error:
        told.append(f"{type(error).__name__}: {error}")
print(json.dumps(told))
"""


def fetched(*names: str, env: dict[str, str]) -> tuple[list[str], str]:
    done = subprocess.run([sys.executable, "-c", FETCH, *names], env=env, capture_output=True,
                          text=True, encoding="utf-8", timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found, done.stderr


@pytest.fixture
def hub() -> Iterator[Hub]:
    with a_hub() as running:
        yield running


@pytest.fixture(scope="module")
def best(tiny_run: Path) -> Checkpoint:
    return resolve_checkpoint(tiny_run)


def test_a_checkpoint_on_the_hub_is_fetched_and_answers_as_the_one_here(
    hub: Hub, best: Checkpoint, photos: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(best.path, tmp_path / "there"))
    (folder / "holiday.jpg").write_bytes(b"no file of a checkpoint")
    commit = hub.put("someone/dogs", folder)
    (path,), log = fetched("hf:someone/dogs", env=hub.environment(tmp_path))
    assert Path(path).name == commit
    assert commit[:12] in log
    expected = {p.name for p in folder.iterdir()} - {"holiday.jpg", "resume"}
    assert {p.name for p in Path(path).iterdir()} == expected
    photo = photos / "val" / "blue" / "blue_0.png"
    here, there = (Predictor(each).predict(photo) for each in (best.path, path))
    assert here == there


def test_a_revision_is_a_branch_or_a_commit_and_what_is_kept_is_not_fetched_again(
    hub: Hub, best: Checkpoint, tiny_run: Path, tmp_path: Path
) -> None:
    first = hub.put("someone/dogs", best.path)
    earliest = next(p for p in sorted(tiny_run.glob("checkpoint-*")) if p.name != best.path.name)
    second = hub.put("someone/dogs", earliest, branch="early")
    names = ["hf:someone/dogs", "hf:someone/dogs@early", f"hf:someone/dogs@{second}"]
    env = hub.environment(tmp_path)
    found, _ = fetched(*names, env=env)
    assert [Path(path).name for path in found] == [first, second, second]
    assert resolve_checkpoint(found[1]).record.update == resolve_checkpoint(earliest).record.update

    hub.lines.clear()
    again, _ = fetched(*names, env=env)
    assert again == found
    assert [line for line in hub.lines if "/resolve/" in line] == []


@pytest.mark.slow
def test_where_the_hub_is_away_the_copy_fetched_last_counts_and_is_said(
    hub: Hub, best: Checkpoint, tmp_path: Path
) -> None:
    hub.put("someone/dogs", best.path)
    env = hub.environment(tmp_path)
    (path,), _ = fetched("hf:someone/dogs", env=env)
    offline = env | {"HF_HUB_OFFLINE": "1"}
    (kept, other), log = fetched("hf:someone/dogs", "hf:someone/cats", env=offline)
    assert kept == path
    assert f"the hub cannot be reached; using the copy in {path}" in log
    assert other.startswith("HubError: hf:someone/cats: the hub at ")
    assert "No copy of it is kept here." in other
    gone = env | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert fetched("hf:someone/dogs", env=gone)[0] == [path]


@pytest.mark.slow
def test_each_fault_is_one_clear_message(hub: Hub, best: Checkpoint, tmp_path: Path) -> None:
    hub.put("someone/dogs", best.path)
    hub.put("someone/secret", best.path, private=True)
    damaged = Path(shutil.copytree(best.path, tmp_path / "damaged"))
    (damaged / "head.safetensors").write_bytes(b"another head")
    hub.put("someone/damaged", damaged)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}", encoding="utf-8")
    hub.put("someone/bare", bare)
    names = ["hf:someone/cats", "hf:someone/dogs@nowhere", "hf:someone/damaged", "hf:someone/bare"]
    found, _ = fetched(*names, env=hub.environment(tmp_path))
    assert found[0].startswith("CheckpointError: hf:someone/cats: no such model on the hub")
    assert "no branch, tag or commit 'nowhere'" in found[1]
    assert "head.safetensors was damaged or changed since it was written" in found[2]
    assert "hf:someone/bare: no SHA256SUMS there" in found[3]

    (secret,), _ = fetched("hf:someone/secret", env=hub.environment(tmp_path, token=None))
    assert "hf:someone/secret: no such model on the hub, or it is private" in secret
    (wrong,), _ = fetched("hf:someone/dogs", env=hub.environment(tmp_path, token="hf_wrong"))
    assert wrong.startswith("CheckpointError: hf:someone/dogs: the hub refused (401). Log in")


@pytest.mark.slow
def test_a_kept_copy_that_was_damaged_is_fetched_anew_and_a_whole_commit_needs_no_hub(
    hub: Hub, best: Checkpoint, tmp_path: Path
) -> None:
    commit = hub.put("someone/dogs", best.path)
    env = hub.environment(tmp_path)
    (path,), _ = fetched("hf:someone/dogs", env=env)
    head = Path(path, "head.safetensors")
    head.resolve().write_bytes(b"damaged")
    assert fetched("hf:someone/dogs", env=env)[0] == [path]
    assert head.read_bytes() == (best.path / "head.safetensors").read_bytes()
    hub.lines.clear()
    assert fetched(f"hf:someone/dogs@{commit}", env=env)[0] == [path]
    assert hub.lines == []


@pytest.mark.parametrize("name", ["hf:", "hf:dogs", "hf:a/b/c", "hf:a/..", "hf:a b/c", "hf:a/b@"])
def test_what_is_no_owner_and_name_is_refused_with_what_is_expected(name: str) -> None:
    with pytest.raises(CheckpointError, match="Expected"):
        resolve_checkpoint(name)


def test_a_folder_here_that_is_called_so_is_that_folder(
    best: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no such names")
    monkeypatch.chdir(tmp_path)
    assert hub_place("hf:someone/dogs") == HubPlace("someone/dogs", None)
    shutil.copytree(best.path, tmp_path / "hf:someone" / "dogs")
    assert resolve_checkpoint(Path("hf:someone/dogs")).path == Path("hf:someone/dogs")


@pytest.mark.parametrize("given", ["hf://someone/dogs", "runs/hf:a/b", "HF:a/b", "s3://hf:a/b"])
def test_paths_and_addresses_name_nothing_on_the_hub(given: str) -> None:
    assert hub_place(given) is None


def test_a_path_and_a_text_name_the_same_place() -> None:
    place: Any = HubPlace("a/b", "refs/pr/1")
    assert hub_place(Path("hf:a/b@refs/pr/1")) == hub_place("hf:a/b@refs/pr/1") == place
    assert str(place) == "hf:a/b@refs/pr/1"

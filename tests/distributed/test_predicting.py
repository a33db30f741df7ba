"""With Ray itself, on one machine: one node, three of them, and nodes that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ray", reason="Ray is not installed: pip install 'cliptune[ray]'")
pa = pytest.importorskip("pyarrow")
import pyarrow.dataset  # noqa: E402
import pyarrow.parquet  # noqa: E402
from scale.cluster import Nodes, nodes  # noqa: E402

from cliptune import Predictor  # noqa: E402
from cliptune.checking.check import check as check_here  # noqa: E402
from cliptune.data.reading import Unreadable  # noqa: E402
from cliptune.distributed import check, predict  # noqa: E402
from cliptune.errors import UserError  # noqa: E402

pytestmark = [pytest.mark.scale, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(3) as running:
        yield running


@pytest.fixture
def listed(photos: Path, tmp_path: Path) -> list[str]:
    """Photos, two that cannot be read among them."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    names = list(map(str, sorted((photos / "test").rglob("*.png"))))
    return [*names[:5], str(tmp_path / "broken.png"), *names[5:], str(tmp_path / "not there.jpg")]


def manifest_of(folder: Path, listed: list[str], rows: int) -> Path:
    path = folder / "m.parquet"
    names = list(islice(cycle(listed), rows))
    pa.parquet.write_table(
        pa.table({"id": [2 * row + 1 for row in range(rows)], "path": names}), path
    )
    return path


def table_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        pyarrow.dataset.dataset(folder).to_table().sort_by("id").to_pylist()
    )
    return rows


def expected(run: Path, listed: list[str], rows: int) -> list[dict[str, Any]]:
    """What one `Predictor` gives, in the same batches and on one thread, as an actor's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    predictor = Predictor(run, device="cpu", batch_size=4)
    answers = list(predictor.stream(islice(cycle(listed), rows), top_k=2))
    torch.set_num_threads(threads)
    found = []
    for row, answer in enumerate(answers):
        values: dict[str, Any] = dict.fromkeys(
            ["label", "name", "probability", "labels", "probabilities", "known", "known_score"]
        )
        if isinstance(answer, Unreadable):
            values["error"] = answer.reason
        else:
            values |= {
                "label": answer.label, "name": answer.name, "probability": answer.probability,
                "labels": [score.label for score in answer.scores],
                "probabilities": [score.probability for score in answer.scores],
                "known": answer.known, "known_score": answer.known_score, "error": None,
            }  # fmt: skip
        path = listed[row % len(listed)]
        found.append({"id": 2 * row + 1, "path": path, **values})
    return found


@pytest.mark.parametrize("decoding", ["beside", "apart"])
def test_three_nodes_answer_as_one_predictor_to_the_bit(
    tiny_run: Path, listed: list[str], cluster: Nodes, tmp_path: Path, decoding: str
) -> None:
    manifest = manifest_of(tmp_path, listed, 150)
    done = predict(
        tiny_run, manifest, tmp_path / "out", top_k=2, batch_size=4, shard_rows=16,
        ray_address=cluster.address, decoding=decoding, progress=False,
    )  # fmt: skip
    rows = expected(tiny_run, listed, 150)
    assert table_of(tmp_path / "out") == rows
    assert (done.rows, done.before) == (150, 0)
    assert done.errors == sum(row["error"] is not None for row in rows) > 0


def test_nodes_tell_every_class_above_its_threshold_in_a_column_of_its_own(
    label_run: Path, tiny_run: Path, halves: Path, listed: list[str], cluster: Nodes,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Joined by |, "" where none is told, null beside an error; else the schema of one label."""
    shown_by_none = listed[5]  # the one that cannot be read
    listed = [*map(str, sorted((halves / "val").glob("*.png"))), shown_by_none]
    options: dict[str, Any] = {
        "top_k": 2, "batch_size": 4, "ray_address": cluster.address, "progress": False,
    }  # fmt: skip
    manifest = manifest_of(tmp_path, listed, 40)
    with pytest.raises(UserError, match="--prior uniform"):
        predict(label_run, manifest, tmp_path / "out", prior="uniform", **options)
    predict(label_run, manifest, tmp_path / "out", **options)
    predict(tiny_run, manifest, tmp_path / "one", **options)
    several, one = (pyarrow.dataset.dataset(tmp_path / name).schema for name in ("out", "one"))
    assert several.remove(several.get_field_index("shown")).equals(one)
    assert several.field("shown").type == pa.string()
    found = table_of(tmp_path / "out")
    told = [row.pop("shown") for row in found]
    assert found == expected(label_run, listed, 40)
    predictor = Predictor(label_run, device="cpu")
    for row, shown in zip(found, told, strict=True):
        if row["error"] is not None:
            assert shown is None
            continue
        scores = predictor.predict(row["path"]).shown
        assert scores is not None
        assert shown == "|".join(score.label for score in scores)
        assert row["known"] is (shown != "")
    assert "" in told
    assert any("|" in shown for shown in told if shown)


def test_the_same_call_computes_only_what_is_missing(
    tiny_run: Path, listed: list[str], cluster: Nodes, tmp_path: Path
) -> None:
    manifest = manifest_of(tmp_path, listed, 100)
    out = tmp_path / "out"
    options: dict[str, Any] = {
        "top_k": 2, "batch_size": 4, "shard_rows": 16, "ray_address": cluster.address,
        "progress": False,
    }  # fmt: skip
    predict(tiny_run, manifest, out, **options)
    (out / "part-00003.parquet").unlink()
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    # The lists of rows went at the end; what is missing is cut again from the manifest.
    done = predict(tiny_run, manifest, out, **options)
    assert (done.rows, done.before) == (100, 84)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert {name: after[name] for name in times} == times
    assert table_of(out) == expected(tiny_run, listed, 100)
    again = predict(tiny_run, manifest, out, **options)
    assert again.before == again.rows
    with pytest.raises(UserError, match="top_k 2 there, 3 here"):
        predict(tiny_run, manifest, out, **{**options, "top_k": 3})


def test_a_driver_a_node_and_an_actor_may_die_and_each_id_is_there_once(
    tiny_run: Path, listed: list[str], cluster: Nodes, tmp_path: Path
) -> None:
    rows = 24_000
    manifest = manifest_of(tmp_path, listed, rows)
    out = tmp_path / "out"
    line = [
        sys.executable, "-m", "cliptune", "predict", "--engine", "ray", "--checkpoint",
        str(tiny_run), "--images", str(manifest), "--output", str(out), "--ray-address",
        cluster.address, "--batch-size", "4", "--top-k", "2", "--device", "cpu",
    ]  # fmt: skip

    def wait_for(parts: int) -> None:
        deadline = time.monotonic() + 120
        while len(list(out.glob("part-*"))) < parts:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    first = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(3)
    os.kill(first.pid, signal.SIGKILL)
    first.wait(10)
    before = len(list(out.glob("part-*")))
    second = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(before + 2)
    cluster.kill_node(0)
    wait_for(before + 5)
    assert cluster.kill_actor(1) or cluster.kill_actor(2)
    told = second.communicate(timeout=240)[0]
    assert second.returncode == 1, told  # some photos cannot be read
    assert f"{rows:,} images answered" in told
    found = table_of(out)
    assert [row["id"] for row in found] == [2 * row + 1 for row in range(rows)]
    period = 4 * len(listed)
    once = expected(tiny_run, listed, period)
    for row, values in enumerate(found):
        assert {**values, "id": 0} == {**once[row % period], "id": 0}


def test_a_checkpoint_that_a_node_cannot_load_ends_with_its_own_message(
    tiny_run: Path, listed: list[str], cluster: Nodes, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="bf17"):
        predict(
            tiny_run, manifest_of(tmp_path, listed, 10), tmp_path / "out", precision="bf17",
            ray_address=cluster.address, progress=False,
        )  # fmt: skip


def test_an_address_where_nobody_listens_is_told_at_once(
    tiny_run: Path, listed: list[str], tmp_path: Path
) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match="no cluster answers"):
        predict(
            tiny_run, manifest_of(tmp_path, listed, 10), tmp_path / "out",
            ray_address="127.0.0.1:9", progress=False,
        )  # fmt: skip
    assert time.monotonic() - started < 15


def test_a_check_on_nodes_finds_what_one_machine_finds(
    clean: Path, cluster: Nodes, tmp_path: Path
) -> None:
    one = next((clean / "train").rglob("*.jpg"))
    (clean / "val" / one.parent.name / "copy.jpg").write_bytes(one.read_bytes())
    (one.parent / "broken.jpg").write_bytes(one.read_bytes()[:500])
    here = check_here(clean, progress=False).to_dict()
    there = check(clean, ray_address=cluster.address, progress=False).to_dict()
    assert there == here
    assert {"copies_across_splits", "truncated"} <= {f["kind"] for f in here["findings"]}


def test_a_photo_that_crashes_its_decoder_is_a_row(
    tiny_run: Path, listed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    # A plugin of Pillow that ends the process, in all processes that the cluster starts.
    plugin = (
        "from PIL import Image\n"
        "import os\n"
        "Image.register_open('CRASH', lambda *a: os._exit(9), lambda start: start[:5] == b'CRASH')"
    )
    (tmp_path / "site" / "sitecustomize.py").write_text(plugin, encoding="utf-8", newline="\n")
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    (tmp_path / "crash.png").write_bytes(b"CRASH" * 9)
    listed = [*listed[:7], str(tmp_path / "crash.png"), *listed[7:]]
    manifest = manifest_of(tmp_path, listed, 60)
    line = [
        sys.executable, "-m", "cliptune", "predict", "--engine", "ray", "--checkpoint",
        str(tiny_run), "--images", str(manifest), "--output", str(tmp_path / "out"),
        "--ray-address", "local", "--batch-size", "4", "--device", "cpu",
    ]  # fmt: skip
    told = subprocess.run(line, capture_output=True, text=True, timeout=240)
    assert told.returncode == 1, told.stderr
    found = table_of(tmp_path / "out")
    crashed = [row for row in found if "ended the process" in (row["error"] or "")]
    assert {row["path"] for row in crashed} == {str(tmp_path / "crash.png")}
    assert len(found) == 60
    assert sum(row["error"] is None for row in found) >= 40


def test_what_runs_on_nodes_keeps_few_heaps(cluster: Nodes) -> None:
    """Each has holes of its own, and a process with many grows for millions of photos."""
    from cliptune.distributed.engine import ray_running

    with ray_running(cluster.address) as ray:
        heaps = ray.remote(lambda: os.environ.get("MALLOC_ARENA_MAX"))
        assert ray.get(heaps.remote()) == "2"

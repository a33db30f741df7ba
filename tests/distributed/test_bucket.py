"""A cluster and a bucket: nothing of the job is on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'cliptune[ray]'")
pa = pytest.importorskip("pyarrow")

from cliptune import Predictor  # noqa: E402
from cliptune.distributed import manifest, predict  # noqa: E402
from cliptune.model.checkpoint import resolve_checkpoint  # noqa: E402
from cliptune.storage import joined, listed, opened, write_whole  # noqa: E402
from storages import Faults, failing_proxy, http_server, s3_server  # noqa: E402

pytestmark = [pytest.mark.scale, pytest.mark.filterwarnings("ignore")]


def put(folder: Path, address: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            write_whole(joined(address, path.relative_to(folder).as_posix()), path.read_bytes())


def rows_at(address: str) -> list[dict[str, object]]:
    rows = []
    for entry in listed(address):
        if "/part-" in entry.address:
            with opened(entry.address) as file:
                rows += pa.parquet.read_table(file).to_pylist()
    return sorted(rows, key=lambda row: row["id"])


def test_photos_checkpoint_manifest_and_answers_may_be_in_a_bucket(
    tiny_run: Path, photos: Path
) -> None:
    checkpoint = resolve_checkpoint(tiny_run).path
    predictor = Predictor(checkpoint, device="cpu", batch_size=4)
    paths = sorted((photos / "test").rglob("*.png"), key=lambda path: path.as_posix())
    expected = {path.name: predictor.predict(path).label for path in paths}
    with s3_server() as bucket:
        put(checkpoint, joined(bucket, "run"))
        put(photos / "test", joined(bucket, "new"))
        count = manifest(joined(bucket, "new"), joined(bucket, "m.parquet"))
        assert count == len(paths)
        options = {"batch_size": 4, "ray_address": "local", "progress": False}
        given = (joined(bucket, "run"), joined(bucket, "m.parquet"), joined(bucket, "answers"))
        done = predict(*given, **options)
        assert (done.rows, done.errors) == (count, 0)
        rows = rows_at(joined(bucket, "answers"))
        assert {str(row["path"]).rpartition("/")[2]: row["label"] for row in rows} == expected
        again = predict(*given, **options)
        assert again.before == count
        assert not [e for e in listed(joined(bucket, "answers")) if "_rows" in e.address]


def test_storage_that_fails_gives_each_id_once_and_what_is_not_there_an_error(
    tiny_run: Path, photos: Path, tmp_path: Path
) -> None:
    names = [path.name for path in sorted((photos / "test" / "amber").glob("*.png"))]
    faults = Faults(fails=0.2, hangs=0.0)
    with http_server(photos / "test" / "amber") as address, failing_proxy(address, faults) as proxy:
        paths = [f"{proxy}/{names[row % len(names)]}" for row in range(300)]
        paths[17] = f"{proxy}/none.png"
        pa.parquet.write_table(pa.table({"path": paths}), tmp_path / "m.parquet")
        done = predict(
            tiny_run, tmp_path / "m.parquet", tmp_path / "out", ray_address="local", progress=False
        )
    table = pa.parquet.read_table(tmp_path / "out")
    assert table["id"].to_pylist() == list(range(300))
    errors = [error for error in table["error"].to_pylist() if error]
    assert faults.failed > 30
    assert done.errors == len(errors) <= 5  # each further try fails one time in five
    assert "nothing is there" in table["error"][17].as_py()

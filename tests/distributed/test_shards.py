from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")

from cliptune.distributed.collecting import Collector  # noqa: E402
from cliptune.distributed.shards import (  # noqa: E402
    Asked,
    asked_before,
    cut,
    finish,
    part,
    refuse_another,
    rows_in_shard,
    rows_of,
    unanswered,
    write_table,
)
from cliptune.errors import DataError, UserError  # noqa: E402


def asked(manifest: Path, rows: int, **changes: object) -> Asked:
    values = {
        "manifest": str(manifest), "manifest_sha256": "m", "rows": rows, "shard_rows": 8,
        "checkpoint": "run", "checkpoint_sha256": "c", "top_k": 5, "batch_size": 4,
        "precision": None, "prior": None, "reduced_decoding": False,
    }  # fmt: skip
    return Asked.model_validate(values | changes)


def manifest_of(folder: Path, ids: list[int]) -> Path:
    path = folder / "m.parquet"
    pa.parquet.write_table(pa.table({"id": ids, "path": [f"{i}.jpg" for i in ids]}), path)
    return path


def test_shards_hold_the_rows_of_the_manifest_in_their_order(tmp_path: Path) -> None:
    ids = [3 * row - 20 for row in range(21)]
    job = asked(manifest_of(tmp_path, ids), len(ids))
    cut(str(tmp_path / "out"), job)
    shards = [rows_of(str(tmp_path / "out"), shard) for shard in range(job.shards)]
    assert [len(shard) for shard in shards] == [8, 8, 5] == [job.rows_of(s) for s in range(3)]
    assert pa.concat_tables(shards)["id"].to_pylist() == ids
    assert asked_before(str(tmp_path / "out")) == job


def test_an_id_that_is_there_twice_is_refused_and_nothing_is_begun(tmp_path: Path) -> None:
    ids = [*range(100_000), 77_777]
    with pytest.raises(DataError, match="id 77777 is there 2 times"):
        cut(str(tmp_path / "out"), asked(manifest_of(tmp_path, ids), len(ids), shard_rows=16_384))
    assert asked_before(str(tmp_path / "out")) is None


def test_a_shard_is_of_whole_batches_and_neither_tiny_nor_huge() -> None:
    for rows in (1, 1000, 100_000, 10_000_000, 100_000_000):
        for batch_size in (1, 32, 48, 256):
            size = rows_in_shard(rows, batch_size=batch_size)
            assert size % batch_size == 0
            assert 512 <= size < 16_384 + batch_size


def test_a_folder_begun_for_other_answers_says_what_differs(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, [1, 2])
    refuse_another("out", asked(manifest, 2), asked(tmp_path / "moved", 2, checkpoint="moved"))
    with pytest.raises(UserError, match=r"top_k 5 there, 3 here; batch_size 4 there, 8 here"):
        refuse_another("out", asked(manifest, 2), asked(manifest, 2, top_k=3, batch_size=8))


def test_parts_without_a_job_are_not_written_into(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"id": [1]}), tmp_path / "part-00000.parquet")
    with pytest.raises(UserError, match=r"parts of answers are there, but no _job\.json"):
        asked_before(str(tmp_path))


def answers_of(rows: np.ndarray, shard: int) -> pa.Table:
    rows = np.asarray(rows)
    return pa.table({
        "id": 100 * shard + rows, "error": [None if row % 3 else "broken" for row in rows],
        "shard": np.full(len(rows), shard), "row": rows,
    })  # fmt: skip


def test_rows_in_any_order_and_some_of_them_twice_give_each_shard_once(tmp_path: Path) -> None:
    job = asked(manifest_of(tmp_path, list(range(21))), 21)
    written: dict[int, pa.Table] = {}

    def write(shard: int, table: pa.Table) -> None:
        assert shard not in written
        written[shard] = table

    collector = Collector(job, write)
    assert collector.add(answers_of(np.array([5, 3, 0]), 0)) == 3
    assert collector.add(answers_of(np.arange(8), 1)) == 8
    mixed = pa.concat_tables([answers_of(np.arange(4, 8), 0), answers_of(np.arange(5), 2)])
    assert collector.add(mixed) == 8  # row 5 of shard 0 is there already
    assert set(written) == {1, 2}
    assert collector.add(answers_of(np.arange(8), 0)) == 2
    assert set(written) == {0, 1, 2}
    for shard, table in written.items():
        assert table["id"].to_pylist() == [100 * shard + row for row in range(job.rows_of(shard))]
        assert table.column_names == ["id", "error"]


def test_what_is_written_is_not_asked_again_and_is_counted_at_the_end(tmp_path: Path) -> None:
    job = asked(manifest_of(tmp_path, list(range(21))), 21)
    out = str(tmp_path / "out")
    cut(out, job)
    assert unanswered(out, job) == [0, 1, 2]
    for shard in (2, 0):
        write_table(part(out, shard), answers_of(np.arange(job.rows_of(shard)), shard))
    assert unanswered(out, job) == [1]
    write_table(part(out, 1), answers_of(np.arange(8), 1))
    assert finish(out, job) == 3 + 3 + 2
    assert not (tmp_path / "out" / "_rows").exists()
    write_table(part(out, 1), answers_of(np.arange(7), 1))
    with pytest.raises(DataError, match="7 rows; expected 8"):
        finish(out, job)

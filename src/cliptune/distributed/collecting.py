"""Answers as they come, in any order, to shards that are written when they are whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cliptune.distributed.manifests import import_pyarrow
from cliptune.distributed.memory import give_back
from cliptune.distributed.shards import Asked

if TYPE_CHECKING:
    import pyarrow


class Collector:
    """Holds the shards that are under way, and gives each to `write` once all its rows are there.

    Rows that come twice, since a node was lost and its work done again, count once.
    """

    def __init__(self, asked: Asked, write: Callable[[int, pyarrow.Table], None]) -> None:
        self.asked = asked
        self.write = write
        self._under_way: dict[int, _Shard] = {}

    def add(self, answers: pyarrow.Table) -> int:
        """Take rows with their `shard` and `row`; how many of them are new."""
        pc = import_pyarrow().compute
        new = 0
        for shard in pc.unique(answers["shard"]).to_pylist():
            rows = answers.filter(pc.equal(answers["shard"], shard))
            under_way = self._under_way.setdefault(shard, _Shard(self.asked.rows_of(shard)))
            new += under_way.add(rows)
            if under_way.missing == 0:
                self.write(shard, under_way.whole())
                del self._under_way[shard]
                give_back()
        return new


class _Shard:
    def __init__(self, rows: int) -> None:
        self.seen = np.zeros(rows, dtype=bool)
        self.pieces: list[pyarrow.Table] = []

    @property
    def missing(self) -> int:
        return int((~self.seen).sum())

    def add(self, rows: pyarrow.Table) -> int:
        places = rows["row"].to_numpy()
        fresh = ~self.seen[places]
        self.seen[places] = True
        self.pieces.append(rows.filter(import_pyarrow().array(fresh)))
        return int(fresh.sum())

    def whole(self) -> pyarrow.Table:
        """Its rows in their order, without what said where they belong."""
        table = import_pyarrow().concat_tables(self.pieces).sort_by("row")
        return table.drop_columns(["shard", "row"]).combine_chunks()

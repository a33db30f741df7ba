"""What is asked, cut into shards, and which of them are answered: all of it in the output folder.

    part-00000.parquet   the answers of a shard, there whole or not at all
    _job.json            what is asked: the same command goes on, another is refused
    _rows/00000.parquet  id and path of a shard's photos, until all are answered

Names that begin with _ are passed over by whoever reads the folder as one table.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from cliptune._version import __version__
from cliptune.distributed.manifests import blocks_of, import_pyarrow
from cliptune.distributed.places import below, delete, exists, names_in, opened, write_whole
from cliptune.errors import DataError, StorageError, UserError

if TYPE_CHECKING:
    import pyarrow

JOB = "_job.json"
ROWS = "_rows"
_PART = re.compile(r"part-(\d{5,})\.parquet")
_SHARDS = 200  # as many at least, where that leaves `_FEWEST` rows to each
_FEWEST, _MOST = 512, 16_384  # rows of a shard
_BUCKETS = 64  # of ids, looked through one at a time for any that is there twice


class Asked(BaseModel):
    """What the answers of a folder depend on."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    cliptune: str = __version__
    manifest: str
    manifest_sha256: str
    rows: int
    shard_rows: int
    checkpoint: str
    checkpoint_sha256: str
    top_k: int
    batch_size: int
    precision: str | None
    prior: Any
    reduced_decoding: bool

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.rows // self.shard_rows)

    def rows_of(self, shard: int) -> int:
        """How many rows it has: as many as the others, but for the last."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)


# Where a folder is gone on with, these may be others: the same answers come from elsewhere.
_MAY_DIFFER = {"cliptune", "manifest", "checkpoint"}


def digest_of(address: str) -> str:
    """SHA-256 of the file at `address`, read a piece at a time."""
    with opened(address) as file:
        sums = hashlib.sha256()
        while piece := file.read(2**20):
            sums.update(piece)
    return sums.hexdigest()


def rows_in_shard(rows: int, *, batch_size: int) -> int:
    """How many rows go into a shard: whole batches, so that rows share one as in a single pass."""
    wanted = min(_MOST, max(_FEWEST, -(-rows // _SHARDS)))
    return -(-wanted // batch_size) * batch_size


def number_of_rows(manifest: str) -> int:
    """How many photos `manifest` names. Raises as `blocks_of`; `DataError` for none."""
    if manifest.lower().endswith(".parquet"):
        with opened(manifest) as file:
            rows = int(import_pyarrow().parquet.ParquetFile(file).metadata.num_rows)
    else:
        rows = sum(map(len, blocks_of(manifest)))
    if not rows:
        raise DataError(f"{manifest}: it names no photo.")
    return rows


def asked_before(folder: str) -> Asked | None:
    """What the folder was begun for, or None for a new one.

    Raises `UserError` for a folder that holds something else.
    """
    job = below(folder, JOB)
    if not exists(job):
        parts = next(_parts(folder), None)
        if parts is not None:
            raise UserError(
                f"--output {folder}: parts of answers are there, but no {JOB} that says to what. "
                "Choose another folder."
            )
        return None
    try:
        with opened(job) as file:
            return Asked.model_validate_json(file.read())
    except ValidationError as error:
        raise UserError(
            f"{job}: it is not what this version writes ({error.error_count()} faults). Choose "
            "another folder."
        ) from None


def refuse_another(folder: str, before: Asked, asked: Asked) -> None:
    """Raise `UserError` where the folder was begun for something else, naming what differs."""
    old, new = before.model_dump(exclude=_MAY_DIFFER), asked.model_dump(exclude=_MAY_DIFFER)
    differs = [f"{key} {old[key]} there, {new[key]} here" for key in old if old[key] != new[key]]
    if differs:
        raise UserError(
            f"--output {folder}: it was begun for other answers ({'; '.join(differs)}). Run the "
            "command it was begun with, or choose another folder."
        )


def cut(folder: str, asked: Asked) -> None:
    """Write the rows of each shard, and then what is asked; in memory is one shard alone.

    Raises `DataError` where an id is there twice.
    """
    arrow = import_pyarrow()
    rest, shard = [], 0
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as files:
        ids = _Ids(Path(scratch), files)
        for block in blocks_of(asked.manifest):
            ids.add(block["id"].to_numpy())
            rest.append(block)
            while sum(map(len, rest)) >= asked.shard_rows:
                table = arrow.concat_tables(rest)
                _write_rows(folder, shard, table.slice(0, asked.shard_rows))
                rest, shard = [table.slice(asked.shard_rows)], shard + 1
        if sum(map(len, rest)):
            _write_rows(folder, shard, arrow.concat_tables(rest))
        ids.refuse_repeated(asked.manifest)
    text = json.dumps(asked.model_dump(), indent=2, ensure_ascii=False)
    write_whole(below(folder, JOB), text.encode())


class _Ids:
    """Ids on the disk, in buckets by value, so that looking for repeated ones takes one bucket."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        paths = (folder / str(bucket) for bucket in range(_BUCKETS))
        self._files = [files.enter_context(path.open("w+b")) for path in paths]

    def add(self, ids: NDArray[np.int64]) -> None:
        # By the upper bits of a product (Knuth's multiplicative hashing): ids may be any pattern.
        spread = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        buckets = (spread >> np.uint64(58)).astype(np.int64)
        for bucket in np.unique(buckets):
            self._files[bucket].write(ids[buckets == bucket].tobytes())

    def refuse_repeated(self, manifest: str) -> None:
        for file in self._files:
            file.seek(0)
            ids, counts = np.unique(np.frombuffer(file.read(), np.int64), return_counts=True)
            if (counts > 1).any():
                place = int(np.argmax(counts > 1))
                raise DataError(
                    f"{manifest}: id {ids[place]} is there {counts[place]} times. Expected each "
                    "once; or leave the column out, and rows are numbered."
                )


def _write_rows(folder: str, shard: int, table: pyarrow.Table) -> None:
    write_table(_rows_file(folder, shard), table)


def _rows_file(folder: str, shard: int) -> str:
    return below(folder, ROWS, f"{shard:05d}.parquet")


def has_rows(folder: str, shard: int) -> bool:
    """Whether the rows of a shard are listed."""
    return exists(_rows_file(folder, shard))


def rows_of(folder: str, shard: int) -> pyarrow.Table:
    """`id` and `path` of the photos of a shard."""
    name = _rows_file(folder, shard)
    try:
        with opened(name) as file:
            table: pyarrow.Table = import_pyarrow().parquet.read_table(file)
    except (FileNotFoundError, StorageError):
        raise UserError(
            f"--output {folder}: a node cannot read {name}. Expected a folder that every node "
            "reaches: a shared disk, or an address such as s3://bucket/answers."
        ) from None
    return table


def tried(folder: str, shard: int) -> int:
    """How often answering a shard was begun before; counts this time, too."""
    name = below(folder, ROWS, f"{shard:05d}.tries")
    times = 0
    if exists(name):
        with opened(name) as file:
            times = int(file.read())
    write_whole(name, str(times + 1).encode())
    return times


def write_table(address: str, table: pyarrow.Table) -> None:
    """Write `table` as Parquet; it appears whole or not at all."""
    arrow = import_pyarrow()
    buffer = arrow.BufferOutputStream()
    arrow.parquet.write_table(table, buffer, compression="zstd")
    write_whole(address, buffer.getvalue().to_pybytes())


def part(folder: str, shard: int) -> str:
    """Where the answers of a shard are."""
    return below(folder, f"part-{shard:05d}.parquet")


def _parts(folder: str) -> Iterator[int]:
    for name in names_in(folder):
        if found := _PART.fullmatch(name):
            yield int(found[1])


def unanswered(folder: str, asked: Asked) -> list[int]:
    """The numbers of the shards that have no answers yet."""
    there = set(_parts(folder))
    return [shard for shard in range(asked.shards) if shard not in there]


def finish(folder: str, asked: Asked) -> int:
    """Look whether each part has its rows, and how many have errors; then drop the lists of rows.

    Parts are looked at by their footers alone. Raises `DataError` for one that has not.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        faults = sum(pool.map(lambda shard: _errors_in(folder, asked, shard), range(asked.shards)))
    delete(below(folder, ROWS))
    return faults


def _errors_in(folder: str, asked: Asked, shard: int) -> int:
    name = part(folder, shard)
    with opened(name) as file:
        footer = import_pyarrow().parquet.ParquetFile(file).metadata
    if footer.num_rows != asked.rows_of(shard):
        raise DataError(
            f"{name}: {footer.num_rows:,} rows; expected {asked.rows_of(shard):,}. Delete it and "
            "run the same command again."
        )
    column = footer.schema.names.index("error")
    nulls = sum(
        footer.row_group(group).column(column).statistics.null_count
        for group in range(footer.num_row_groups)
    )
    return int(footer.num_rows - nulls)

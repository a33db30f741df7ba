"""What nodes do: read the photos of a shard and answer, in one place or in two.

Rows carry `shard` and `row`, their place in it, so that whoever collects them puts each where it
belongs, in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cliptune._version import __version__
from cliptune.data.images import Preprocess
from cliptune.data.reading import Unreadable
from cliptune.distributed.manifests import import_pyarrow
from cliptune.distributed.memory import give_back
from cliptune.distributed.places import below
from cliptune.distributed.shards import rows_of, tried
from cliptune.errors import CliptuneError, UserError
from cliptune.inference.careful import CarefulReader
from cliptune.inference.columns import as_columns
from cliptune.inference.predictor import Predictor
from cliptune.inference.reader import Reader
from cliptune.storage import is_address

if TYPE_CHECKING:
    import pyarrow

# Begun as often before and never ended, a shard may hold a photo that ends whoever reads it. Nodes
# that come and go may have done so, too: then it is only slower.
_TIMES = 3

Rows = Mapping[str, NDArray[Any]]


def answers_schema(further: Sequence[str] = ()) -> pyarrow.Schema:
    """The columns of the answers, in their order; `further` as of `Prediction.further`."""
    arrow = import_pyarrow()
    return arrow.schema([
        ("id", arrow.int64()), ("path", arrow.string()), ("label", arrow.string()),
        ("name", arrow.string()), ("probability", arrow.float64()),
        ("labels", arrow.list_(arrow.string())), ("probabilities", arrow.list_(arrow.float64())),
        ("known", arrow.bool_()), ("known_score", arrow.float64()), ("error", arrow.string()),
        *((name, arrow.string()) for name in further),
    ])  # fmt: skip


class Answering:
    """An actor that loads the checkpoint once and answers.

    Called with numbers of shards it reads their photos itself; with crops that `Reading` made, it
    answers those.
    """

    def __init__(
        self, *, checkpoint: str, folder: str, base: str, top_k: int, version: str, **options: Any
    ) -> None:
        self.folder, self.base = folder, base
        # What is raised here reaches whoever asks as a text alone; with the first rows, as it is.
        self.fault: CliptuneError | None = None
        try:
            _refuse_version(version)
            self.predictor = Predictor(checkpoint, **options)
            self.reader = self.predictor.reader
            self.top_k = min(top_k, len(self.predictor.class_names))
        except CliptuneError as error:
            self.fault = error

    def __call__(self, rows: Rows) -> Iterator[pyarrow.Table]:
        """The answers, a few batches at a time. Raises what loading the checkpoint did."""
        if self.fault is not None:
            raise self.fault
        if "pixels" in rows:
            answers = self.predictor.batch(rows, top_k=self.top_k)
            yield self._table(rows, answers)
            return
        for shard in rows["shard"]:
            listed = rows_of(self.folder, int(shard))
            paths = located(listed["path"].to_pylist(), self.base)
            self.predictor.reader = reader_for(self.reader, self.folder, int(shard))
            results = self.predictor.stream(paths, top_k=self.top_k)
            step = 8 * self.predictor.batch_size
            for start in range(0, len(listed), step):
                answers = as_columns(
                    list(islice(results, step)), top_k=self.top_k,
                    further=self.predictor.engine.further,
                )  # fmt: skip
                yield self._table(_placed(listed.slice(start, step), int(shard), start), answers)
            give_back()

    def _table(self, rows: Rows, answers: Rows) -> pyarrow.Table:
        arrow, schema = import_pyarrow(), answers_schema(self.predictor.engine.further)
        columns = {**answers, **{key: rows[key] for key in ("id", "path")}}
        # From numpy's NaN as from None: there is no value.
        arrays = [
            arrow.array(list(columns[field.name]), field.type, from_pandas=True)
            if columns[field.name].ndim == 1
            else _lists(columns[field.name], columns["label"], field.type)
            for field in schema
        ]
        table = arrow.table(arrays, schema=schema)
        for key in ("shard", "row"):
            table = table.append_column(key, arrow.array(rows[key]))
        return table


def _lists(values: NDArray[Any], labels: NDArray[Any], kind: Any) -> Any:
    """A list for each row, or null where nothing was answered."""
    return import_pyarrow().array(
        [None if label is None else list(row) for row, label in zip(values, labels, strict=True)],
        kind,
    )


class Reading:
    """Reads the photos of shards on CPUs, for actors that answer on another device."""

    def __init__(
        self, *, preprocess: Preprocess, reduced_decoding: bool, threads: int | None,
        batch_size: int, folder: str, base: str, version: str,
    ) -> None:  # fmt: skip
        _refuse_version(version)
        self.reader = Reader(
            preprocess=preprocess, reduced_decoding=reduced_decoding, threads=threads
        )
        self.batch_size, self.folder, self.base = batch_size, folder, base

    def __call__(self, rows: Rows) -> Iterator[dict[str, NDArray[Any]]]:
        """`pixels` (B, 3, H, W), zeros beside an `error`, with the rows they belong to."""
        height, width = self.reader.preprocess.image_size
        for shard in rows["shard"]:
            listed = rows_of(self.folder, int(shard))
            paths = located(listed["path"].to_pylist(), self.base)
            reader = reader_for(self.reader, self.folder, int(shard))
            crops = reader.ahead(paths, most=2 * self.batch_size)
            for start in range(0, len(listed), self.batch_size):
                batch = [crop.pixels for crop in islice(crops, self.batch_size)]
                pixels = np.zeros((len(batch), 3, height, width), np.uint8)
                faults = np.full(len(batch), "", dtype=object)  # engines make NaN of None
                for place, found in enumerate(batch):
                    if isinstance(found, Unreadable):
                        faults[place] = found.reason
                    else:
                        pixels[place] = found
                placed = _placed(listed.slice(start, len(batch)), int(shard), start)
                yield {**placed, "pixels": pixels, "error": faults}
            give_back()


def _placed(listed: pyarrow.Table, shard: int, start: int) -> dict[str, NDArray[Any]]:
    return {
        "id": listed["id"].to_numpy(),
        "path": np.array(listed["path"].to_pylist(), dtype=object),
        "shard": np.full(len(listed), shard, np.int64),
        "row": np.arange(start, start + len(listed), dtype=np.int64),
    }


def reader_for(reader: Reader, folder: str, shard: int) -> Reader:
    """`reader`, or one that outlives its photos where a shard was begun too often."""
    if tried(folder, shard) < _TIMES:
        return reader
    return CarefulReader(
        preprocess=reader.preprocess, reduced_decoding=reader.reduced_decoding, threads=1
    )


def located(paths: Sequence[str], base: str) -> list[str]:
    """`paths` as they are read from anywhere: what is relative lies below `base`."""
    return [path if is_address(path) else below(base, path) for path in paths]


def _refuse_version(driver: str) -> None:
    if driver != __version__:
        raise UserError(
            f"a node has cliptune {__version__}, whoever asks {driver}. Install one version on all."
        )

"""Lists of photos too long for one machine: Parquet or CSV of paths, made and read by blocks.

A manifest has a column `path` (addresses, absolute paths, or paths from the manifest's folder on)
and perhaps an int64 `id`; further columns are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cliptune.data.image_files import IMAGE_SUFFIXES
from cliptune.distributed.places import absolute, exists, opened, whole
from cliptune.errors import DataError, MissingExtra, UserError, named, reason
from cliptune.files import user_path
from cliptune.storage import is_address, listed

if TYPE_CHECKING:
    import pyarrow

BLOCK = 65_536  # rows at a time
ENDINGS = (".parquet", ".csv")


def import_pyarrow() -> Any:
    """The module `pyarrow`, with its readers. Raises `MissingExtra`."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "ray", "a manifest of photos") from None
    return pyarrow


def write_manifest(source: str | Path, output: str | Path) -> int:
    """Write a manifest of all photos below `source` to `output`, and say how many there are.

    `source` is a folder, the address of one, or a text file (.txt) with a path in each line;
    `output` ends in .parquet or .csv. Rows are numbered from 0 in `id`, in the order of the
    listing. Raises `UserError` for another ending, `DataError` where there is no photo.
    """
    arrow = import_pyarrow()
    ending = _ending(str(output), "--output")
    schema = arrow.schema([("id", arrow.int64()), ("path", arrow.string())])
    paths = iter(_paths(source))
    rows = 0
    with whole(absolute(output)) as file:
        if ending == ".csv":
            writer = arrow.csv.CSVWriter(file, schema)
        else:
            writer = arrow.parquet.ParquetWriter(file, schema, compression="zstd")
        with writer:
            while block := list(islice(paths, BLOCK)):
                ids = arrow.array(range(rows, rows + len(block)), arrow.int64())
                writer.write_table(arrow.table([ids, _strings(arrow, block)], schema=schema))
                rows += len(block)
        if not rows:
            raise DataError(
                f"{source}: no photos in it. Expected {', '.join(sorted(IMAGE_SUFFIXES))}."
            )
    return rows


def _strings(arrow: Any, paths: list[str]) -> Any:
    try:
        return arrow.array(paths, arrow.string())
    except UnicodeEncodeError:
        bad = next(path for path in paths if not path.isprintable())
        raise DataError(f"{bad!r}: this name is not valid Unicode. Rename the file.") from None


def _paths(source: str | Path) -> Iterator[str]:
    if is_address(source):
        return (each.address for each in listed(str(source)) if _is_photo(each.address))
    path = user_path(source).absolute()
    if path.is_dir():
        return _below(path)
    if path.is_file() and path.suffix.lower() == ".txt":
        return _lines(path)
    raise UserError(
        f"{source}: expected a folder of photos, the address of one, or a .txt file with a path in "
        "each line."
    )


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in map(str.strip, file):
            if line:
                yield line if is_address(line) else str(path.parent / line)


def _below(folder: Path) -> Iterator[str]:
    """The photos below `folder`, folder by folder, sorted within each; no hidden ones."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            os.path.join(root, name)  # noqa: PTH118 - a Path for each of millions is slow
            for name in sorted(files)
            if not name.startswith(".") and _is_photo(name)
        )


def _is_photo(path: str) -> bool:
    return f".{path.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES


def _ending(path: str, option: str) -> str:
    ending = PurePosixPath(path).suffix.lower()
    if ending not in ENDINGS:
        raise UserError(
            f"{option} {path}: found the ending '{ending}'; expected {' or '.join(ENDINGS)}."
        )
    return ending


def refuse_missing(manifest: str) -> None:
    """Raise `UserError` where no manifest is at `manifest`."""
    if not exists(manifest):
        raise UserError(
            f"--images {manifest}: there is no such manifest. Make one with: cliptune manifest "
            "FOLDER --output m.parquet"
        )


def blocks_of(manifest: str | Path, *, ids: bool = True) -> Iterator[pyarrow.Table]:
    """The rows of `manifest` in blocks: `id` (int64; the row's number where none is there), `path`.

    Raises `UserError` for another kind of file, `DataError` for columns or values that are missing
    or of another type.
    """
    arrow = import_pyarrow()
    ending = _ending(str(manifest), "--images")
    first = 0
    with opened(absolute(manifest)) as file:
        read = _csv_blocks if ending == ".csv" else _parquet_blocks
        try:
            for block in read(arrow, file, str(manifest)):
                yield _checked(arrow, block, manifest, first=first)
                first += len(block)
        except arrow.ArrowInvalid as error:
            raise DataError(
                f"{manifest}: it cannot be read as a manifest: {reason(error)}"
            ) from None


def _parquet_blocks(arrow: Any, file: Any, name: str) -> Iterator[Any]:
    table = arrow.parquet.ParquetFile(file)
    columns = _columns(table.schema_arrow.names, name)
    for batch in table.iter_batches(BLOCK, columns=columns):
        yield arrow.Table.from_batches([batch])


def _csv_blocks(arrow: Any, file: Any, name: str) -> Iterator[Any]:
    columns = _columns(_header(arrow, file), name)
    file.seek(0)
    types = {"id": arrow.int64(), "path": arrow.string()}
    convert = arrow.csv.ConvertOptions(include_columns=columns, column_types=types)
    with arrow.csv.open_csv(file, convert_options=convert) as reader:
        for batch in reader:
            yield arrow.Table.from_batches([batch])


def _header(arrow: Any, file: Any) -> list[str]:
    options = arrow.csv.ReadOptions(block_size=2**20)
    with arrow.csv.open_csv(file, read_options=options) as reader:
        names: list[str] = reader.schema.names
    return names


def _columns(found: Iterable[str], name: str) -> list[str]:
    found = list(found)
    if "path" not in found:
        raise DataError(
            f"{name}: its columns are {named(found)}; expected one named path, and perhaps id."
        )
    return [column for column in ("id", "path") if column in found]


def _checked(arrow: Any, block: Any, manifest: str | Path, *, first: int) -> Any:
    """`block` with both columns, of the right types and without holes."""
    count = len(block)
    if "id" not in block.column_names:
        ids = arrow.array(range(first, first + count), arrow.int64())
        block = arrow.table({"id": ids, "path": block["path"]})
    for column, wanted in (("id", arrow.int64()), ("path", arrow.string())):
        kind = block[column].type
        if kind != wanted and not (column == "path" and arrow.types.is_large_string(kind)):
            raise DataError(f"{manifest}: its column {column} is of {kind}; expected {wanted}.")
        if block[column].null_count:
            place = first + block[column].is_null().index(True).as_py()
            raise DataError(f"{manifest}: row {place:,} has no {column}.")
    return block.cast(arrow.schema([("id", arrow.int64()), ("path", arrow.string())]))

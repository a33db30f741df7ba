"""List what is at addresses, page by page or folder by folder, with retries and a deadline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cliptune.errors import StorageError, UserError
from cliptune.storage.addresses import WEB, joined, path_in, protocol_of
from cliptune.storage.objects import Entry, ask, entry_of
from cliptune.storage.patience import ATTEMPTS, TIMEOUT_S, patiently


def listed(
    address: str, *, attempts: int = ATTEMPTS, timeout_s: float = TIMEOUT_S
) -> Iterator[Entry]:
    """All objects below the folder or prefix `address`, at any depth, in an order that stays.

    S3 is asked page by page and no more than a page is held; elsewhere one folder is. Raises
    `StorageError`, and `UserError` for a web server, which lists nothing. Nothing there: nothing
    is listed.
    """
    if protocol_of(address) in ("s3", "s3a"):
        yield from _listed_s3(address, attempts=attempts, timeout_s=timeout_s)
        return
    folders = [address]
    while folders:
        here = folders.pop()
        below = []
        for name, found in _folder(here, attempts=attempts, timeout_s=timeout_s):
            if found["type"] == "directory":
                below.append(joined(here, name))
            else:
                yield entry_of(joined(here, name), found)
        folders += reversed(below)


def subfolders(
    address: str, *, attempts: int = ATTEMPTS, timeout_s: float = TIMEOUT_S
) -> list[str]:
    """The names of the folders directly below `address`, sorted. Raises as `listed` does."""
    found = _folder(address, attempts=attempts, timeout_s=timeout_s)
    return [name for name, about in found if about["type"] == "directory"]


def _folder(address: str, **patience: Any) -> list[tuple[str, dict[str, Any]]]:
    """What is directly in the folder `address`, by name, sorted; nothing where it is not there."""
    attempts, timeout_s = patience["attempts"], patience["timeout_s"]
    if protocol_of(address) in WEB:
        raise UserError(
            f"{address}: a web server does not list what it has. Expected the address of a file, "
            "or of a bucket or folder at s3://, gs://, az://, hf:// or sftp://."
        )

    async def wait(fs: Any, path: str) -> Any:
        return await fs._ls(path, detail=True)

    try:
        found = patiently(
            lambda: ask(address, timeout_s, wait=wait, work=lambda fs, p: fs.ls(p, detail=True)),
            address, attempts=attempts,
        )  # fmt: skip
    except StorageError as error:
        if error.missing:
            return []
        raise
    here = path_in(address).rstrip("/")
    named = [(each["name"].rstrip("/").rpartition("/")[2], each) for each in found]
    # Object stores name the folder itself where somebody made an empty object of it.
    return sorted(
        (pair for pair in named if pair[0] and pair[1]["name"].rstrip("/") != here),
        key=lambda pair: pair[0],
    )


def _listed_s3(address: str, *, attempts: int, timeout_s: float) -> Iterator[Entry]:
    bucket, _, prefix = path_in(address).partition("/")
    prefix = f"{prefix}/" if prefix else ""
    further: dict[str, str] = {}

    async def wait(fs: Any, path: str) -> Any:
        return await fs._call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **further)

    def none(fs: Any, path: str) -> Any:
        raise AssertionError("s3fs waits")

    while True:
        page = patiently(
            lambda: ask(address, timeout_s, wait=wait, work=none), address, attempts=attempts
        )
        for found in page.get("Contents", []):
            name = found["Key"][len(prefix) :]
            if name and not name.endswith("/"):
                yield Entry(joined(address, name), found["Size"], found.get("ETag"))
        if not page.get("IsTruncated"):
            return
        further["ContinuationToken"] = page["NextContinuationToken"]

"""Which text is an address, and which file system of fsspec answers for it.

Only the protocols listed here: fsspec knows others, which chain one another, reach into archives
or talk to programs, and none of that should follow from a line of somebody's manifest.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import url2pathname

from cliptune.errors import MissingExtra, UserError
from cliptune.hints import did_you_mean

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Of two letters or more, since C:/ is a drive. A `Path` has made one slash of two.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://", re.ASCII)
_COLLAPSED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)", re.ASCII)


class Protocol(NamedTuple):
    """Where the file system of a protocol is, and what has to be installed for it."""

    module: str
    name: str
    package: str
    extra: str
    options: dict[str, Any]


# Each library's own retries are off: a request is tried as often as is said, with its deadline.
_S3 = Protocol(
    "s3fs", "S3FileSystem", "s3fs", "s3",
    {"use_listings_cache": False,
     "config_kwargs": {"retries": {"total_max_attempts": 1}, "max_pool_connections": 64}},
)  # fmt: skip
_GCS = Protocol("gcsfs", "GCSFileSystem", "gcsfs", "gcs", {"use_listings_cache": False})
_AZURE = Protocol(
    "adlfs", "AzureBlobFileSystem", "adlfs", "azure", {"use_listings_cache": False}
)  # fmt: skip
_SFTP = Protocol("cliptune.storage.sftp", "SFTP", "paramiko", "sftp", {})
_HTTP = Protocol(
    "fsspec.implementations.http", "HTTPFileSystem", "aiohttp", "http",
    {"client_kwargs": {"trust_env": True}},  # proxies, and ~/.netrc
)  # fmt: skip
_LOCAL = Protocol("fsspec.implementations.local", "LocalFileSystem", "fsspec", "http", {})
PROTOCOLS = {
    "s3": _S3, "s3a": _S3, "gs": _GCS, "gcs": _GCS, "az": _AZURE, "abfs": _AZURE, "abfss": _AZURE,
    "hf": Protocol("huggingface_hub", "HfFileSystem", "huggingface_hub", "hub",
                   {"use_listings_cache": False}),
    "sftp": _SFTP, "ssh": _SFTP, "http": _HTTP, "https": _HTTP, "file": _LOCAL,
    "memory": Protocol("fsspec.implementations.memory", "MemoryFileSystem", "fsspec", "http", {}),
}  # fmt: skip


WEB = ("http", "https")


def is_address(path: str | Path) -> bool:
    """Whether `path` is an address, `scheme://…`, of whatever scheme."""
    return address_of(path) is not None


def address_of(path: str | Path) -> str | None:
    """The address that `path` is, also one of which a `Path` was made; None for a path.

    A `Path` makes one slash of two. Where something here is called so, that is meant.
    """
    if isinstance(path, str):
        return path if _ADDRESS.match(path) else None
    text = path.as_posix()
    found = _COLLAPSED.match(text)
    if found and found[1].lower() in PROTOCOLS and not os.path.lexists(path):
        local = found[1].lower() == "file"
        return f"{found[1]}://{'/' if local else ''}{text[found.end() :]}"
    return None


def protocol_of(address: str) -> str:
    """The scheme of `address`, one of `PROTOCOLS`. Raises `UserError` for others."""
    found = _ADDRESS.match(address)
    scheme = found[1] if found else ""
    if scheme not in PROTOCOLS:
        known = sorted(set(PROTOCOLS) - {"memory"})
        raise UserError(
            f"{address}: '{scheme}' is no protocol that is read.{did_you_mean(scheme, known)} "
            f"Expected one of {', '.join(f'{each}://' for each in known)}, or a path."
        )
    if "@" in (where := urlsplit(address).netloc) and ":" in where.rpartition("@")[0]:
        hidden = address.replace(where.rpartition("@")[0], "…", 1)
        raise UserError(
            f"{hidden}: a password in an address ends up in logs and reports. Leave it out, and "
            "use keys, an agent, or the configuration file of the protocol."
        )
    return scheme


def file_system(address: str) -> tuple[AbstractFileSystem, str]:
    """fsspec's file system for `address`, with the user's own credentials, and the path in it.

    Raises `MissingExtra` where the package of its protocol is not installed, and `UserError` for
    a protocol that is not read or an address with a password in it. What connecting raises is the
    library's.
    """
    kind, options = _class_of(address)
    made = kind(**options, **kind._get_kwargs_from_urls(address))
    if hasattr(made, "retries"):  # s3fs and gcsfs
        made.retries = 1
    return made, path_in(address)


def path_in(address: str) -> str:
    """What the file system of `address` calls it. Raises as `file_system` does."""
    kind, _ = _class_of(address)
    if protocol_of(address) == "file":
        return _local(address)
    return str(kind._strip_protocol(address))


def _local(address: str) -> str:
    """The path of file:///… as `Path.as_uri` writes it, with %20 for a blank."""
    host, slash, rest = address.partition("://")[2].partition("/")
    if host not in ("", "localhost"):
        raise UserError(f"{address}: file:// names a file here: file:///folder/photo.jpg.")
    return url2pathname(f"{slash}{rest}") or slash


def _class_of(address: str) -> tuple[Any, dict[str, Any]]:
    protocol = PROTOCOLS[protocol_of(address)]
    try:
        kind = getattr(importlib.import_module(protocol.module), protocol.name)
    except ImportError:
        raise MissingExtra(protocol.package, protocol.extra, f"{address}: its protocol") from None
    return kind, protocol.options


def lists(address: str) -> bool:
    """Whether what is below `address` can be listed: web servers do not."""
    return protocol_of(address) not in WEB


def joined(address: str, name: str) -> str:
    """The address of `name`, a relative path with slashes, below `address`."""
    protocol = protocol_of(address)
    if protocol not in WEB:
        return f"{address.rstrip('/')}/{quote(name) if protocol == 'file' else name}"
    parts = urlsplit(address)
    path = f"{parts.path.rstrip('/')}/{quote(name)}"
    return urlunsplit(parts._replace(path=path))

"""fsspec's SFTP, with the host keys and the settings that `ssh` itself goes by."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

CONNECTS_WITHIN_S = 20


class SFTP(SFTPFileSystem):  # type: ignore[misc]
    """Hosts that `~/.ssh/known_hosts` does not know are refused; fsspec's own takes any.

    Of `~/.ssh/config` count HostName, Port, User and IdentityFile. No instance is shared: paramiko
    takes one thread at a time.
    """

    cachable = False

    def _connect(self) -> None:
        options = dict(self.ssh_kwargs)
        settings = _ssh_settings(self.host)
        options.setdefault("port", int(settings.get("port", 22)))
        options.setdefault("username", settings.get("user"))
        self.client = paramiko.SSHClient()
        self.client.load_system_host_keys()
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        self.client.connect(
            settings.get("hostname", self.host),
            key_filename=settings.get("identityfile"),
            timeout=CONNECTS_WITHIN_S,
            banner_timeout=CONNECTS_WITHIN_S,
            auth_timeout=CONNECTS_WITHIN_S,
            **options,
        )
        self.ftp = self.client.open_sftp()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        """As it is written, ? and # too; `sftp://host` itself is the root."""
        if "://" not in path:
            return path
        rest = path.partition("://")[2].partition("/")[2]
        return f"/{rest}".rstrip("/") or "/"

    @staticmethod
    def _get_kwargs_from_urls(urlpath: str) -> dict[str, Any]:
        parts = urlsplit(urlpath)
        found = {
            "host": parts.hostname or "",
            "port": parts.port,
            "username": unquote(parts.username) if parts.username else None,
        }
        return {key: value for key, value in found.items() if value is not None}


def _ssh_settings(host: str) -> dict[str, Any]:
    path = Path("~/.ssh/config").expanduser()
    if not path.is_file():
        return {}
    return dict(paramiko.SSHConfig.from_path(str(path)).lookup(host))


def put_whole(fs: SFTP, source: Path, path: str) -> None:
    """Write the file `source` beside `path` on the server, and rename it: whole or not at all."""
    folder, _, name = path.rpartition("/")
    fs.makedirs(folder or "/", exist_ok=True)
    partial = f"{folder}/.{name}.{secrets.token_hex(4)}.partial"
    try:
        fs.ftp.put(str(source), partial)
        fs.ftp.posix_rename(partial, path)
    except BaseException:
        with suppress(Exception):
            fs.ftp.remove(partial)
        raise

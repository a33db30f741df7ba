"""A small server that speaks the hub's protocol, as huggingface_hub speaks it, for tests.

Models alone: made, committed to, listed, fetched; files of more than `LARGE` bytes and safetensors
go by LFS. Whatever it is sent it remembers. Its only token is `TOKEN`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"
LARGE = 10_000


@dataclass
class Repository:
    """Its branches, oldest commit first, and the files of each commit."""

    private: bool = False
    branches: dict[str, list[str]] = field(default_factory=lambda: {"main": []})
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        """A commit of all `files`; returns its name."""
        told = f"{len(self.commits)} {branch} {message}"
        name = hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()
        self.branches[branch].append(name)
        self.commits[name] = files
        self.messages.append(message)
        return name

    def at(self, revision: str) -> str | None:
        """The commit that a branch or the name of a commit means."""
        if revision in self.branches:
            return self.branches[revision][-1] if self.branches[revision] else None
        return revision if revision in self.commits else None

    def files(self, revision: str = "main") -> dict[str, bytes]:
        found = self.at(revision)
        return {} if found is None else self.commits[found]


class Hub(ThreadingHTTPServer):
    """`sent` are the bytes of every request: its line and headers, and its body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.sent: list[bytes] = []
        self.lines: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def store(self) -> str:
        """Where large files are: on another host, as with the hub."""
        return f"http://localhost:{self.server_address[1]}"

    def put(self, name: str, folder: Path, *, branch: str = "main", private: bool = False) -> str:
        """A commit with all files of `folder`; returns its name."""
        found = self.repositories.setdefault(name, Repository(private))
        if branch != "main":
            found.branches.setdefault(branch, [])
        files = {path.relative_to(folder).as_posix(): path.read_bytes()
                 for path in folder.rglob("*") if path.is_file()}  # fmt: skip
        return found.commit(branch, files)

    def environment(self, home: Path, *, token: str | None = TOKEN) -> dict[str, str]:
        """Of a process that knows this hub as the only one, its caches below `home`."""
        env = {key: x for key, x in os.environ.items() if key not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
        env |= {"HF_ENDPOINT": self.address, "HF_HOME": str(home / "hf"),
                "CLIPTUNE_CACHE": str(home / "cliptune"), "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1,localhost"}  # fmt: skip
        return env if token is None else env | {"HF_TOKEN": token}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *arguments: Any) -> None:
        self.server.lines.append(format % arguments)

    def do_HEAD(self) -> None:
        self.answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.server.sent.append(self.raw_requestline + bytes(self.headers) + body)
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {TOKEN}"):
            self.refuse(401, "", "Invalid credentials in Authorization header")
            return
        self.known = given is not None
        match self.command, parts:
            case "PUT", ["large", oid]:
                assert hashlib.sha256(body).hexdigest() == oid
                self.server.large[oid] = body
                self.send(b"")
            case _, ["large", oid]:
                self.send(self.server.large[oid])
            case "POST", ["api", "validate-yaml"]:
                self.tell({"errors": [], "warnings": []})
            case "POST", ["api", "repos", "create"] if self.known:
                self.create(json.loads(body))
            case _, ["api", "models", owner, name, *rest]:
                self.of_model(f"{owner}/{name}", rest, body)
            case "POST", [owner, name, "info", "lfs", "objects", "batch"] if self.known:
                self.batch(json.loads(body))
            case _, [owner, name, "resolve", revision, *path]:
                self.resolve(f"{owner}/{name}", revision, "/".join(path))
            case _:
                self.refuse(401, "", "Invalid username or password.")

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            self.tell({"url": f"{self.server.address}/{name}"}, 409)
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server.repositories[name] = Repository(private)
        self.tell({"url": f"{self.server.address}/{name}"})

    def of_model(self, name: str, rest: list[str], body: bytes) -> None:
        repository = self.readable(name)
        if repository is None:
            return
        match self.command, rest:
            case "POST", ["branch", *branch] if self.known:
                known = "/".join(branch) in repository.branches
                repository.branches.setdefault("/".join(branch), [*repository.branches["main"]])
                self.tell({}, 409 if known else 200)
            case "POST", ["preupload", _] if self.known:
                files = [{"path": file["path"], "uploadMode": _mode(file), "shouldIgnore": False,
                          "oid": None} for file in json.loads(body)["files"]]  # fmt: skip
                self.tell({"files": files})
            case "POST", ["commit", revision] if self.known:
                self.commit(name, repository, revision, body)
            case "GET", [] | ["revision", _] | ["tree", _]:
                revision = rest[1] if rest else "main"
                commit = repository.at(revision)
                if commit is None and revision != "main":
                    self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                elif rest[:1] == ["tree"]:
                    self.tell([self.listed(*each) for each in repository.files(revision).items()])
                else:
                    self.tell({
                        "id": name, "modelId": name, "sha": commit, "private": repository.private,
                        "siblings": [{"rfilename": x} for x in repository.files(revision)],
                        "tags": [], "downloads": 0, "likes": 0,
                    })  # fmt: skip
            case _:
                self.refuse(403, "", "Forbidden: this token may not write.")

    def commit(self, name: str, repository: Repository, revision: str, body: bytes) -> None:
        files, message = dict(repository.files(revision)), ""
        for line in body.splitlines():
            each = json.loads(line)
            value = each["value"]
            match each["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        oid = repository.commit(revision, files, message)
        url = f"{self.server.address}/{name}/commit/{oid}"
        self.tell({"commitUrl": url, "commitOid": oid, "success": True})

    def batch(self, asked: dict[str, Any]) -> None:
        self.tell({"transfer": "basic", "objects": [
            {"oid": each["oid"], "size": each["size"], "actions": {
                "upload": {"href": f"{self.server.store}/large/{each['oid']}"}}}
            for each in asked["objects"]
        ]})  # fmt: skip

    def listed(self, path: str, content: bytes) -> dict[str, Any]:
        told: dict[str, Any] = {
            "type": "file", "path": path, "size": len(content), "oid": _oid(content)
        }  # fmt: skip
        if _is_large(path, len(content)):
            digest = hashlib.sha256(content).hexdigest()
            told["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        return told

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.readable(name)
        if repository is None:
            return
        commit = repository.at(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif path not in repository.commits[commit]:
            self.refuse(404, "EntryNotFound", f"Entry not found: {path}")
        else:
            content = repository.commits[commit][path]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(content)}"'}
            if _is_large(path, len(content)):
                digest = hashlib.sha256(content).hexdigest()
                self.server.large[digest] = content
                headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content)),
                            "Location": f"{self.server.store}/large/{digest}"}  # fmt: skip
                self.send(b"", 302, headers)
            else:
                self.send(content, 200, headers)

    def readable(self, name: str) -> Repository | None:
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self.known):
            self.refuse(404 if self.known else 401, "RepoNotFound", "Repository not found")
            return None
        return found

    def refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.send(json.dumps({"error": message}).encode(), status, headers)

    def tell(self, value: object, status: int = 200) -> None:
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _mode(file: dict[str, Any]) -> str:
    return "lfs" if _is_large(file["path"], file["size"]) else "regular"


def _is_large(path: str, size: int) -> bool:
    return path.endswith(".safetensors") or size > LARGE


def _oid(content: bytes) -> str:
    """Git's name of a file."""
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


@contextmanager
def a_hub() -> Iterator[Hub]:
    """A hub that runs."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()

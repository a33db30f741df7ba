"""Storage for tests on loopback, real servers each: HTTP, SFTP and S3, and one that fails."""

from __future__ import annotations

import functools
import http.client
import http.server
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

STARTS_WITHIN_S = 60


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[Any]) -> None:
    """Return once somebody listens at `port`."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"it ended with {process.returncode} before it listened")
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens at {port}")


@contextmanager
def _running(*command: str | Path, port: int, **options: Any) -> Iterator[None]:
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, **options,
    )  # fmt: skip
    try:
        wait_for_port(port, process)
        yield
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.terminate()
        process.wait(10)


@contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """`os.environ` with `values` (None: without), for this process and what it starts."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _set(values)
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def http_server(folder: Path) -> Iterator[str]:
    """Debian's nginx, or else Python's own server, over `folder`: yields its address."""
    pytest.importorskip("aiohttp", reason="the extra 'http' is not installed")
    port = free_port()
    if nginx := shutil.which("nginx"):
        own = folder.parent / f"nginx-{port}"
        own.mkdir()
        config = own / "nginx.conf"
        config.write_text(
            f"daemon off; pid {own}/pid; error_log {own}/log; worker_processes 1;\n"
            + ("user root;\n" if os.getuid() == 0 else "")
            + "events {} http { access_log off; client_body_temp_path "
            f"{own}/body; proxy_temp_path {own}/proxy; fastcgi_temp_path {own}/fastcgi; "
            f"uwsgi_temp_path {own}/uwsgi; scgi_temp_path {own}/scgi;\n"
            f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n",
            encoding="utf-8",
        )
        command: list[str | Path] = [nginx, "-c", config, "-p", own]
    else:
        command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1",
                   "--directory", folder]  # fmt: skip
    with _running(*command, port=port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def sftp_server(folder: Path) -> Iterator[str]:
    """OpenSSH's server as this user, with keys of its own: yields the address of `folder` there.

    Inside, the home folder is one that knows the server and has a key for it.
    """
    pytest.importorskip("paramiko", reason="the extra 'sftp' is not installed")
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if sshd is None:
        pytest.skip("openssh-server is not installed")
    port = free_port()
    own = folder.parent / f"sshd-{port}"
    home = own / "home"
    (home / ".ssh").mkdir(parents=True)
    for key in (own / "host_key", home / ".ssh" / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    shutil.copy(home / ".ssh" / "id_ed25519.pub", own / "authorized_keys")
    host_key = (own / "host_key.pub").read_text(encoding="utf-8")
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}", encoding="utf-8")
    (own / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {own}/host_key\nPidFile {own}/pid\n"
        f"AuthorizedKeysFile {own}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\n"
        "MaxSessions 100\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n",
        encoding="utf-8",
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (
        _running(sshd, "-D", "-e", "-f", own / "sshd_config", port=port),
        environment(HOME=str(home), SSH_AUTH_SOCK=None),
    ):
        yield f"sftp://127.0.0.1:{port}{folder}"


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's server: yields the address of an empty bucket.

    Inside, the environment names its endpoint and credentials, as it does of any S3.
    """
    pytest.importorskip("s3fs", reason="the extra 's3' is not installed")
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(*command, port=port), s3_environment(endpoint):
        import botocore.session

        client = botocore.session.get_session().create_client("s3")
        client.create_bucket(Bucket="photos")
        client.close()
        yield "s3://photos"


@contextmanager
def s3_environment(endpoint: str) -> Iterator[None]:
    """The variables by which any program finds the S3 at `endpoint`."""
    with environment(
        AWS_ENDPOINT_URL=endpoint,
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    ):
        forget_s3()
        yield
        forget_s3()


def forget_s3() -> None:
    """Have s3fs, which keeps its connections, look at the environment anew."""
    if "s3fs" in sys.modules:
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def gcs_server() -> Iterator[str]:
    """gcp-storage-emulator: yields the address of an empty bucket of Google's protocol."""
    pytest.importorskip("gcsfs", reason="the extra 'gcs' is not installed")
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    port = free_port()
    start = "from gcp_storage_emulator.__main__ import main; main()"
    command = [sys.executable, "-c", start, "start", "--host=127.0.0.1", f"--port={port}",
               "--in-memory", "--default-bucket=photos"]  # fmt: skip
    with (
        _running(*command, port=port),
        environment(
            STORAGE_EMULATOR_HOST=f"http://127.0.0.1:{port}",
            FSSPEC_GCS_TOKEN="anon",
            GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT="false",  # asked by gRPC, which the emulator lacks
        ),
    ):
        yield "gs://photos"


class Faults:
    """What a failing server does: with what chance, in which ways, and how often it did.

    A failing request is answered by 503 ("status"), by a broken connection ("drop"), or by half of
    the content ("half"), in turns; a hanging one not at all for `hang_s` seconds.
    """

    def __init__(
        self,
        *,
        fails: float,
        hangs: float,
        ways: tuple[str, ...] = ("status", "drop", "half"),
        seed: int = 0,
        hang_s: float = 30,
    ) -> None:
        self.fails, self.hangs, self.ways, self.hang_s = fails, hangs, ways, hang_s
        self._rng, self._lock = random.Random(seed), threading.Lock()
        self.requests = self.failed = self.hung = 0
        self.over = threading.Event()

    def next(self) -> str:
        """What becomes of the next request: "well", "hang", or one of `ways`."""
        with self._lock:
            self.requests += 1
            drawn = self._rng.random()
            if drawn < self.hangs:
                self.hung += 1
                return "hang"
            if drawn < self.hangs + self.fails:
                self.failed += 1
                return self.ways[self.failed % len(self.ways)]
            return "well"


@contextmanager
def failing_proxy(endpoint: str, faults: Faults) -> Iterator[str]:
    """A server before the one at `endpoint`, http://host:port, that fails as `faults` say."""
    handler = functools.partial(_Failing, endpoint.removeprefix("http://"), faults)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        faults.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Failing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, upstream: str, faults: Faults, *args: Any) -> None:
        self.upstream, self.faults = upstream, faults
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        fate = self.faults.next()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fate == "hang":
            self.faults.over.wait(self.faults.hang_s)
            self.close_connection = True
            return
        if fate == "status":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fate == "drop":
            self.close_connection = True
            return
        self._pass_on(body, half=fate == "half")

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _pass_on(self, body: bytes, *, half: bool) -> None:
        upstream = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if half and self.command != "HEAD":
            self.close_connection = True
            content = content[: len(content) // 2]
        self.wfile.write(content)

"""Servers and those who ask them, for what is measured of `cliptune serve`."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BOUNDARY = "b" * 24
# wrk asks with what this gives it: each connection takes photo after photo, from its own place.
LUA = """
local bodies = {}
for path in io.lines("%s") do
  local file = io.open(path, "rb")
  bodies[#bodies + 1] = file:read("*a")
  file:close()
end
local at = 0
function request()
  at = at %% #bodies + 1
  return wrk.format("POST", "/predict", {["Content-Type"] = "%s"}, bodies[at])
end
"""


class Server:
    """A server in a process of its own, `address` as soon as it says so."""

    def __init__(self, *command: object, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            encoding="utf-8", env=environment,
        )  # fmt: skip
        self.told: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(line)
            if found := re.search(r"http://[0-9.:]+", line):
                break
        else:
            raise SystemExit("".join(self.told))
        self.address = found[0]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        self.told += list(self.process.stdout)

    def end(self) -> int:
        """Tell it to, and wait; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


@contextmanager
def serving(checkpoint: Path, *options: str, **more: dict[str, str]) -> Iterator[Server]:
    """`cliptune serve` at a free port."""
    server = Server(
        sys.executable, "-m", "cliptune", "serve", checkpoint, "--port", "0", *options, **more
    )
    try:
        yield server
    finally:
        server.end()


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What wrk measured."""

    per_second: float
    refused: int  # answers that are none of 2xx or 3xx, and sockets that failed
    median_ms: float
    p99_ms: float


def prepared(photos: Sequence[Path], scratch: Path, *, form: bool) -> Path:
    """The script for wrk that sends `photos`, as they are or as forms."""
    scratch.mkdir(parents=True, exist_ok=True)
    listing, script = scratch / "bodies.txt", scratch / "ask.lua"
    paths = []
    for i, photo in enumerate(photos):
        paths.append(scratch / f"{i}.body" if form else photo)
        if form:
            paths[-1].write_bytes(as_form(photo.read_bytes()))
    listing.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8", newline="\n")
    kind = f"multipart/form-data; boundary={BOUNDARY}" if form else "image/jpeg"
    script.write_text(LUA % (listing, kind), encoding="utf-8", newline="\n")
    return script


def as_form(photo: bytes) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="p.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()


def wrk(address: str, script: Path, *, clients: int, seconds: int) -> Rate:
    """Asked by `clients` that wait for each answer. Needs Debian's package wrk."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    told = subprocess.run(
        ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "--timeout", "60s",
         "-s", script, address],
        capture_output=True, text=True, encoding="utf-8", check=True,
    ).stdout  # fmt: skip

    def number(pattern: str) -> float:
        found = re.search(pattern, told)
        return float(found[1]) if found else 0.0

    def milliseconds(percent: str) -> float:
        found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)", told)
        scale = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
        return float(found[1]) * scale[found[2]] if found else float("nan")

    sockets = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", told)))
    return Rate(
        per_second=number(r"Requests/sec:\s+([\d.]+)"),
        refused=int(number(r"Non-2xx or 3xx responses: (\d+)")) + sockets,
        median_ms=milliseconds("50"),
        p99_ms=milliseconds("99"),
    )


def tell(**values: object) -> None:
    """A line of JSON."""
    print(json.dumps(values), flush=True)

"""Ten thousand requests that mean no good: no 500, no hang, no file opened, no connection made.

    make hostile                                                    on a run of the demo's drawings
    python benchmarks/serving/hostile.py RUN --photos FOLDER --requests 10000

A third by schemathesis from the server's own OpenAPI (`pip install schemathesis`), a third photos
that were changed in places, cut, or put together from others, and the rest by hand: bombs of pixels
and of JSON, wrong lengths, slow and cut bodies, names that are paths and addresses, bytes that are
no HTTP. In the server's processes an audit hook of Python notes each file that is opened and each
connection made once it is ready. Whatever happens, good photos are answered before, between and
after.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from drawn import drawn
from load import Server, serving
from strangers import RAW, Request, by_hand, fuzzed

from cliptune.data.image_files import find_images

CHECKS = ",".join((
    "not_a_server_error", "response_schema_conformance", "status_code_conformance",
    "content_type_conformance",
))  # fmt: skip
# Put first on the path of the server's processes.
WATCH = """
import os, sys
_at = os.environ["CLIPTUNE_WATCH"]
_busy = False
def _hook(event, arguments):
    global _busy
    if _busy or event not in ("open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen",
                              "os.system", "os.exec"):
        return
    _busy = True
    try:
        library = str(arguments[0]).endswith((".py", ".pyc", ".so"))  # imported late
        if os.path.exists(_at + ".ready") and not library:
            with open(_at, "a") as file:
                file.write(f"{event} {arguments[:2]!r}\\n")
    finally:
        _busy = False
sys.addaudithook(_hook)
"""


def raw(address: str, content: bytes, *, slow: bool) -> int | str:
    """The status of what is answered to bytes that httpx would not send; "closed" for none."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        try:
            for i in range(0, max(1, len(content)), 7 if slow else 65_536):
                connection.sendall(content[i : i + (7 if slow else 65_536)])
                time.sleep(0.2 if slow and i < 140 else 0)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65_536)
        except TimeoutError:
            return "hung"
        except OSError:
            return "closed"
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else "closed"


def by_schemathesis(server: Server, examples: int) -> tuple[int, str]:
    """(requests made, what it says in the end)."""
    ran = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{server.address}/openapi.json",
         "--max-examples", str(examples), "--checks", CHECKS,
         "--request-timeout", "60", "--seed", "0", "--continue-on-failure", "--phases", "fuzzing",
         "--mode", "all", "--no-color", "--suppress-health-check", "all"],
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr


class Watched:
    """Requests at a server, and what came of them."""

    def __init__(self, server: Server) -> None:
        self.server, self.statuses, self.slowest = server, Counter[int | str](), 0.0
        self._http = httpx.Client(base_url=server.address, timeout=60, trust_env=False)

    def ask(self, request: Request) -> None:
        """What httpx will send."""
        method, path, more = request
        started, found = time.perf_counter(), None
        try:
            found = self._http.request(method, path, **more).status_code
        except httpx.TimeoutException:
            found = "hung"
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError) as error:
            found = f"not sent: {type(error).__name__}"
        self._note(found, started)

    def throw(self, content: bytes, *, slow: bool) -> None:
        """What it would not."""
        started = time.perf_counter()
        self._note(raw(self.server.address, content, slow=slow), started)

    def _note(self, found: int | str, started: float) -> None:
        self.statuses[found] += 1
        self.slowest = max(self.slowest, time.perf_counter() - started)


def attack(checkpoint: Path, photos: Sequence[Path], *, requests: int) -> bool:
    """Whether nothing of what must not happen did."""
    rng, bodies = random.Random(0), [path.read_bytes() for path in photos[:8]]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(WATCH, encoding="utf-8", newline="\n")
        marks = Path(folder, "opened")
        environment = os.environ | {"PYTHONPATH": folder, "CLIPTUNE_WATCH": str(marks)}
        options = ("--timeout", "20", "--max-bytes", "8000000", "--max-pixels", "4000000")
        with serving(checkpoint, *options, environment=environment) as server:
            first = good(server, bodies[0])
            httpx.post(f"{server.address}/look", content=bodies[0], timeout=60)  # it loads more
            httpx.get(server.address)
            Path(f"{marks}.ready").touch()
            watched, count = Watched(server), requests // 3
            with ThreadPoolExecutor(16) as pool:
                for source in (fuzzed(bodies, rng), by_hand(bodies[0], rng)):
                    list(pool.map(watched.ask, (next(source) for _ in range(count))))
                    assert good(server, bodies[0]) == first, "another answer than before"
                    print(dict(watched.statuses), f"slowest {watched.slowest:.1f} s", flush=True)
                thrown = (rng.choice(RAW) for _ in range(count // 4))
                list(pool.map(lambda each: watched.throw(each, slow=rng.random() < 0.02), thrown))
            print(dict(watched.statuses), f"slowest {watched.slowest:.1f} s", flush=True)
            code, told = by_schemathesis(server, requests // 12)
            print("\n".join(told.splitlines()[-40:]))
            assert good(server, bodies[0]) == first, "another answer than before"
            counted = httpx.get(f"{server.address}/metrics").text.splitlines()
        opened = marks.read_text(encoding="utf-8").splitlines() if marks.exists() else []
    return report(watched, counted, opened, code)


def report(watched: Watched, counted: list[str], opened: list[str], code: int) -> bool:
    """Show what was seen; whether it is well."""
    requests = [line for line in counted if line.startswith("cliptune_requests_total")]
    failed = [line for line in requests if 'status="500"' in line]
    tracebacks = sum("Traceback" in line for line in watched.server.told)
    print(f"{sum(float(line.split()[-1]) for line in requests):,.0f} requests came to the server")
    print("\n".join(line for line in counted if line.startswith("cliptune_workers_replaced_total")))
    print(f"500: {failed or 'none'}; tracebacks: {tracebacks}")
    print(f"opened or connected to: {sorted(set(opened))[:20] or 'nothing'}")
    well = not failed and not opened and not tracebacks and "hung" not in watched.statuses
    return well and code == 0


def good(server: Server, body: bytes) -> dict[str, object]:
    answer = httpx.post(f"{server.address}/predict", content=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return {key: value for key, value in answer.json().items() if key in ("label", "known")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, photos = given.checkpoint, given.photos
        if checkpoint is None:
            checkpoint, photos = drawn(Path(scratch))
        well = attack(checkpoint, find_images(photos), requests=given.requests)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()

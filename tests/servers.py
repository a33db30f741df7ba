"""`cliptune serve` in a process of its own, for tests that ask it."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

STARTS_WITHIN = 120  # seconds: it imports torch, beside other tests


class Served:
    """A server that runs. `lines` are what it printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.lines = process, queue.Queue[str]()
        self.told: list[str] = []
        self._listeners = [
            threading.Thread(target=self._listen, args=(stream,), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for listener in self._listeners:
            listener.start()
        self.address = re.search(r"http://[^ ]+", self.wait_for("http://"))[0]  # type: ignore[index]
        self.client = httpx.Client(base_url=self.address, timeout=60, trust_env=False)

    def _listen(self, stream: Any) -> None:
        with stream:
            for line in stream:
                self.told.append(line)
                self.lines.put(line)

    def wait_for(self, words: str) -> str:
        """The next line that holds `words`."""
        while True:
            try:
                line = self.lines.get(timeout=STARTS_WITHIN)
            except queue.Empty:
                raise AssertionError(f"no line with {words!r} in: {''.join(self.told)}") from None
            if words in line:
                return line

    def close(self) -> None:
        """Once the process has ended: hear it out, and leave nothing open."""
        self.client.close()
        for listener in self._listeners:
            listener.join()

    def counts(self) -> dict[str, float]:
        """What its /metrics say."""
        found = self.client.get("/metrics").text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
                for line in found if not line.startswith("#")}  # fmt: skip

    def worker(self) -> int:
        """The process that answers: it holds torch, and so most memory."""
        import psutil

        children = psutil.Process(self.process.pid).children(recursive=True)
        return int(max(children, key=lambda child: child.memory_info().rss).pid)


@contextmanager
def served(checkpoint: Path, *options: str) -> Iterator[Served]:
    """A server of `checkpoint` at a free port, which has to end well when it is told to."""
    # English lines on any machine, and the page in the language of each browser.
    env = {k: v for k, v in os.environ.items() if k != "CLIPTUNE_LANG"} | {"LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cliptune", "serve", str(checkpoint), "--port", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=env,
    )  # fmt: skip
    server = None
    try:
        server = Served(process)
        yield server
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, server.told
    finally:
        process.kill()
        process.wait()
        if server is not None:
            server.close()


def error_of(answer: httpx.Response) -> str:
    """The words of a refusal, which are all that there is in it."""
    found = json.loads(answer.text)
    assert list(found) == ["error"], found
    return str(found["error"])

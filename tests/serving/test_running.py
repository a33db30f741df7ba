"""A server over time: signals, workers that die or hang, keys, and how it starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cliptune import Predictor
from cliptune.cli import main
from cliptune.errors import UserError
from cliptune.inference.export.export import export
from cliptune.serving.keys import Keys
from servers import Served, error_of, served

if sys.platform == "win32":
    pytest.skip("there are no such signals", allow_module_level=True)


def photo_of(photos: Path, name: str = "blue") -> bytes:
    return next((photos / "test" / name).glob("*.png")).read_bytes()


def ask(server: Served, content: bytes) -> httpx.Response:
    return server.client.post("/predict", content=content)


@pytest.mark.slow
def test_a_server_lives_through_what_happens_to_it(
    tiny_run: Path, photos: Path, tmp_path: Path
) -> None:
    """In turns: a killed worker, one that hangs, a new checkpoint, a broken one, the end."""
    place = tmp_path / "checkpoint"
    best = next(path for path in sorted(tiny_run.glob("checkpoint-*")))
    shutil.copytree(best, place)
    content = photo_of(photos)
    with (
        served(place, "--timeout", "1.5", "--max-waiting", "4") as server,
        ThreadPoolExecutor(16) as threads,
    ):
        first = ask(server, content)
        killed_while_answering(server, content, threads)
        assert ask(server, content).json() == first.json()
        hangs(server, content, threads)
        assert ask(server, content).json() == first.json()
        changes(server, place, tiny_run, content, threads)
        asked = [threads.submit(ask, server, content) for _ in range(3)]
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert [each.result().status_code for each in asked] == [200] * 3
        assert server.process.wait(30) == 0
    assert not any("Traceback" in line for line in server.told), "".join(server.told)


def killed_while_answering(server: Served, content: bytes, threads: ThreadPoolExecutor) -> None:
    worker = server.worker()
    os.kill(worker, signal.SIGSTOP)
    asked = threads.submit(ask, server, content)
    time.sleep(0.5)
    os.kill(worker, signal.SIGKILL)
    answer = asked.result()
    assert (answer.status_code, "ended" in error_of(answer)) == (503, True)
    assert answer.headers["retry-after"]
    server.wait_for("a worker died and was replaced")
    assert server.counts()["cliptune_workers_replaced_total"] == 1


def hangs(server: Served, content: bytes, threads: ThreadPoolExecutor) -> None:
    os.kill(server.worker(), signal.SIGSTOP)
    asked = [threads.submit(ask, server, content) for _ in range(12)]
    found = [each.result() for each in asked]
    statuses = {answer.status_code for answer in found}
    assert statuses == {429, 504}, statuses
    for answer in found:
        words = "waiting already" if answer.status_code == 429 else "no answer within 1.5 seconds"
        assert words in error_of(answer)
    server.wait_for("took longer than 3 s")
    server.wait_for("a worker died and was replaced")


def changes(
    server: Served, place: Path, tiny_run: Path, content: bytes, threads: ThreadPoolExecutor
) -> None:
    """SIGHUP under load loses no request; a checkpoint at fault changes nothing."""
    before = ask(server, content).headers["x-checkpoint"]
    record = place / "cliptune.json"
    whole = record.read_text(encoding="utf-8")
    record.write_text("{", encoding="utf-8", newline="\n")
    server.process.send_signal(signal.SIGHUP)
    assert "cliptune.json" in server.wait_for("nothing was changed")
    assert ask(server, content).headers["x-checkpoint"] == before
    record.write_text(whole, encoding="utf-8", newline="\n")
    other = sorted(tiny_run.glob("checkpoint-*"))[-1]
    shutil.rmtree(place)
    shutil.copytree(other, place)
    server.process.send_signal(signal.SIGHUP)
    found: list[httpx.Response] = []
    until = time.monotonic() + 60
    while time.monotonic() < until and not any("now answering by" in line for line in server.told):
        found += [each.result() for each in [threads.submit(ask, server, content)] * 2]
    server.wait_for("now answering by")
    found.append(ask(server, content))
    assert {answer.status_code for answer in found} == {200}
    assert found[-1].headers["x-checkpoint"] != before


@pytest.mark.slow
def test_where_there_are_keys_answers_need_one_and_keys_can_be_changed(
    tiny_run: Path, photos: Path, tmp_path: Path
) -> None:
    file, first, second = tmp_path / "keys", "k" * 20, "q" * 20
    file.write_text(f"# mine\n{first}\n", encoding="utf-8", newline="\n")
    site = "https://example.org"
    options = ("--api-key-file", str(file), "--cors-origin", site)
    with served(tiny_run, *options) as server:
        ask, content = server.client, photo_of(photos)
        for path in ("/health", "/ready", "/about", "/"):
            assert ask.get(path).status_code == 200
        refused = [
            ask.post("/predict", content=content, headers=headers)
            for headers in ({}, {"X-API-Key": second}, {"Authorization": f"Basic {first}"})
        ]
        refused += [ask.get("/metrics"), ask.post("/look", content=content)]
        assert [answer.status_code for answer in refused] == [401] * 5
        assert "expected 'Authorization: Bearer KEY'" in error_of(refused[0])

        def with_key(key: str, **headers: str) -> httpx.Response:
            headers |= {"Authorization": f"Bearer {key}"}
            return ask.post("/predict", content=content, headers=headers)

        answer = with_key(first, Origin=site)
        assert answer.headers["access-control-allow-origin"] == site
        assert "access-control-allow-origin" not in with_key(first, Origin="https://x.org").headers
        file.write_text(f"{first}\n{second}\n", encoding="utf-8", newline="\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("now answering by")
        assert with_key(second).status_code == with_key(first).status_code == 200
        assert first not in "".join(server.told)


@pytest.mark.parametrize(("text", "words"), [("", "no key"), ("# x\n", "no key"), ("short\n", "5")])
def test_a_file_without_a_good_key_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text, encoding="utf-8", newline="\n")
    with pytest.raises(UserError, match=words):
        Keys(file)


def test_a_server_that_cannot_start_says_why(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*options: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["serve", *options])
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "no such" in fails(str(tmp_path / "nothing"), "--port", "0")
    keys = ("--api-key-file", str(tmp_path / "none"))
    assert "--api-key-file" in fails(str(tiny_run), "--port", "0", *keys)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "Name another port" in fails(str(tiny_run), "--port", port)
    elsewhere = fails(str(tiny_run), "--port", "0", "--host", "192.0.2.1")  # RFC 5737: nobody's
    assert "Expected an address of this machine" in elsewhere


@pytest.mark.slow
def test_workers_end_with_a_server_that_was_killed(tiny_run: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cliptune", "serve", str(tiny_run), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    server = Served(process)
    worker = server.worker()
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while time.monotonic() < until and runs(worker):
        time.sleep(0.1)
    assert not runs(worker)
    server.close()


def runs(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_an_exported_folder_is_served_as_its_checkpoint(
    tiny_run: Path, photos: Path, tmp_path: Path
) -> None:
    export(tiny_run, tmp_path / "exported", progress=False)
    path = next((photos / "test" / "blue").glob("*.png"))
    expected = Predictor(tiny_run, device="cpu").predict(path)
    with served(tmp_path / "exported", "--workers", "2") as server:
        found = ask(server, path.read_bytes()).json()
        assert (found["label"], found["known"]) == (expected.label, expected.known)
        assert found["probability"] == pytest.approx(expected.probability, abs=1e-5)
        assert server.client.get("/about").json()["shows_where_it_looked"] is False
        looked = server.client.post("/look", content=path.read_bytes())
        assert (looked.status_code, "Ask the checkpoint" in error_of(looked)) == (422, True)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["at once", "while loading", "with a worker that hangs"])
def test_a_server_ends_when_it_is_told_to(tiny_run: Path, stage: str) -> None:
    command = [sys.executable, "-m", "cliptune", "serve", str(tiny_run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    if stage == "with a worker that hangs":
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
        for child in children.stdout.split():
            os.kill(int(child), signal.SIGSTOP)
    else:
        time.sleep({"at once": 1.0, "while loading": 3.0}[stage])
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) in (0, -signal.SIGTERM)  # the latter before it could take the signal
    if process.stdout is not None:
        process.stdout.close()

"""Storage that fails, hangs, or sends half: tried again, given up, never taken for whole."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from cliptune.errors import StorageError
from cliptune.storage import fetch, joined, listed, patience, read_bytes, write_whole
from cliptune.storage.patience import passes, patiently
from storages import Faults, failing_proxy, http_server, s3_environment, s3_server, sftp_server

CONTENT = {f"photo {i}.jpg": os.urandom(3000 + i) for i in range(150)}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storage") / "photos"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def web(photos: Path) -> Iterator[str]:
    with http_server(photos) as address:
        yield address


def test_a_storage_that_fails_gives_each_object_right_or_an_error(web: str) -> None:
    faults = Faults(fails=0.2, hangs=0.02, hang_s=5)
    with failing_proxy(web, faults) as place:

        def read(name: str) -> bytes | StorageError:
            try:
                return read_bytes(joined(place, name), timeout_s=1, attempts=3)
            except StorageError as error:
                return error

        with ThreadPoolExecutor(16) as pool:
            found = dict(zip(CONTENT, pool.map(read, CONTENT), strict=True))
        wrong = [n for n, c in found.items() if isinstance(c, bytes) and c != CONTENT[n]]
        errors = [str(c) for c in found.values() if isinstance(c, StorageError)]
    assert faults.failed > 10
    assert faults.hung > 0
    assert wrong == []
    assert all("after 3 attempts" in error for error in errors)
    assert len(errors) < 10  # by chance 1.6 of 150


def test_what_may_pass_is_tried_as_often_as_was_said(web: str) -> None:
    # aiohttp itself asks again, once, where a connection that was idle turns out to be broken.
    faults = Faults(fails=1, hangs=0, ways=("status", "half"))
    with failing_proxy(web, faults) as place, pytest.raises(StorageError, match="after 3 attempts"):
        read_bytes(joined(place, "photo 0.jpg"), attempts=3, timeout_s=5)
    assert faults.requests == 3


def test_what_will_not_pass_is_asked_for_once(web: str) -> None:
    faults = Faults(fails=0, hangs=0)
    with (
        failing_proxy(web, faults) as place,
        pytest.raises(StorageError, match=r"nothing is there$"),
    ):
        read_bytes(joined(place, "none.jpg"))
    assert faults.requests == 1


def test_a_request_that_hangs_is_given_up_and_made_again(web: str) -> None:
    faults = Faults(fails=0, hangs=1, hang_s=30)
    started = time.monotonic()
    with (
        failing_proxy(web, faults) as place,
        pytest.raises(StorageError, match="did not answer in time, after 2 attempts"),
    ):
        read_bytes(joined(place, "photo 0.jpg"), attempts=2, timeout_s=1)
    assert faults.requests == 2
    assert time.monotonic() - started < 10


def test_a_file_of_a_web_server_that_breaks_off_is_fetched_whole(web: str, tmp_path: Path) -> None:
    faults = Faults(fails=0.5, hangs=0, seed=1)
    with failing_proxy(web, faults) as place:
        for name in list(CONTENT)[:20]:
            fetch(joined(place, name), tmp_path / name, attempts=20, timeout_s=2)
            assert (tmp_path / name).read_bytes() == CONTENT[name]
    assert faults.failed > 5


def test_an_sftp_server_that_stands_still_is_given_up_and_used_again(photos: Path) -> None:
    with sftp_server(photos) as place:
        address = joined(place, "photo 0.jpg")
        assert read_bytes(address) == CONTENT["photo 0.jpg"]
        daemon = psutil.Process(int((photos.parent / f"sshd-{_port(place)}/pid").read_text()))
        sessions = daemon.children(recursive=True)
        everybody = [daemon, *sessions]
        for process in everybody:
            process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(StorageError, match="in time, after 2 attempts"):
                read_bytes(address, attempts=2, timeout_s=0.5)
        finally:
            for process in everybody:
                process.send_signal(signal.SIGCONT)
        assert read_bytes(address) == CONTENT["photo 0.jpg"]
        deadline = time.monotonic() + 25
        while _threads() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert _threads() == []  # whoever waited for the server that stood still has ended


def test_an_sftp_server_that_is_gone_is_told(photos: Path) -> None:
    with sftp_server(photos) as place:
        read_bytes(joined(place, "photo 0.jpg"))
    with pytest.raises(StorageError, match="after 2 attempts"):
        read_bytes(joined(place, "photo 0.jpg"), attempts=2, timeout_s=5)


@pytest.mark.scale
def test_an_s3_that_fails_gives_writes_and_lists_all(tmp_path: Path) -> None:
    with s3_server() as bucket:
        faults = Faults(fails=0.2, hangs=0.01, hang_s=5)
        with failing_proxy(os.environ["AWS_ENDPOINT_URL"], faults) as proxy, s3_environment(proxy):
            place = f"{bucket}/few"
            names = list(CONTENT)[:60]
            for name in names:
                write_whole(joined(place, name), CONTENT[name], attempts=8, timeout_s=3)
            found = [each.address for each in listed(place, attempts=8, timeout_s=3)]
            assert found == sorted(joined(place, name) for name in names)
            with ThreadPoolExecutor(16) as pool:
                read = pool.map(lambda a: read_bytes(a, attempts=8, timeout_s=3), found)
                expected = [CONTENT[address.rpartition("/")[2]] for address in found]
                assert list(read) == expected
            always = Faults(fails=1, hangs=0, ways=("status",))
            with failing_proxy(proxy, always) as worse, s3_environment(worse):
                with pytest.raises(StorageError, match="after 3 attempts"):
                    read_bytes(f"{place}/photo 0.jpg", attempts=3, timeout_s=5)
                assert always.requests == 3  # the library's own retries are off
        assert faults.failed > 10


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (OSError(errno.EIO, "input/output"), True),
        (EOFError(), True),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (IsADirectoryError(), False),
        (ValueError("a bug"), False),
    ],
)
def test_what_may_pass(error: Exception, expected: bool) -> None:
    assert passes(error) is expected


def test_the_status_of_what_an_error_came_from_decides() -> None:
    class Answered(Exception):
        status = 503

    error = FileNotFoundError("so says fsspec of any failed look at a web server")
    error.__cause__ = Answered()
    assert passes(error)
    error.__cause__.status = 404
    assert not passes(error)


def test_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)

    def fail() -> None:
        raise TimeoutError

    with pytest.raises(StorageError):
        patiently(fail, "x", attempts=8, pause_s=1)
    assert len(pauses) == 7
    bounds = [min(30.0, 2.0**i) for i in range(7)]
    assert all(bound / 2 <= pause <= bound for bound, pause in zip(bounds, pauses, strict=True))


def _port(address: str) -> str:
    return address.partition("127.0.0.1:")[2].partition("/")[0]


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cliptune-storage"]

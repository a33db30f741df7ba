"""Objects of real servers: what was written is read, whole, listed, and told apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cliptune.errors import StorageError, UserError
from cliptune.storage import (
    entry,
    exists,
    fetch,
    joined,
    listed,
    local_folder,
    opened,
    path_in,
    read_bytes,
    subfolders,
    whole_object,
    write_whole,
)
from storages import gcs_server, http_server, s3_server, sftp_server

CONTENT = {"empty": b"", "a/one.txt": b"one", "a/b/two ü #%.bin": bytes(range(256)) * 500}


@pytest.fixture(
    scope="module",
    params=[
        "memory",
        "file",
        "sftp",
        pytest.param("s3", marks=pytest.mark.scale),
        pytest.param("gcs", marks=pytest.mark.scale),
    ],
)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a folder where things can be put, filled with `CONTENT`."""
    folder = tmp_path_factory.mktemp("storage") / "photos"
    folder.mkdir()
    with ExitStack() as stack:
        address = {
            "memory": lambda: "memory://photos",
            "file": folder.as_uri,
            "sftp": lambda: stack.enter_context(sftp_server(folder)),
            "s3": lambda: f"{stack.enter_context(s3_server())}/some prefix",
            "gcs": lambda: f"{stack.enter_context(gcs_server())}/some prefix",
        }[request.param]()
        for name, content in CONTENT.items():
            write_whole(joined(address, name), content)
        yield address


def test_what_was_written_is_read_to_the_byte(place: str, tmp_path: Path) -> None:
    for name, content in CONTENT.items():
        address = joined(place, name)
        assert read_bytes(address) == content
        assert entry(address).size == len(content)
        fetch(address, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == content


def test_an_object_is_read_in_parts_as_a_file_is(place: str) -> None:
    content = CONTENT["a/b/two ü #%.bin"]
    with opened(joined(place, "a/b/two ü #%.bin")) as file:
        assert file.seek(-7, 2) == len(content) - 7
        assert file.read() == content[-7:]
        file.seek(1000)
        assert file.read(300) == content[1000:1300]
        assert file.tell() == 1300


def test_all_objects_below_are_listed_each_once_and_in_the_same_order(place: str) -> None:
    found = [each.address for each in listed(place)]
    assert sorted(found) == sorted(joined(place, name) for name in CONTENT)
    assert found == [each.address for each in listed(f"{place}/")]
    assert subfolders(place) == ["a"]
    assert list(listed(joined(place, "nowhere"))) == []


def test_what_is_not_there_is_told_at_once(place: str) -> None:
    assert exists(joined(place, "a/one.txt"))
    assert not exists(joined(place, "a/two.txt"))
    with pytest.raises(StorageError, match=r"none\.jpg: nothing is there$") as error:
        read_bytes(joined(place, "none.jpg"))
    assert error.value.missing


def test_more_than_the_limit_is_refused(place: str) -> None:
    address = joined(place, "a/b/two ü #%.bin")
    size = len(CONTENT["a/b/two ü #%.bin"])
    assert len(read_bytes(address, limit_bytes=size)) == size
    with pytest.raises(StorageError, match="larger than"):
        read_bytes(address, limit_bytes=size - 1)


def test_nothing_appears_where_writing_was_broken_off(place: str) -> None:
    address = joined(place, "later/half.txt")

    def break_off() -> None:
        with whole_object(address) as path:
            path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert not exists(address)
    assert list(listed(joined(place, "later"))) == []


def test_an_object_that_changes_has_another_version_or_size(place: str) -> None:
    address = joined(place, "changing/x.txt")
    write_whole(address, b"first")
    before = entry(address)
    write_whole(address, b"second and longer")
    assert entry(address) != before
    assert read_bytes(address) == b"second and longer"


def test_sixteen_threads_read_at_once(place: str) -> None:
    address, content = joined(place, "a/b/two ü #%.bin"), CONTENT["a/b/two ü #%.bin"]
    wrong: list[object] = []

    def read() -> None:
        try:
            wrong.extend(1 for _ in range(8) if read_bytes(address) != content)
        except StorageError as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_web_server_is_read_and_neither_listed_nor_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with http_server(folder) as place:
        for name, content in CONTENT.items():
            assert read_bytes(joined(place, name)) == content
            with opened(joined(place, name)) as file:
                assert file.read() == content
            assert entry(joined(place, name)).size == len(content)
        assert not exists(joined(place, "none"))
        with pytest.raises(StorageError, match="larger than 2 bytes"):
            read_bytes(joined(place, "a/one.txt"), limit_bytes=2)
        with pytest.raises(UserError, match="does not list"):
            list(listed(place))
        with pytest.raises(UserError, match="takes no files"):
            write_whole(joined(place, "x"), b"x")


def test_a_server_with_an_unknown_host_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x").write_bytes(b"x")
    with sftp_server(tmp_path / "photos") as place:
        assert read_bytes(f"{place}/x") == b"x"
        other = place.replace("127.0.0.1", "localhost")  # a name that known_hosts lacks
        with pytest.raises(StorageError, match="not found in known_hosts"):
            read_bytes(f"{other}/x")


def test_a_file_address_is_the_folder_itself(tmp_path: Path) -> None:
    assert local_folder(tmp_path.as_uri()) == tmp_path
    assert Path(path_in(tmp_path.as_uri())) == tmp_path

"""What is an address, and which are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cliptune.errors import MissingExtra, UserError
from cliptune.storage import address_of, file_system, is_address, joined, path_in


@pytest.mark.parametrize(
    "address", ["s3://bucket/a/b.jpg", "https://host:8080/x", "sftp://me@host/x", "file:///a/b"]
)
def test_an_address_is_known_as_text_and_after_a_path_was_made_of_it(address: str) -> None:
    assert is_address(address)
    assert address_of(address) == address_of(Path(address)) == address


@pytest.mark.parametrize("path", ["C:/photos/a.jpg", "photos/a.jpg", "~/a.jpg", "a:b/c", "-", ""])
def test_a_path_is_no_address(path: str) -> None:
    assert not is_address(path)
    assert not is_address(Path(path))


def test_a_folder_here_that_is_called_like_an_address_is_meant_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_address(Path("s3:/bucket"))
    Path("s3:/bucket").mkdir(parents=True)
    assert not is_address(Path("s3:/bucket"))


@pytest.mark.parametrize(
    "address",
    ["ftp://host/a", "simplecache::s3://bucket/a", "zip://a.zip::s3://b/c", "github://a:b@c/d",
     "reference://x", "python://os", "data://text/plain,x"],
)  # fmt: skip
def test_protocols_that_chain_or_reach_elsewhere_are_refused(address: str) -> None:
    with pytest.raises(UserError, match="no protocol that is read"):
        file_system(address)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="password") as refusal:
        file_system("sftp://me:hunter2@host/photos")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("address", "module", "extra"),
    [("s3://b/a", "s3fs", "s3"), ("gs://b/a", "gcsfs", "gcs"), ("az://c/a", "adlfs", "azure"),
     ("sftp://h/a", "paramiko", "sftp"), ("https://h/a", "aiohttp", "http")],
)  # fmt: skip
def test_a_missing_package_is_answered_with_the_line_that_installs_it(
    address: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ("cliptune.storage.sftp", "fsspec.implementations.http", "fsspec.implementations.sftp")
    for name in ours:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(MissingExtra, match=rf"pip install 'cliptune\[{extra}\]'"):
        file_system(address)


def test_names_are_quoted_in_the_addresses_that_are_quoted() -> None:
    assert joined("s3://b/a/", "x y#1.jpg") == "s3://b/a/x y#1.jpg"
    assert joined("https://h/a", "x y#1.jpg") == "https://h/a/x%20y%231.jpg"
    assert joined("https://h/a?key=1", "b.jpg") == "https://h/a/b.jpg?key=1"


def test_a_file_address_is_the_path_that_it_was_made_of(tmp_path: Path) -> None:
    path = tmp_path / "100% dogs #1?.jpg"
    assert Path(path_in(path.as_uri())) == path
    assert Path(path_in(joined(tmp_path.as_uri(), path.name))) == path


def test_without_an_address_no_library_of_storage_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, cliptune.storage, cliptune.data.image_files, cliptune.config\n"
        "from cliptune.storage import local_folder\n"
        f"local_folder({str(tmp_path)!r})\n"
        "found = {'fsspec', 's3fs', 'gcsfs', 'adlfs', 'paramiko', 'aiohttp'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

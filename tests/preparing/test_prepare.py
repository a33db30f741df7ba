"""Making `data/dogs` from archives, folders and downloads that may be broken; checking it."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import resource
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cliptune.checking.check import check
from cliptune.checking.report import check_text
from cliptune.data.folder import load_split, load_training_splits
from cliptune.data.image_files import find_images
from cliptune.data.manifest import MANIFEST
from cliptune.data.splits import SPLITS
from cliptune.errors import DataError, HubError, ResourceError
from cliptune.foreign_errors import disk_errors
from cliptune.preparing.breeds import BREED_OF_FOLDER, BREEDS
from cliptune.preparing.download import NothingFetchedError, RemoteFile, download
from cliptune.preparing.prepare import PrepareResult, prepare
from cliptune.preparing.splitting import split_photos

FOLDER_OF_BREED = {breed: folder for folder, breed in BREED_OF_FOLDER.items()}


def photo_bytes(seed: int, *, side: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def write_photos(folder: Path, classes: dict[str, int], *, side: int = 16) -> Path:
    """`folder/<class>/<class>_<i>.jpg`, every photo different."""
    seed = 0
    for name, number in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            seed += 1
            (folder / name / f"{name}_{i}.jpg").write_bytes(photo_bytes(seed, side=side))
    return folder


def write_tar(path: Path, folder: Path, *, top: str = "Images", mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        tar.add(folder, arcname=top)
    return path


def write_tar_of(path: Path, names: list[str]) -> dict[str, bytes]:
    """A tar of one photo under each of `names`, which a disk might not hold side by side."""
    photos = {name: photo_bytes(seed) for seed, name in enumerate(names)}
    with tarfile.open(path, "w") as tar:
        for name, content in photos.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return photos


def add_member(path: Path, **fields: object) -> None:
    """Append a member to the tar at `path` whose header holds `fields`."""
    member = tarfile.TarInfo("Images/x.jpg")
    for name, value in fields.items():
        setattr(member, name, value)
    with tarfile.open(path, "a") as tar:
        tar.addfile(member, io.BytesIO(bytes(member.size)))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` but its manifest: relative path -> content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def make(output_dir: Path, **options: Any) -> PrepareResult:
    return prepare(output_dir, progress=False, **options)


@pytest.fixture
def dogs_tar(tmp_path: Path) -> Path:
    """An archive laid out as Stanford Dogs is, of 12 breeds with 6 photos each."""
    folders = {FOLDER_OF_BREED[breed]: 6 for breed in BREEDS[:12]}
    return write_tar(tmp_path / "dogs.tar", write_photos(tmp_path / "Images", folders))


def test_there_are_120_breeds_and_no_two_share_a_folder() -> None:
    assert len(BREED_OF_FOLDER) == len(set(BREEDS)) == 120
    assert set(BREED_OF_FOLDER.values()) == set(BREEDS)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", breed) for breed in BREEDS)
    assert BREEDS[:2] == ("golden_retriever", "labrador")
    assert list(BREEDS[10:]) == sorted(BREEDS[10:])


@given(
    number=st.integers(3, 300),
    train_ratio=st.floats(0.01, 0.99),
    share_of_rest=st.none() | st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_a_split_deals_out_each_photo_once_and_leaves_no_part_empty(
    number: int, train_ratio: float, share_of_rest: float | None, seed: int
) -> None:
    val_ratio = None if share_of_rest is None else share_of_rest * (1 - train_ratio)
    photos = list(range(number))
    parts = split_photos(
        photos, name="pug", train_ratio=train_ratio, val_ratio=val_ratio, seed=seed
    )
    dealt = [photo for split in SPLITS for photo in parts[split]]
    assert sorted(dealt) == photos
    assert all(parts[split] for split in SPLITS)
    if number > 20:
        assert abs(len(parts["train"]) - train_ratio * number) <= 2
    if val_ratio is None:
        assert len(parts["test"]) - len(parts["val"]) in (0, 1)
    elif number > 20:
        assert abs(len(parts["val"]) - val_ratio * number) <= 2


def test_seed_and_class_name_move_photos_and_nothing_else_does() -> None:
    def parts(name: str, seed: int) -> dict[str, list[int]]:
        return split_photos(range(100), name=name, train_ratio=0.7, seed=seed)

    assert parts("pug", 1) == parts("pug", 1)
    assert parts("pug", 1) != parts("pug", 2)
    assert parts("pug", 1) != parts("beagle", 1)


def test_adding_a_class_moves_no_photo_of_the_others(tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos", {"a": 10, "b": 10})
    make(tmp_path / "two", source=source)
    write_photos(source, {"c": 10})
    make(tmp_path / "three", source=source)
    two, three = tree(tmp_path / "two"), tree(tmp_path / "three")
    assert set(two) == {path for path in three if path.split("/")[1] != "c"}


def test_an_archive_and_its_unpacked_folder_give_the_same_tree(
    tmp_path: Path, dogs_tar: Path
) -> None:
    packed = write_tar(tmp_path / "dogs.tar.gz", tmp_path / "Images", mode="w:gz")
    trees = []
    for i, source in enumerate([dogs_tar, packed, tmp_path / "Images"]):
        make(tmp_path / f"out{i}", source=source, num_classes=4)
        trees.append(tree(tmp_path / f"out{i}"))
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) == 4 * 6


def test_copies_are_the_photos_themselves(tmp_path: Path, dogs_tar: Path) -> None:
    make(tmp_path / "out", source=dogs_tar)
    originals = {Path(path).name: content for path, content in tree(tmp_path / "Images").items()}
    copies = {Path(path).name: content for path, content in tree(tmp_path / "out").items()}
    assert copies == {name: originals[name] for name in copies}


def test_stanford_dogs_gives_ten_breeds_under_readable_names(
    tmp_path: Path, dogs_tar: Path
) -> None:
    result = make(tmp_path / "out", source=dogs_tar)
    assert result.kind == "made"
    assert result.class_names == tuple(sorted(BREEDS[:10]))
    for split in SPLITS:
        found = sorted(path.name for path in (tmp_path / "out" / split).iterdir())
        assert found == sorted(BREEDS[:10])


def test_own_photos_keep_their_class_names_and_all_are_taken(tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos", {f"Kind {i:02}": 3 for i in range(12)})
    result = make(tmp_path / "out", source=source)
    assert result.class_names == tuple(f"Kind {i:02}" for i in range(12))


def test_what_prepare_makes_is_what_training_and_evaluation_read(
    tmp_path: Path, dogs_tar: Path
) -> None:
    result = make(tmp_path / "out", source=dogs_tar, train_ratio=0.5)
    train, val = load_training_splits(tmp_path / "out", val_ratio=0.1, seed=0)
    test = load_split(tmp_path / "out", "test", class_names=result.class_names)
    for split in (train, val, test):
        assert split.class_names == result.class_names
        assert len(split) == sum(result.counts[split.name].values())
    assert check(tmp_path / "out", progress=False).errors == ()


def test_classes_are_chosen_by_any_spelling_of_their_name(tmp_path: Path, dogs_tar: Path) -> None:
    asked = ["Labrador Retriever", "n02110958-pug", "german-shepherd"]
    result = make(tmp_path / "out", source=dogs_tar, classes=asked)
    assert result.class_names == ("german_shepherd", "labrador", "pug")


def test_an_unknown_class_is_answered_with_the_nearest_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'golden_retreiver' \(nearest: golden_retriever"):
        make(tmp_path / "out", classes=["golden_retreiver", "pug"], download=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "expected 2 to 120"),
        ({"num_classes": 121}, "expected 2 to 120"),
        ({"classes": ["pug"]}, "at least two"),
        ({"classes": ["pug", "Pug"]}, "more than once: pug"),
        ({"classes": ["pug", "boxer"], "num_classes": 3}, "Leave one of the two out"),
        ({"train_ratio": 1.0}, "--train-ratio 1.0"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_made(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        make(tmp_path / "out", download=False, **options)
    assert list(tmp_path.iterdir()) == []


def test_only_photos_are_copied_whatever_the_case_of_their_suffix(tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos", {"a": 3, "b": 3})
    (source / "a" / "SHOUT.JPEG").write_bytes(photo_bytes(99))
    for other in ("notes.txt", ".hidden.jpg", "clip.mp4"):
        (source / "b" / other).write_bytes(b"x")
    (source / "loose.jpg").write_bytes(photo_bytes(98))
    result = make(tmp_path / "out", source=source)
    names = {path.name for path in find_images(tmp_path / "out")}
    assert names == {*(f"{c}_{i}.jpg" for c in "ab" for i in range(3)), "SHOUT.JPEG"}
    assert "3 files are not" in result.summary()
    assert "1 photo lies in no class folder" in result.summary()


def test_files_that_differ_in_case_or_folder_only_are_all_kept(tmp_path: Path) -> None:
    names = ["b/x.jpg", "b/X.jpg", "b/x.JPG", "b/more/x.jpg", *(f"a/{i}.jpg" for i in range(3))]
    photos = write_tar_of(tmp_path / "photos.tar", names)
    make(tmp_path / "out", source=tmp_path / "photos.tar")
    copies = [path for path in find_images(tmp_path / "out") if path.parent.name == "b"]
    assert len({path.name.casefold() for path in copies}) == 4
    assert {path.read_bytes() for path in copies} == {photos[name] for name in names[:4]}


def test_class_folders_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    names = [f"{name}/{i}.jpg" for name in ("Pug", "pug", "boxer") for i in range(3)]
    write_tar_of(tmp_path / "photos.tar", names)
    with pytest.raises(DataError, match="Pug and pug"):
        make(tmp_path / "out", source=tmp_path / "photos.tar")


def test_all_classes_with_too_few_photos_are_named_together(tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos", {"a": 3, "b": 2, "c": 1})
    with pytest.raises(DataError, match=r"b: 2\n  c: 1\n"):
        make(tmp_path / "out", source=source)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_already_split_keeps_its_splits(tmp_path: Path, dogs_tar: Path) -> None:
    make(tmp_path / "out", source=dogs_tar)
    again = make(tmp_path / "again", source=tmp_path / "out")
    assert tree(tmp_path / "again") == tree(tmp_path / "out")
    assert "The splits are the source's own." in again.summary()
    random = make(tmp_path / "random", source=tmp_path / "out", splits="random", seed=7)
    assert random.counts == again.counts
    assert tree(tmp_path / "random").keys() != tree(tmp_path / "out").keys()


def test_the_same_command_again_changes_nothing_and_another_is_refused(
    tmp_path: Path, dogs_tar: Path
) -> None:
    out = tmp_path / "out"
    make(out, source=dogs_tar)
    before = tree(out) | {MANIFEST: (out / MANIFEST).read_bytes()}
    result = make(out, source=dogs_tar)
    assert result.kind == "already_there"
    assert "nothing was changed" in result.summary()
    with pytest.raises(DataError, match=r"--num-classes: made with the default, now 3\n.*--seed"):
        make(out, source=dogs_tar, seed=7, num_classes=3)
    with pytest.raises(DataError, match=r"--source: made with dogs\.tar, now others\.tar"):
        make(out, source=tmp_path / "others.tar")
    assert tree(out) | {MANIFEST: (out / MANIFEST).read_bytes()} == before


def test_without_archive_and_network_the_empty_tree_is_made_and_later_filled(
    tmp_path: Path,
) -> None:
    out = tmp_path / "data" / "dogs"
    result = make(out, num_classes=3, download=False)
    assert result.kind == "empty_tree"
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
    breeds = sorted(BREEDS[:3])
    assert made == sorted([*SPLITS, *(f"{split}/{name}" for split in SPLITS for name in breeds)])
    assert "--no-download" in result.summary()
    assert "no photos yet" in check(out, progress=False).errors[0].detail
    assert make(out, num_classes=3, download=False).kind == "empty_tree"

    folders = {FOLDER_OF_BREED[name]: 5 for name in BREEDS[:2]}
    write_tar(out.parent / "images.tar", write_photos(tmp_path / "Images", folders))
    filled = make(out, download=False)
    assert filled.kind == "made"
    assert sorted(path.name for path in (out / "train").iterdir()) == sorted(BREEDS[:2])
    assert {path.name for path in out.iterdir()} == {*SPLITS, MANIFEST}


def test_a_file_of_the_users_is_never_replaced(tmp_path: Path, dogs_tar: Path) -> None:
    note = tmp_path / "out" / "train" / "pug" / "notes.txt"
    note.parent.mkdir(parents=True)
    note.write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt: this file is in the way"):
        make(tmp_path / "out", source=dogs_tar)
    assert note.read_text() == "mine"


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, exists: bool) -> None:
    source = write_photos(tmp_path / "photos", {"a": 3, "b": 3}, side=200)
    out = tmp_path / "data" / "dogs"
    (out if exists else out.parent).mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses to write a file beyond this size, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ResourceError, match="no space left"):
            make(out, source=source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(out.iterdir() if exists else out.parent.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_no_space_left_on_the_device_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError), disk_errors(tmp_path):
        Path("/dev/full").write_bytes(b"x")


INTERRUPTED_PREPARE = """
import sys
from pathlib import Path
from cliptune.preparing.prepare import prepare

output_dir, source, interrupted_event, number = sys.argv[1:]
seen = []

def interrupt(event, args):
    if event == interrupted_event and ".partial" in str(args[0]):
        if event == "os.rename" or args[1] in ("w", "x"):
            seen.append(event)
            if len(seen) == int(number):
                raise KeyboardInterrupt

sys.addaudithook(interrupt)
try:
    prepare(Path(output_dir), source=Path(source), progress=False)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    ("event", "number", "source"),
    [("open", 10, "Images"), ("open", 10, "dogs.tar"), ("os.rename", 4, "Images")],
)
def test_ctrl_c_while_copying_or_moving_leaves_nothing_behind(
    tmp_path: Path, dogs_tar: Path, event: str, number: int, source: str
) -> None:
    """Interrupted at the tenth photo, and between moving val/ and test/ into place."""
    (tmp_path / "dogs").mkdir()
    command = [sys.executable, "-c", INTERRUPTED_PREPARE, str(tmp_path / "dogs")]
    done = subprocess.run(
        [*command, str(tmp_path / source), event, str(number)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "interrupted\n"
    assert list((tmp_path / "dogs").iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"name": "../evil.jpg"}, "leaves the archive"),
        ({"name": "Images/a/../../../evil.jpg"}, "leaves the archive"),
        ({"name": "Images\\..\\..\\evil.jpg"}, "leaves the archive"),
        ({"name": "/tmp/evil.jpg"}, "an absolute path"),
        ({"name": "C:\\evil.jpg"}, "an absolute path"),
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a link"),
        ({"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, "a link"),
        ({"type": tarfile.CHRTYPE}, "a device"),
        ({"type": tarfile.FIFOTYPE}, "a device or pipe"),
    ],
)
def test_a_harmful_member_is_refused_by_name_before_anything_is_written(
    tmp_path: Path, dogs_tar: Path, fields: dict[str, object], what: str
) -> None:
    add_member(dogs_tar, **fields)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=what) as caught:
        make(tmp_path / "out", source=dogs_tar)
    assert f"'{fields.get('name', 'Images/x.jpg')}'" in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_an_archive_cut_anywhere_is_refused_or_gives_all_its_photos(
    tmp_path: Path, mode: str
) -> None:
    folder = write_photos(tmp_path / "photos", {"a": 3, "b": 3})
    content = write_tar(tmp_path / "whole.tar", folder, mode=mode).read_bytes()
    make(tmp_path / "whole", source=tmp_path / "whole.tar")
    faults = []
    sizes = range(0, len(content), 128)
    for size in sizes:
        cut, out = tmp_path / "cut.tar", tmp_path / f"out{size}"
        cut.write_bytes(content[:size])
        try:
            make(out, source=cut)
        except DataError as error:
            faults.append(str(error))
            assert not out.exists()
        else:
            # Only the padding behind the last photo was lost.
            assert tree(out) == tree(tmp_path / "whole")
    assert all("not a complete tar archive" in fault for fault in faults)
    assert len(faults) > len(sizes) / 4


def test_sources_that_are_no_archive_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "page.tar").write_text("<html>404</html>" * 100)
    with pytest.raises(DataError, match="not a complete tar archive"):
        make(tmp_path / "out", source=tmp_path / "page.tar")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a/1.jpg", b"x")
    with pytest.raises(DataError, match="this is a zip file"):
        make(tmp_path / "out", source=tmp_path / "photos.zip")
    with pytest.raises(DataError, match="no such file or folder"):
        make(tmp_path / "out", source=tmp_path / "nowhere")


@dataclass
class Server:
    """A real HTTP server for one file. `cut` closes the connection after so many bytes."""

    content: bytes
    url: str = ""
    cut: int | None = None
    serves_ranges: bool = True
    status: int | None = None
    requests: list[str | None] = field(default_factory=list)  # their Range headers


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Server]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running: list[tuple[http.server.HTTPServer, threading.Thread]] = []

    def start(content: bytes) -> Server:
        state = Server(content)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                state.requests.append(asked)
                start = int(asked[6:-1]) if asked and state.serves_ranges else 0
                if state.status is not None:
                    self.send_error(state.status)
                    return
                if start >= len(state.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(state.content)}")
                    self.end_headers()
                    return
                body = state.content[start:]
                self.send_response(206 if asked and state.serves_ranges else 200)
                if asked and state.serves_ranges:
                    last, total = len(state.content) - 1, len(state.content)
                    self.send_header("Content-Range", f"bytes {start}-{last}/{total}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: state.cut])

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        state.url = f"http://127.0.0.1:{server.server_port}/images.tar"
        return state

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def remote(server: Server, content: bytes) -> RemoteFile:
    return RemoteFile(server.url, len(content), hashlib.sha256(content).hexdigest())


CONTENT = np.random.default_rng(0).bytes(300_000)


def test_a_broken_download_goes_on_where_it_stopped(
    tmp_path: Path, serve: Callable[[bytes], Server]
) -> None:
    server, target = serve(CONTENT), tmp_path / "images.tar"
    server.cut = 100_000
    for arrived in (100_000, 200_000):
        with pytest.raises(HubError, match=rf"{arrived:,} bytes of 300,000 are kept") as caught:
            download(remote(server, CONTENT), target, progress=False)
        assert not isinstance(caught.value, NothingFetchedError)
        assert (tmp_path / "images.tar.part").read_bytes() == CONTENT[:arrived]
        assert not target.exists()
    server.cut = None
    download(remote(server, CONTENT), target, progress=False)
    assert server.requests == [None, "bytes=100000-", "bytes=200000-"]
    assert target.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [target]


def test_a_server_without_ranges_is_read_from_the_start(
    tmp_path: Path, serve: Callable[[bytes], Server]
) -> None:
    server, target = serve(CONTENT), tmp_path / "images.tar"
    server.serves_ranges = False
    (tmp_path / "images.tar.part").write_bytes(b"old" * 100)
    download(RemoteFile(server.url), target, progress=False)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("size_known", [True, False])
def test_a_download_that_had_all_arrived_is_only_moved_into_place(
    tmp_path: Path, serve: Callable[[bytes], Server], size_known: bool
) -> None:
    server, target = serve(CONTENT), tmp_path / "images.tar"
    (tmp_path / "images.tar.part").write_bytes(CONTENT)
    file = remote(server, CONTENT) if size_known else RemoteFile(server.url)
    download(file, target, progress=False)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("size_known", [True, False])
def test_a_partial_file_longer_than_the_whole_is_started_again(
    tmp_path: Path, serve: Callable[[bytes], Server], size_known: bool
) -> None:
    server, target = serve(CONTENT), tmp_path / "images.tar"
    (tmp_path / "images.tar.part").write_bytes(CONTENT + b"more")
    file = remote(server, CONTENT) if size_known else RemoteFile(server.url)
    download(file, target, progress=False)
    assert target.read_bytes() == CONTENT


def test_a_download_with_a_wrong_digest_is_deleted_and_said(
    tmp_path: Path, serve: Callable[[bytes], Server]
) -> None:
    server = serve(CONTENT)
    other = bytes(len(CONTENT))
    with pytest.raises(HubError, match="damaged and was deleted"):
        download(remote(server, other), tmp_path / "images.tar", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_another_file_than_expected_is_not_fetched(
    tmp_path: Path, serve: Callable[[bytes], Server]
) -> None:
    """Such as the log-in page that a hotel's network answers everything with."""
    server = serve(b"<html>please log in</html>")
    with pytest.raises(NothingFetchedError, match="offers another file"):
        download(remote(server, CONTENT), tmp_path / "images.tar", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_prepare_downloads_the_archive_beside_its_folder_and_uses_it_again(
    tmp_path: Path, dogs_tar: Path, serve: Callable[[bytes], Server]
) -> None:
    server = serve(dogs_tar.read_bytes())
    first = make(tmp_path / "data" / "a", url=server.url)
    second = make(tmp_path / "data" / "b", url=server.url)
    assert first.kind == second.kind == "made"
    assert len(server.requests) == 1
    assert (tmp_path / "data" / "images.tar").read_bytes() == dogs_tar.read_bytes()
    assert tree(tmp_path / "data" / "a") == tree(tmp_path / "data" / "b")


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_server_that_refuses_still_leaves_the_empty_tree(
    tmp_path: Path, serve: Callable[[bytes], Server], status: int
) -> None:
    server = serve(b"")
    server.status = status
    result = make(tmp_path / "data" / "dogs", url=server.url)
    assert result.kind == "empty_tree"
    assert f"the server answered {status}" in " ".join(result.summary().split())


def test_a_server_out_of_reach_still_leaves_the_empty_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as closed:
        port = closed.server_port
    result = make(tmp_path / "data" / "dogs", url=f"http://127.0.0.1:{port}/images.tar")
    assert result.kind == "empty_tree"
    assert "not reached" in " ".join(result.summary().split())
    assert not (tmp_path / "data" / "images.tar.part").exists()


def test_a_download_that_broke_off_makes_no_tree(
    tmp_path: Path, serve: Callable[[bytes], Server]
) -> None:
    server = serve(CONTENT)
    server.cut = 1000
    with pytest.raises(HubError, match="Run the same command again"):
        make(tmp_path / "data" / "dogs", url=server.url)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["images.tar.part"]


def test_summaries_fit_80_columns_with_120_classes_and_long_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = make(Path("empty"), num_classes=120, download=False)
    names = {"狗" * 30: 3, "x" * 60: 3, **{f"class {i}": 3 for i in range(118)}}
    made = make(Path("own"), source=write_photos(Path("photos"), names, side=1))
    assert made.summary().count("\n") > 120
    checked = check_text(check(Path("own"), progress=False))
    for text in (empty.summary(), made.summary(), checked):
        for line in text.splitlines():
            # Chinese characters take two columns.
            assert len(line) + sum("一" <= char <= "鿿" for char in line) <= 80, line


def test_an_output_inside_its_own_source_is_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "photos" / name / f"{i}.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="lie inside each other"):
        prepare(tmp_path / "photos" / "out", source=tmp_path / "photos", progress=False)
    assert not (tmp_path / "photos" / "out").exists()

"""What is fetched whole is kept by its content: fetched once, and anew when it changes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cliptune.config import load_settings
from cliptune.data.image_files import find_images
from cliptune.errors import (
    CheckpointError,
    DataError,
    ImageError,
    SettingsError,
    StorageError,
    UserError,
)
from cliptune.evaluation.evaluate import evaluate
from cliptune.files import SUMS
from cliptune.inference.output import open_output
from cliptune.inference.predictor import Predictor
from cliptune.model.checkpoint import resolve_checkpoint
from cliptune.preparing.prepare import prepare
from cliptune.storage import (
    folder_here,
    joined,
    kept_file,
    kept_folder,
    listed,
    local_folder,
    output_folder,
    read_bytes,
    write_whole,
)
from storages import Faults, failing_proxy, http_server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty folder in the memory of this process, which is listed and written like a bucket."""
    from fsspec.implementations.memory import MemoryFileSystem

    yield "memory://kept"
    MemoryFileSystem.store.clear()


def put(folder: Path, address: str) -> str:
    """All files of `folder` at `address`."""
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            write_whole(joined(address, name), path.read_bytes())
    return address


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_at_an_address_is_that_folder_here(photos: Path, place: str) -> None:
    kept = kept_folder(put(photos, place))
    assert contents(kept) == contents(photos)
    assert kept_folder(f"{place}/") == kept


def test_of_a_folder_that_changed_only_what_changed_is_fetched(
    place: str, cache: Path, tmp_path: Path
) -> None:
    for name in ("a.jpg", "b.jpg", ".hidden"):
        write_whole(joined(place, name), name.encode())
    first = kept_folder(place)
    assert contents(first) == {"a.jpg": b"a.jpg", "b.jpg": b"b.jpg"}
    write_whole(joined(place, "b.jpg"), b"another")
    second = kept_folder(place)
    assert contents(second) == {"a.jpg": b"a.jpg", "b.jpg": b"another"}
    assert contents(first) == {"a.jpg": b"a.jpg", "b.jpg": b"b.jpg"}  # who reads it reads on
    assert first.joinpath("a.jpg").samefile(second / "a.jpg")  # fetched once
    assert len([path for path in (cache / "objects").rglob("*") if path.is_file()]) == 3


def test_a_name_that_leads_out_of_the_folder_is_fetched_nowhere(
    place: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliptune.storage import kept, objects

    planted = [objects.Entry(f"{place}//evil/evil.jpg", 1, "v")]
    monkeypatch.setattr(kept, "listed", lambda address: iter(planted))
    with pytest.raises(DataError, match="leads out"):
        kept_folder(place)
    assert not list(cache.rglob("evil.jpg"))


def test_an_empty_place_is_told(place: str) -> None:
    with pytest.raises(DataError, match=r"memory://kept: nothing is there\. Expected a folder"):
        local_folder(place)


def test_a_file_is_kept_by_its_version(place: str) -> None:
    write_whole(joined(place, "list.csv"), b"1")
    first = kept_file(joined(place, "list.csv"))
    write_whole(joined(place, "list.csv"), b"22")
    second = kept_file(joined(place, "list.csv"))
    assert (first.name, first.read_bytes(), second.read_bytes()) == ("list.csv", b"1", b"22")


def test_a_checkpoint_at_an_address_answers_as_it_does_here(
    tiny_run: Path, photos: Path, place: str
) -> None:
    paths = find_images(photos / "test")
    put(tiny_run, joined(place, "run"))
    put(photos, joined(place, "photos"))
    there = [joined(place, f"photos/{path.relative_to(photos).as_posix()}") for path in paths]
    expected = Predictor(tiny_run, device="cpu").predict_batch(paths)
    found = Predictor(joined(place, "run"), device="cpu").predict_batch(there)
    assert [each.scores for each in found] == [each.scores for each in expected]
    assert [each.source for each in found] == there
    assert found[0].source.startswith("memory://")  # type: ignore[union-attr]


def test_of_a_run_the_best_checkpoint_is_fetched_and_no_other(
    tiny_run: Path, place: str, cache: Path
) -> None:
    best = resolve_checkpoint(tiny_run)
    found = resolve_checkpoint(put(tiny_run, place))
    assert found.path.name == best.path.name
    assert found.record == best.record
    assert [path.name for path in (cache / "checkpoints").glob("*/checkpoint-*")] == [
        best.path.name
    ]


def test_a_checkpoint_is_fetched_once_and_anew_when_it_changed(
    tiny_run: Path, tmp_path: Path
) -> None:
    checkpoint = resolve_checkpoint(tiny_run).path
    shutil.copytree(checkpoint, tmp_path / "web" / "best")
    files = sum(1 for line in (checkpoint / SUMS).read_text().splitlines() if "resume/" not in line)
    faults = Faults(fails=0, hangs=0)  # counts requests
    with http_server(tmp_path / "web") as web, failing_proxy(web, faults) as address:
        first = resolve_checkpoint(f"{address}/best").path
        assert faults.requests == 1 + files
        assert resolve_checkpoint(f"{address}/best").path == first
        assert faults.requests == 2 + files  # the sums alone
        shutil.rmtree(tmp_path / "web" / "best")
        other = next(p for p in tiny_run.glob("checkpoint-*") if p.name != checkpoint.name)
        shutil.copytree(other, tmp_path / "web" / "best")
        second = resolve_checkpoint(f"{address}/best").path
        assert second != first
        assert (second / SUMS).read_bytes() == (other / SUMS).read_bytes()


def test_a_checkpoint_that_is_not_what_its_sums_say_is_not_kept(
    tiny_run: Path, place: str, cache: Path
) -> None:
    put(resolve_checkpoint(tiny_run).path, place)
    good = read_bytes(joined(place, "head.safetensors"))
    write_whole(joined(place, "head.safetensors"), good[:-1] + bytes([good[-1] ^ 1]))
    for _ in range(2):
        with pytest.raises(StorageError, match=r"head\.safetensors was damaged or changed"):
            resolve_checkpoint(place)
    assert not list(cache.glob("checkpoints/*"))
    write_whole(joined(place, "head.safetensors"), good)
    resolve_checkpoint(place)


def test_a_kept_checkpoint_that_was_damaged_here_is_fetched_anew(
    tiny_run: Path, place: str
) -> None:
    kept = resolve_checkpoint(put(resolve_checkpoint(tiny_run).path, place)).path
    (kept / "head.safetensors").write_bytes(b"damaged")
    assert resolve_checkpoint(place).path == kept
    assert (kept / "head.safetensors").read_bytes() != b"damaged"


def test_sums_that_name_a_file_elsewhere_are_refused(
    tiny_run: Path, place: str, tmp_path: Path
) -> None:
    put(resolve_checkpoint(tiny_run).path, place)
    sums = read_bytes(joined(place, SUMS))
    write_whole(joined(place, SUMS), sums + b"0" * 64 + b"  ../../../outside\n")
    with pytest.raises(StorageError, match=r"names '\.\./\.\./\.\./outside'"):
        resolve_checkpoint(place)


def test_a_folder_without_sums_is_no_checkpoint(place: str) -> None:
    write_whole(joined(place, "cliptune.json"), b"{}")
    with pytest.raises(CheckpointError, match=f"no {SUMS} there"):
        resolve_checkpoint(place)


def test_training_and_evaluation_take_their_photos_from_an_address(
    photos: Path, place: str, clip_folder: Path, tmp_path: Path
) -> None:
    from conftest import tensors, trained

    put(photos, place)
    here = trained(tmp_path / "here", clip_folder, photos)
    there = trained(tmp_path / "there", clip_folder, photos, **{"data.data_dir": place})
    best = resolve_checkpoint(there).path
    expected = tensors(resolve_checkpoint(here).path)
    assert all((tensor == expected[name]).all() for name, tensor in tensors(best).items())
    assert f"data_dir: {place}\n" in (best / "config.yaml").read_text(encoding="utf-8")
    of_here = evaluate(here, split="test", device="cpu", output_dir=None)
    written = joined(place, "report")
    of_there = evaluate(there, split="test", device="cpu", output_dir=written)
    assert of_there.figures.accuracy == of_here.figures.accuracy
    assert joined(written, "report.html") in [each.address for each in listed(written)]


def test_prepare_takes_a_folder_and_a_list_at_an_address(
    photos: Path, place: str, tmp_path: Path
) -> None:
    put(photos, joined(place, "photos"))
    prepare(tmp_path / "a", source=joined(place, "photos"))
    assert find_images(tmp_path / "a" / "train")
    rows = [
        f"photos/{p.relative_to(photos).as_posix()},{p.parent.name}" for p in find_images(photos)
    ]
    write_whole(joined(place, "list.csv"), ("path,label\n" + "\n".join(rows)).encode())
    prepare(tmp_path / "b", source=joined(place, "list.csv"))
    assert len(find_images(tmp_path / "b")) == len(rows)


def test_what_cannot_be_read_is_a_row_and_what_can_is_answered(
    tiny_run: Path, photos: Path, place: str
) -> None:
    good = find_images(photos / "test")[0]
    write_whole(joined(place, "good.png"), good.read_bytes())
    write_whole(joined(place, "empty.png"), b"")
    names = ("good.png", "none.png", "empty.png")
    given = [*(joined(place, name) for name in names), "ftp://host/a.png", str(good)]
    predictor = Predictor(tiny_run, device="cpu")
    found = list(predictor.stream(given))
    assert str(found[1]) == "memory://kept/none.png: nothing is there"
    assert str(found[2]) == "memory://kept/empty.png: the file is empty"
    assert str(found[3]).startswith("ftp://host/a.png: 'ftp' is no protocol that is read")
    probabilities = [found[i].probability for i in (0, 4)]  # type: ignore[union-attr]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-6)
    with pytest.raises(ImageError, match="nothing is there"):
        predictor.predict(joined(place, "none.png"))


def test_output_at_an_address_appears_whole_or_not_at_all(place: str) -> None:
    address = joined(place, "out.jsonl")

    def fail() -> None:
        with open_output(address, top_k=1):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(listed(place)) == []
    with open_output(address, top_k=1):
        pass
    assert read_bytes(address) == b""
    with output_folder(joined(place, "report")) as folder:
        (folder / "x.html").write_bytes(b"x")
    assert read_bytes(joined(place, "report/x.html")) == b"x"


def test_output_that_a_web_server_would_have_to_take_is_refused_before_anything(
    tiny_run: Path, photos: Path
) -> None:
    with pytest.raises(UserError, match="takes no files"):
        evaluate(tiny_run, device="cpu", output_dir="https://host/report")


def test_folders_that_are_renamed_and_locked_are_at_no_address(tmp_path: Path) -> None:
    for key in ("output.output_dir", "output.log_dir", "data.cache_dir", "model.cache_dir"):
        with pytest.raises(SettingsError, match=rf"{key}: found s3://b/run, an address"):
            load_settings(overrides={key: "s3://b/run"})
    with pytest.raises(UserError, match="--output s3://b/out: a folder here is expected"):
        folder_here("s3://b/out", "--output")
    assert (
        str(load_settings(overrides={"data.data_dir": "s3://b/c"}).to_dict()["data"]["data_dir"])
        == "s3://b/c"
    )

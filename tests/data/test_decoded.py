from __future__ import annotations

import io
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loading import PREPROCESS

from cliptune import load_settings, train
from cliptune.data.augment import Augmentation
from cliptune.data.decoded import MIB, DecodedPhotos
from cliptune.data.folder import Sample, load_training_splits
from cliptune.data.loading import Key, PhotoDataset
from cliptune.data.reading import Unreadable


def dataset(photos: Path, *, augment: bool = True) -> PhotoDataset:
    train, _ = load_training_splits(photos, val_ratio=0.1, seed=0)
    return PhotoDataset(
        train.samples, PREPROCESS, augmentation=Augmentation() if augment else None, seed=3
    )


def keep(data: PhotoDataset, cache: Path, limit: int = 64 * MIB) -> DecodedPhotos | None:
    data.keep_decoded(cache, limit_bytes=limit, progress=False)
    return data.store


@pytest.mark.parametrize("augment", [True, False])
def test_stored_photos_equal_those_decoded_anew_to_the_bit(
    photos: Path, tmp_path: Path, augment: bool
) -> None:
    anew, stored = dataset(photos, augment=augment), dataset(photos, augment=augment)
    assert keep(stored, tmp_path) is not None
    for index in range(len(anew)):
        for epoch in (0, 4):
            expected, found = anew[Key(epoch, index)], stored[Key(epoch, index)]
            assert not isinstance(expected, Unreadable)
            assert not isinstance(found, Unreadable)
            assert torch.equal(found[0], expected[0])
            assert found[1:] == expected[1:]


def test_a_store_is_used_again_and_rebuilt_when_a_photo_changes(
    photos: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(photos, tmp_path / "data")
    first = keep(dataset(data), tmp_path / "cache")
    built = (first.folder / "pixels.u8").stat().st_mtime_ns
    again = keep(dataset(data), tmp_path / "cache")
    assert again.folder == first.folder
    assert (again.folder / "pixels.u8").stat().st_mtime_ns == built
    one, two = sorted((data / "train" / "amber").iterdir())[:2]
    shutil.copy(two, one)
    changed = keep(dataset(data), tmp_path / "cache")
    assert changed.folder != first.folder
    assert (changed[0] == changed[1]).all()


def test_a_store_beyond_the_limit_is_not_built_and_old_ones_make_room(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="cliptune")
    assert keep(dataset(photos), tmp_path, limit=1000) is None
    assert "data.cache_limit" in caplog.text
    assert not list(tmp_path.glob("photos-*"))
    first = keep(dataset(photos), tmp_path, limit=MIB)
    size = sum(file.stat().st_size for file in first.folder.iterdir())
    other = keep(dataset(photos, augment=False), tmp_path, limit=size + 1000)
    assert other.folder.is_dir()
    assert not first.folder.exists()


def test_an_unreadable_photo_is_named_with_a_store_too(photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    samples = [*dataset(photos).samples[:2], Sample(bad, 0)]
    data = PhotoDataset(samples, PREPROCESS)
    assert len(keep(data, tmp_path / "cache")) == 3
    assert isinstance(data[2], Unreadable)
    assert not isinstance(data[1], Unreadable)


def test_a_damaged_store_is_built_anew(photos: Path, tmp_path: Path) -> None:
    first = keep(dataset(photos), tmp_path)
    expected = first[0].copy()
    (first.folder / "pixels.u8").write_bytes(b"short")
    assert (keep(dataset(photos), tmp_path)[0] == expected).all()


@pytest.mark.slow
def test_two_processes_share_one_store(photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[3:]\n"
        "from test_decoded import dataset, keep\n"
        "store = keep(dataset(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "print(store.folder, int(store[0].sum()))"
    )
    command = [sys.executable, "-c", code, photos, tmp_path, *Path(__file__).parents[:2]]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {run.communicate(timeout=120)[0] for run in runs}
    assert len(answers) == 1
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(list(tmp_path.glob("photos-*"))) == 1


def test_a_cache_that_cannot_be_written_is_gone_without(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    data = dataset(photos)
    assert keep(data, tmp_path / "file" / "cache") is None
    assert "going without" in caplog.text
    assert not isinstance(data[0], Unreadable)


def test_a_runs_own_stores_share_the_limit_and_spare_each_other(
    photos: Path, tmp_path: Path
) -> None:
    first = keep(dataset(photos, augment=False), tmp_path)
    assert first is not None
    other = dataset(photos)
    other.keep_decoded(tmp_path, limit_bytes=first.num_bytes + 1000, beside=[first], progress=False)
    assert other.store is None  # both together would pass the limit
    limit = 64 * MIB
    other.keep_decoded(tmp_path, limit_bytes=limit, beside=[first], progress=False)
    assert other.store is not None
    assert first.folder.is_dir()


def test_a_store_deleted_under_a_run_costs_time_and_nothing_else(
    photos: Path, tmp_path: Path
) -> None:
    anew, stored = dataset(photos), dataset(photos)
    store = keep(stored, tmp_path)
    assert store is not None
    shutil.rmtree(store.folder)
    expected, found = anew[Key(1, 2)], stored[Key(1, 2)]
    assert not isinstance(expected, Unreadable)
    assert not isinstance(found, Unreadable)
    assert torch.equal(found[0], expected[0])


def test_what_killed_builders_left_goes_and_a_held_lock_stays(
    overrides: dict[str, Any], tmp_path: Path
) -> None:
    from filelock import FileLock

    cache = tmp_path / "cache"
    more = {"data.cache": True, "data.cache_dir": str(cache), "training.num_epochs": 1}
    train(load_settings(overrides=overrides | more), progress=False)
    (cache / ".photos-dead.partial").mkdir()
    (cache / ".photos-done.lock").touch()
    with FileLock(cache / ".photos-alive.lock"):
        (cache / ".photos-alive.partial").mkdir()
        train(load_settings(overrides=overrides | more), overwrite=True, progress=False)
        hidden = sorted(path.name for path in cache.glob(".*"))
    assert hidden == [".photos-alive.lock", ".photos-alive.partial"]


def test_a_store_takes_no_room_from_one_beside_it_and_from_any_other(
    photos: Path, tmp_path: Path
) -> None:
    first = keep(dataset(photos, augment=False), tmp_path / "cache")
    alone = keep(dataset(photos), tmp_path / "elsewhere")
    assert first is not None
    assert alone is not None
    limit = max(first.num_bytes, alone.num_bytes) + 1000  # for either, not for both
    assert limit < first.num_bytes + alone.num_bytes
    other = dataset(photos)
    other.keep_decoded(tmp_path / "cache", limit_bytes=limit, beside=[first], progress=False)
    assert (other.store, first.folder.is_dir()) == (None, True)
    other.keep_decoded(tmp_path / "cache", limit_bytes=limit, progress=False)
    assert other.store is not None
    assert not first.folder.exists()


def test_progress_of_decoding_is_shown_on_a_terminal_unless_it_is_not_wanted(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = []
    for options in ({}, {"progress": True}, {"progress": False}):
        monkeypatch.setattr("sys.stderr", screen := Terminal())
        cache = tmp_path / str(len(shown))
        dataset(photos).keep_decoded(cache, limit_bytes=64 * MIB, **options)
        shown.append("img" in screen.getvalue())
    assert shown == [True, True, False]

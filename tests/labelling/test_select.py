"""`select`: photos to label next."""

from __future__ import annotations

import csv
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_distances

from cliptune import Predictor
from cliptune.cli import main
from cliptune.errors import DataError, UserError
from cliptune.labelling.select import COLUMNS, select_photos
from cliptune.labelling.selection import METHODS, select, unsureness
from cliptune.training.head.logistic import Floats, directions
from conftest import make_photos
from sources import make, placed


def pool(*, photos: int = 120, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Answers (N, 3), directions (N, 8), and directions (10, 8) of known photos."""
    rng = np.random.default_rng(seed)
    chances_NC = rng.dirichlet(np.ones(3), size=photos)
    return chances_NC, *(directions(rng.normal(size=(n, 8))) for n in (photos, 10))  # type: ignore[return-value]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [1, 7, 119, 120, 500])
def test_every_method_takes_different_photos_as_many_as_asked(method: str, number: int) -> None:
    chances_NC, towards_ND, known_MD = pool()
    for known in (known_MD, known_MD[:0]):
        chosen = select(chances_NC, towards_ND, known, number, method=method, seed=1)
        assert len(chosen) == len(set(chosen)) == min(number, 120)
        assert set(chosen) <= set(range(120))


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_takes_the_same_photos(method: str) -> None:
    one, same, other = (
        select(*pool(photos=400), 20, method=method, seed=seed) for seed in (1, 1, 2)
    )
    assert one == same
    if method in ("random", "unsure-coverage", "gradients"):
        assert one != other


@pytest.mark.parametrize("method", METHODS)
def test_photos_that_are_all_alike_and_sure_are_taken_all_the_same(method: str) -> None:
    chances_NC = np.tile([1.0, 0.0, 0.0], (30, 1))
    towards_ND = np.tile(np.eye(4)[0], (30, 1))
    chosen = select(chances_NC, towards_ND, towards_ND[:3], 10, method=method, seed=0)
    assert len(set(chosen)) == 10


def test_margin_takes_the_smallest_gaps_between_the_two_best() -> None:
    chances_NC, towards_ND, known_MD = pool()
    best_NC = np.sort(chances_NC, axis=1)
    gaps_N = best_NC[:, -1] - best_NC[:, -2]
    np.testing.assert_allclose(unsureness(chances_NC), 1 - gaps_N)
    chosen = select(chances_NC, towards_ND, known_MD, 10, method="margin", seed=0)
    assert chosen == np.argsort(gaps_N)[:10].tolist()


def test_coverage_takes_each_time_the_farthest_from_all_known_and_chosen() -> None:
    chances_NC, towards_ND, known_MD = pool()
    chosen = select(chances_NC, towards_ND, known_MD, 8, method="coverage", seed=0)
    known = known_MD
    for place in chosen:
        assert place == cosine_distances(towards_ND, known).min(axis=1).argmax()
        known = np.vstack([known, towards_ND[place]])


def test_gradients_are_spread_as_outer_products_are() -> None:
    """By the embedding of BADGE written out, of the photos drawn with the same numbers."""
    chances_NC, towards_ND, known_MD = pool()
    chosen = select(chances_NC, towards_ND, known_MD, 12, method="gradients", seed=3)
    pulls_NC = chances_NC - np.eye(3)[chances_NC.argmax(axis=1)]
    embedded = (pulls_NC[:, :, None] * towards_ND[:, None, :]).reshape(len(pulls_NC), -1)
    rng = np.random.default_rng([3, len(chances_NC)])
    expected = [int((embedded**2).sum(axis=1).argmax())]
    while len(expected) < 12:
        taken = [np.zeros(embedded.shape[1]), *embedded[expected]]
        apart = np.min([((embedded - each) ** 2).sum(axis=1) for each in taken], axis=0)
        apart[expected] = 0
        expected.append(int(rng.choice(len(apart), p=apart / apart.sum())))
    assert chosen == expected


@pytest.mark.parametrize("method", ["unsure-clusters", "unsure-coverage"])
def test_sure_photos_and_those_like_known_ones_are_left(method: str) -> None:
    rng = np.random.default_rng(0)
    towards_ND = directions(rng.normal(size=(90, 8)))
    chances_NC = np.tile([0.5, 0.5, 0.0], (90, 1))
    chances_NC[:30] = [1.0, 0.0, 0.0]  # sure
    known_MD = towards_ND[30:60]  # the next thirty are known
    chosen = select(chances_NC, towards_ND, known_MD, 3, method=method, seed=0)
    assert min(chosen) >= 60


def test_clusters_take_one_of_each_heap_of_copies() -> None:
    heaps_ND = directions(np.random.default_rng(1).normal(size=(5, 16)))
    towards_ND = np.repeat(heaps_ND, 10, axis=0)
    chances_NC = np.random.default_rng(2).dirichlet(np.ones(3), size=50)
    chosen = select(chances_NC, towards_ND, heaps_ND[:0], 5, method="unsure-clusters", seed=0)
    assert {place // 10 for place in chosen} == set(range(5))


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three colours in one folder, and a copy of one of them."""
    made = make_photos(tmp_path_factory.mktemp("pool"), counts={"train": 6}, seed=9)
    folder = made / "new"
    folder.mkdir()
    for path in sorted((made / "train").rglob("*.png")):
        shutil.move(path, folder)
    shutil.copyfile(folder / "blue_0.png", folder / "copy.png")
    return folder


def test_known_photos_and_copies_are_left_out(
    tiny_run: Path, photos: Path, unlabelled: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(unlabelled, tmp_path / "new"))
    shutil.copyfile(photos / "train" / "blue" / "blue_1.png", folder / "known.png")
    (folder / "broken.png").write_bytes(b"no picture")
    found = select_photos(tiny_run, folder, number=100, device="cpu", progress=False)
    names = {each.path.name for each in found.photos}
    assert len(names) == 18
    assert not names & {"known.png", "copy.png", "broken.png"}
    assert (found.num_pool, found.num_left_out, found.num_known) == (21, 2, 36)
    assert [fault.path.name for fault in found.unreadable] == ["broken.png"]


def test_guesses_are_those_of_predict(tiny_run: Path, unlabelled: Path) -> None:
    found = select_photos(tiny_run, unlabelled, number=5, device="cpu", progress=False)
    predictor = Predictor(tiny_run, device="cpu")
    for each in found.photos:
        first, second, *_ = predictor.predict(each.path).scores
        assert (each.suggested, each.second) == (first.label, second.label)
        assert each.probability == pytest.approx(first.probability, abs=1e-4)
        assert each.unsure == pytest.approx(1 - first.probability + second.probability, abs=2e-4)


def test_the_list_once_filled_is_a_source_of_prepare(
    tiny_run: Path, unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "lists" / "to_label.csv"
    with pytest.raises(SystemExit) as end:
        main(
            ["select", str(tiny_run), "--images", str(unlabelled), "--number", "12",
             "--output", str(output), "--device", "cpu"]
        )  # fmt: skip
    assert not end.value.code
    assert "12 photos of 19 by unsure-clusters" in capsys.readouterr().out
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert {row["label"] for row in rows} == {""}
    page = unescape(output.with_suffix(".html").read_text(encoding="utf-8"))
    assert page.count("data:image/jpeg") == 12
    assert [row["path"] for row in rows] == sorted(
        (row["path"] for row in rows), key=lambda name: page.index(f">{name}<")
    )
    with output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        # Six of each, so that they can be split.
        writer.writerows(row | {"label": "even" if i % 2 else "odd"} for i, row in enumerate(rows))
    made = make(tmp_path / "made", output, root=unlabelled, label_column="label").output_dir
    names = set().union(*placed(made).values())
    assert names == {row["path"] for row in rows}


def test_what_cannot_be_selected_from_is_told(
    tiny_run: Path, photos: Path, unlabelled: Path
) -> None:
    with pytest.raises(UserError, match=r"--method margins: .*Did you mean 'margin'"):
        select_photos(tiny_run, unlabelled, method="margins")
    with pytest.raises(UserError, match="--number 0"):
        select_photos(tiny_run, unlabelled, number=0)
    with pytest.raises(DataError, match="known already"):
        select_photos(tiny_run, photos / "train", device="cpu", progress=False)
    with pytest.raises(DataError, match=r"--data-dir .*no such folder"):
        select_photos(tiny_run, unlabelled, data_dir=photos / "none")

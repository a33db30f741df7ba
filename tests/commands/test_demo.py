from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cliptune.demo.drawings import BREEDS, DEMO_BREEDS, draw_dataset, draw_dog
from cliptune.demo.run import HOME, run_demo
from cliptune.errors import UserError
from cliptune.model.backbone import load_backbone


def test_a_drawing_depends_on_its_seed_alone() -> None:
    one, same, other = (
        np.asarray(draw_dog("beagle", rng=np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert one.shape == (64, 64, 3)


def test_every_breed_can_be_drawn_and_a_stranger_cannot() -> None:
    assert len(DEMO_BREEDS) == 10
    for breed in BREEDS:
        drawing = np.asarray(draw_dog(breed, rng=np.random.default_rng(0), size=32))
        assert drawing.std() > 10
    with pytest.raises(ValueError, match="expected one of golden_retriever"):
        draw_dog("cat", rng=np.random.default_rng(0))


def test_splits_hold_different_drawings(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "a", counts={"train": 2, "test": 2}, seed=1, progress=False)
    draw_dataset(tmp_path / "b", counts={"train": 2, "test": 2}, seed=1, progress=False)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.png"))
    assert len(files) == 40
    contents = [(tmp_path / "a" / file).read_bytes() for file in files]
    assert contents == [(tmp_path / "b" / file).read_bytes() for file in files]
    assert len(set(contents)) == 40


def test_the_embedded_model_is_small_and_loads_like_any_other() -> None:
    folder = HOME / "model"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
    backbone = load_backbone(str(folder))
    assert backbone.preprocess.image_size == (64, 64)
    names = [breed.replace("_", " ") for breed in DEMO_BREEDS]
    ids = backbone.tokenize(names)["input_ids"]
    assert len({tuple(row.tolist()) for row in ids}) == 10
    backbone.tokenize(["一只从未见过的 dog"])  # any text can be written in its tokens


def test_the_demo_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        run_demo(tmp_path)


@pytest.mark.slow
def test_the_demo_starts_at_about_sixty_percent_and_reaches_ninety(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "demo", seed=42)
    assert result.evaluation.baseline is not None
    assert 0.5 < result.evaluation.baseline.accuracy < 0.75
    assert result.evaluation.accuracy >= 0.9
    assert result.checkpoint.is_dir()
    assert len(result.predictions.read_text().splitlines()) == 201

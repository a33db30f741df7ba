"""Photos made worse, and what is left of the accuracy."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cliptune.config import load_settings
from cliptune.data.folder import Sample, load_split
from cliptune.data.images import Preprocess
from cliptune.data.loading import PhotoDataset, make_loader
from cliptune.data.reading import read_image
from cliptune.errors import ImageError
from cliptune.evaluation.corruptions import CORRUPTIONS, STRENGTHS, Alteration
from cliptune.evaluation.evaluate import evaluate
from cliptune.evaluation.plots import plot_robustness
from cliptune.evaluation.robustness import Robustness, measure_robustness
from cliptune.model.checkpoint import resolve_checkpoint
from cliptune.model.classifier import Classifier, predict_logits
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.model.measuring import Measuring
from cliptune.model.restore import load_classifier
from cliptune.training.train import train
from conftest import COLORS

CPU = torch.device("cpu")
PREPROCESS = Preprocess(
    resize=64, crop=(64, 64), resample=3, rescale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
)


def natural(seed: int, *, width: int = 384, height: int = 288) -> Image.Image:
    """A picture whose amplitudes fall as 1/frequency, as those of photos do (Field, 1987)."""
    rng = np.random.default_rng(seed)
    down, across = np.meshgrid(np.fft.fftfreq(288), np.fft.fftfreq(384), indexing="ij")
    fall_HW1 = 1 / np.maximum(np.hypot(down, across), 1 / 384)[:, :, None]
    waves = np.fft.fft2(rng.normal(size=(288, 384, 3)), axes=(0, 1)) * fall_HW1
    signal = np.fft.ifft2(waves, axes=(0, 1)).real
    pixels = np.clip(128 + 50 * signal / signal.std(), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def seen(image: Image.Image) -> np.ndarray:
    return np.asarray(PREPROCESS.view(image), dtype=float)


def change(corruption: str, strength: int, image: Image.Image, index: int) -> float:
    """Mean absolute difference, in levels, of what a model sees."""
    return float(np.abs(seen(Alteration(corruption, strength)(image, index)) - seen(image)).mean())


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_strength_zero_changes_no_byte(corruption: str) -> None:
    image = natural(0)
    assert Alteration(corruption, 0)(image, 5).tobytes() == image.tobytes()


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_each_strength_changes_more_than_the_one_before(corruption: str) -> None:
    """On average: where a single picture is cropped decides how much it changes."""
    pictures = [natural(seed) for seed in range(12)]
    changes = [
        np.mean([change(corruption, strength, image, i) for i, image in enumerate(pictures)])
        for strength in (0, *STRENGTHS)
    ]
    assert changes[0] == 0
    assert all(weaker < stronger for weaker, stronger in itertools.pairwise(changes))


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_the_resolution_of_a_photo_does_not_matter(corruption: str) -> None:
    """The same scene from 288 pixels to four times as many is changed nearly as much."""
    small, large = (
        np.mean(
            [
                change(corruption, 3, natural(seed, width=384 * k, height=288 * k), seed)
                for seed in range(3)
            ]
        )
        for k in (1, 4)
    )
    assert small == pytest.approx(large, rel=0.15)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_all_but_cropping_keep_a_photo_s_size(corruption: str) -> None:
    for size in ((384, 288), (288, 384), (97, 53), (1, 1), (3, 700), (300, 70_000)):
        image = Image.new("RGB", size, (200, 120, 40))
        altered = Alteration(corruption, 3)(image, 0)
        assert altered.mode == "RGB"
        if corruption != "crop":
            assert altered.size == size
        else:
            assert altered.size == tuple(max(1, round(0.6 * edge)) for edge in size)


def test_rotation_brings_no_colour_the_photo_does_not_have() -> None:
    """No black corners: a plain photo stays as it is."""
    image = Image.new("RGB", (90, 60), (200, 120, 40))
    for strength in STRENGTHS:
        assert Alteration("rotation", strength)(image, 0).tobytes() == image.tobytes()


def test_a_crop_shows_a_part_of_the_photo_and_not_always_the_same() -> None:
    pixels = np.arange(40 * 60, dtype=np.uint16).view(np.uint8).reshape(40, 60, 2)
    image = Image.fromarray(np.dstack([pixels, np.zeros((40, 60, 1), np.uint8)]))
    places = set()
    for index in range(20):
        part = np.asarray(Alteration("crop", 2)(image, index)).astype(int)
        top, left = divmod(int(part[0, 0, 0] + 256 * part[0, 0, 1]), 60)
        assert np.array_equal(part, np.asarray(image)[top : top + 30, left : left + 45])
        places.add((top, left))
    assert len(places) > 10


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_neither_order_nor_workers_change_a_photo(corruption: str, photos: Path) -> None:
    samples = load_split(photos, "test", class_names=list(COLORS)).samples
    alter = Alteration(corruption, 2, seed=7)
    dataset = PhotoDataset(samples, PREPROCESS, alter=alter)
    backwards = {i: dataset[i] for i in reversed(range(len(samples)))}
    for workers in (0, 2) if corruption in ("noise", "crop") else (0,):
        for batch in make_loader(dataset, batch_size=5, num_workers=workers):
            for pixels, index in zip(batch.pixels, batch.indices.tolist(), strict=True):
                item = backwards[index]
                assert isinstance(item, tuple)
                assert torch.equal(pixels, item[0])
    assert pickle.loads(pickle.dumps(alter)) == alter


@pytest.mark.parametrize("corruption", ["noise", "rotation", "crop"])
def test_chance_differs_between_photos_and_between_seeds(corruption: str) -> None:
    image = natural(0)
    made = {Alteration(corruption, 3, seed)(image, i).tobytes() for seed in (0, 1) for i in (0, 1)}
    made |= {Alteration(corruption, 3, 2)(image, i).tobytes() for i in range(6)}
    assert len(made) > 1 if corruption == "rotation" else len(made) == 10  # it has two ways round


@pytest.fixture(scope="module")
def pair(
    clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Classifier]]:
    """A run of a second, and its classifier beside zero-shot CLIP."""
    folder = tmp_path_factory.mktemp("robust")
    settings = load_settings(
        overrides={
            "model.name": str(clip_folder),
            "model.prompts": ["a photo of a {}."],
            "data.data_dir": str(photos),
            "data.num_workers": 0,
            "training.batch_size": 8,
            "training.num_epochs": 2,
            "training.min_updates": 0,
            "output.output_dir": str(folder / "run"),
            "output.log_dir": str(folder / "logs"),
            "hardware.device": "cpu",
            "hardware.mixed_precision": False,
        }
    )
    run_dir = train(settings, progress=False).output_dir
    found = resolve_checkpoint(run_dir)
    return run_dir, [load_classifier(found), LoadedCheckpoint(found).zero_shot()]


def measure(classifiers: list[Classifier], samples: list[Sample], workers: int = 0) -> Robustness:
    return measure_robustness(
        classifiers,
        samples,
        Measuring(device=CPU, batch_size=5, num_workers=workers, progress=False),
    )


@pytest.fixture(scope="module")
def samples(photos: Path) -> list[Sample]:
    return list(load_split(photos, "test", class_names=list(COLORS)).samples)


@pytest.fixture(scope="module")
def measured(pair: tuple[Path, list[Classifier]], samples: list[Sample]) -> Robustness:
    return measure(pair[1], samples)


def test_untouched_photos_give_what_the_plain_evaluation_gives(
    pair: tuple[Path, list[Classifier]], measured: Robustness
) -> None:
    plain = evaluate(pair[0], output_dir=None, num_workers=0, device="cpu", progress=False)
    assert plain.baseline is not None
    assert measured.untouched == (plain.accuracy, plain.baseline.accuracy)
    assert measured.num_photos == plain.tuned.num_images == 12


def test_every_figure_is_a_share_of_the_photos(measured: Robustness) -> None:
    assert list(measured.corrupted) == list(CORRUPTIONS)
    for rows in measured.corrupted.values():
        assert len(rows) == len(STRENGTHS)
        for share in np.ravel(rows):
            assert round(12 * share, 9).is_integer()
            assert 0 <= share <= 1


def test_photos_altered_beforehand_give_the_same_accuracy(
    pair: tuple[Path, list[Classifier]],
    samples: list[Sample],
    measured: Robustness,
    tmp_path: Path,
) -> None:
    """Each photo altered by hand, saved without loss and read as it is."""
    for corruption in CORRUPTIONS:
        by_hand = []
        for index, sample in enumerate(samples):
            path = tmp_path / f"{corruption}_{index}.png"
            Alteration(corruption, 3)(read_image(sample.path), index).save(path)
            by_hand.append(Sample(path, sample.label))
        loader = make_loader(PhotoDataset(by_hand, pair[1][0].preprocess), batch_size=12)
        found = predict_logits(pair[1], loader, CPU)
        shares = tuple(float((x.argmax(axis=1) == found.labels).mean()) for x in found.logits)
        assert shares == pytest.approx(measured.corrupted[corruption][2])


def test_unreadable_photos_count_nowhere(
    pair: tuple[Path, list[Classifier]],
    samples: list[Sample],
    measured: Robustness,
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff not a photo")
    assert measure(pair[1], [*samples, Sample(broken, 0)], workers=1) == measured
    with pytest.raises(ImageError, match="of 1 photo none can be read"):
        measure(pair[1], [Sample(broken, 0)])


def test_robustness_survives_json() -> None:
    rows = dict.fromkeys(CORRUPTIONS, ((0.75, 0.5), (0.5, 0.5), (0.25, 0.5)))
    made = Robustness(num_photos=4, seed=3, untouched=(1.0, 0.5), corrupted=rows)
    assert Robustness.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.curve("blur", 0) == [1.0, 0.75, 0.5, 0.25]
    assert (made.mean(0), made.mean(1)) == (0.5, 0.5)


@pytest.mark.parametrize("names", [["fine-tuned"], ["fine-tuned", "零样本"], list("abcde")])
def test_the_picture_is_drawn_for_any_number_of_classifiers(
    names: list[str], tmp_path: Path
) -> None:
    row = tuple(0.1 * i for i in range(len(names)))
    made = Robustness(4, 0, row, dict.fromkeys(CORRUPTIONS, (row, row, row)))
    path = tmp_path / "deep" / "robustness.png"
    plot_robustness(made, names, path, title="<b>$x$ & 照片")
    with Image.open(path) as picture:
        assert picture.size[0] > 1200
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10

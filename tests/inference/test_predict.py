from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliptune import Prediction, Predictor
from cliptune.config import load_settings
from cliptune.data.reading import Unreadable, read_image
from cliptune.errors import ImageError, UserError
from cliptune.evaluation.evaluate import evaluate
from cliptune.inference.output import bar_chart, open_output
from cliptune.training.train import train
from conftest import make_photos


@pytest.fixture(scope="module")
def run_dir(clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicting")
    settings = load_settings(
        overrides={
            "model.name": str(clip_folder),
            "data.data_dir": str(photos),
            "data.num_workers": 0,
            "training.num_epochs": 4,
            "training.min_updates": 0,
            "training.learning_rate": 1e-2,
            "training.batch_size": 8,
            "output.output_dir": str(folder / "run"),
            "output.log_dir": str(folder / "logs"),
            "hardware.device": "cpu",
            "hardware.mixed_precision": False,
        }
    )
    return train(settings, progress=False).output_dir


@pytest.fixture(scope="module")
def predictor(run_dir: Path) -> Predictor:
    return Predictor(run_dir, device="cpu", batch_size=4)


def test_predict_and_predict_batch_return_the_same_typed_result(
    predictor: Predictor, photos: Path
) -> None:
    path = photos / "test" / "blue" / "blue_0.png"
    one = predictor.predict(path, top_k=2)
    (batch,) = predictor.predict_batch([path], top_k=2)
    assert isinstance(one, Prediction)
    assert one == batch
    assert one.source == str(path)
    assert one.label == one.scores[0].label == "blue"
    assert len(one.scores) == 2
    assert one.scores[0].probability >= one.scores[1].probability
    everything = predictor.predict(path, top_k=99)
    assert sum(score.probability for score in everything.scores) == pytest.approx(1, abs=1e-6)


def test_paths_pil_images_and_arrays_mean_the_same(predictor: Predictor, photos: Path) -> None:
    path = photos / "test" / "amber" / "amber_1.png"
    image = read_image(path)
    # One at a time: rows of one product may round differently, the same product does not.
    results = [predictor.predict(one) for one in (path, str(path), image, np.asarray(image))]
    assert len({result.scores for result in results}) == 1
    together = predictor.predict_batch([path, str(path), image, np.asarray(image)])
    for result in together:
        assert [score.label for score in result.scores] == [s.label for s in results[0].scores]
        assert [score.probability for score in result.scores] == pytest.approx(
            [score.probability for score in results[0].scores], rel=1e-5
        )
    grey = predictor.predict(np.full((20, 30), 128, np.uint8))
    assert grey.source is None


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((3,), np.uint8), 7])
def test_what_is_no_image_is_explained(predictor: Predictor, bad: Any) -> None:
    with pytest.raises(ImageError, match="expected"):
        predictor.predict(bad)


def test_batches_do_not_change_a_prediction_or_their_order(
    predictor: Predictor, photos: Path
) -> None:
    paths = sorted((photos / "test").rglob("*.png"))
    together = predictor.predict_batch(paths)
    assert [result.source for result in together] == [str(path) for path in paths]
    for path, result in zip(paths, together, strict=True):
        alone = predictor.predict(path)
        assert [s.label for s in alone.scores] == [s.label for s in result.scores]
        assert alone.probability == pytest.approx(result.probability, abs=1e-5)


def test_an_unreadable_image_is_reported_in_its_place(
    predictor: Predictor, photos: Path, tmp_path: Path
) -> None:
    good = photos / "test" / "cyan" / "cyan_0.png"
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff")
    results = list(predictor.stream([good, bad, good]))
    assert [type(result) for result in results] == [Prediction, Unreadable, Prediction]
    with pytest.raises(ImageError, match=r"1 of 2 images cannot be read"):
        predictor.predict_batch([good, bad])
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        predictor.predict(bad)
    with pytest.raises(UserError, match="top_k"):
        predictor.predict(good, top_k=0)


def test_a_stream_reads_only_a_little_ahead(predictor: Predictor) -> None:
    taken = 0

    def images() -> Any:
        nonlocal taken
        for value in range(200):
            taken += 1
            yield np.full((32, 32), value, np.uint8)

    stream = predictor.stream(images())
    next(stream)
    assert taken <= 3 * predictor.batch_size
    assert len(list(stream)) == 199


def test_every_output_format_holds_the_same_predictions(
    predictor: Predictor, photos: Path, tmp_path: Path
) -> None:
    path = photos / "test" / "blue" / "blue_0.png"
    result = predictor.predict(path, top_k=2)
    fault = Unreadable(Path("broken,\n.jpg"), "the file is empty")
    for ending in ("txt", "csv", "json", "jsonl"):
        with open_output(tmp_path / f"out.{ending}", top_k=2) as write:
            write(result)
            write(fault)
    text = (tmp_path / "out.txt").read_text().splitlines()
    assert len(text) == 2
    assert text[0].startswith(f"{path}\tblue ")
    with (tmp_path / "out.csv").open(newline="") as file:
        row, error = csv.DictReader(file)
    assert row["label_1"] == "blue"
    assert float(row["probability_1"]) == pytest.approx(result.probability, abs=1e-6)
    assert error["error"] == "the file is empty"
    assert json.loads((tmp_path / "out.json").read_text())[0] == result.to_dict()
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == result.to_dict()
    assert json.loads(lines[1])["error"] == "the file is empty"


def test_an_output_that_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), open_output(target, top_k=1):
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(UserError, match=r"Expected one of \.txt, \.csv, \.json, \.jsonl"):
        open_output(tmp_path / "out.xls", top_k=1).__enter__()


def test_bar_chart_fits_eighty_columns(predictor: Predictor) -> None:
    chart = bar_chart(predictor.predict(Image.new("RGB", (50, 50))))
    assert sum(" % " in line for line in chart.splitlines()) == 3
    assert max(map(len, chart.splitlines())) <= 80


def test_evaluation_counts_what_the_predictor_says(
    run_dir: Path, predictor: Predictor, photos: Path, tmp_path: Path
) -> None:
    evaluation = evaluate(
        run_dir, data_dir=photos, output_dir=tmp_path, num_workers=0, device="cpu", progress=False
    )
    paths = sorted((photos / "test").rglob("*.png"))
    right = [p.label == Path(str(p.source)).parent.name for p in predictor.predict_batch(paths)]
    assert evaluation.accuracy == pytest.approx(np.mean(right))
    results = json.loads((tmp_path / "evaluation_results.json").read_text())
    assert results["accuracy"] == pytest.approx(100 * np.mean(right))
    assert results["top5_accuracy"] is None
    assert 100 * results["baseline"]["figures"]["accuracy"]["value"] < results["accuracy"]
    assert results["classification_report"]["accuracy"] == pytest.approx(np.mean(right))


def test_labels_travel_by_name_when_a_class_is_missing_or_new(
    run_dir: Path, tmp_path: Path
) -> None:
    """Fault 2 of the original: the class order was guessed from the data folder."""
    data = make_photos(tmp_path / "data", counts={"test": 3}, classes=("zebra", "cyan", "amber"))
    evaluation = evaluate(
        run_dir, data_dir=data, output_dir=None, num_workers=0, baseline=False, progress=False
    )
    assert evaluation.class_names == ("amber", "blue", "cyan")
    assert evaluation.missing_classes == ("blue",)
    assert evaluation.ignored_classes == ("zebra",)
    assert evaluation.tuned.num_images == 6
    assert evaluation.accuracy > 0.9
    assert evaluation.baseline is None


def test_evaluation_lists_unreadable_photos_or_leaves_them_out(
    run_dir: Path, tmp_path: Path
) -> None:
    data = make_photos(tmp_path / "data", counts={"test": 2})
    (data / "test" / "blue" / "blue_0.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"blue_0\.png: the file is empty"):
        evaluate(run_dir, data_dir=data, output_dir=tmp_path / "out", num_workers=0, progress=False)
    assert not (tmp_path / "out").exists()
    evaluation = evaluate(
        run_dir, data_dir=data, output_dir=None, num_workers=0, on_bad_image="skip", progress=False
    )
    assert evaluation.tuned.num_images == 5
    assert len(evaluation.skipped_images) == 1


def test_val_without_a_folder_is_the_part_of_train_that_training_held_out(
    clip_folder: Path, tmp_path: Path
) -> None:
    data = make_photos(tmp_path / "data", counts={"train": 10})
    settings = load_settings(
        overrides={
            "model.name": str(clip_folder),
            "data.data_dir": str(data),
            "data.num_workers": 0,
            "data.val_ratio": 0.3,
            "training.val_in_head": "never",
            "training.min_updates": 0,
            "training.num_epochs": 1,
            "hardware.mixed_precision": False,
            "output.output_dir": str(tmp_path / "run"),
            "output.log_dir": str(tmp_path / "logs"),
        }
    )
    result = train(settings, progress=False)
    evaluation = evaluate(
        result.output_dir,
        split="val",
        output_dir=None,
        num_workers=0,
        baseline=False,
        progress=False,
    )
    assert evaluation.tuned.num_images == 9
    assert result.best is not None
    (row,) = [row for row in result.history if row["epoch"] == result.best.record.epoch]
    assert evaluation.accuracy == row["val_accuracy"]
    assert evaluation.before_scaling.log_loss.value == pytest.approx(row["val_loss"], rel=1e-4)


def test_reduced_decoding_leaves_small_photos_alone_and_large_ones_nearly(
    run_dir: Path, predictor: Predictor, tmp_path: Path
) -> None:
    """Of a JPEG of eight times the model's edge a quarter is decoded; other kinds stay whole."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    paths = []
    for size in (40, 60, 300):
        photo = coarse.resize((size, size + 20), Image.Resampling.BICUBIC)
        for kind in ("jpg", "png"):
            paths.append(tmp_path / f"{size}.{kind}")
            photo.save(paths[-1])
    reduced = Predictor(run_dir, device="cpu", batch_size=4, reduced_decoding=True)
    found = [
        [np.array([s.probability for s in one.predict(path).scores]) for path in paths]
        for one in (predictor, reduced)
    ]
    changed = [not np.array_equal(a, b) for a, b in zip(*found, strict=True)]
    assert changed == [False, False, False, False, True, False]
    assert np.abs(found[0][4] - found[1][4]).max() < 0.05


def test_bytes_and_open_files_mean_what_their_file_does(predictor: Predictor, photos: Path) -> None:
    """A file is read from where it stands and stays open; text and closed files are refused."""
    path = photos / "test" / "amber" / "amber_1.png"
    content = path.read_bytes()
    expected = predictor.predict(path).scores
    for same in (content, bytearray(content), memoryview(content), io.BytesIO(content)):
        found = predictor.predict(same)
        assert found.scores == expected
        assert found.source is None
    with path.open("rb") as file:
        assert predictor.predict(file).scores == expected
        assert not file.closed
        with pytest.raises(ImageError, match="the file is empty"):
            predictor.predict(file)
    with pytest.raises(ImageError, match=r"cannot be read: .*closed"):
        predictor.predict(file)
    with pytest.raises(ImageError, match="open it in binary mode"):
        predictor.predict(io.StringIO("text"))
    with pytest.raises(ImageError, match="not an image"):
        predictor.predict(b"not a photo")

"""Exports that answer a little otherwise: int8, fitted and judged again; weights in fp16; graphs
whose weights lie outside of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from cliptune import Predictor, evaluate
from cliptune.errors import DataError, UserError
from cliptune.evaluation.statistics.answering import fit_answers
from cliptune.evaluation.statistics.intervals import difference_interval
from cliptune.inference.export.export import export
from cliptune.inference.export.int8 import int8_photos
from cliptune.inference.export.judging import judged, least_end, refuse_too_few
from cliptune.inference.export.quantise import TOO_COARSE, quantise
from cliptune.inference.export.runner import Exported, read_rgb
from cliptune.inference.export.verify import TOLERANCES
from cliptune.model.checkpoint import read_checkpoint, resolve_checkpoint
from cliptune.model.measuring import Measuring, labelled_photos
from cliptune.model.restore import load_answers, load_classifier, saved_settings
from conftest import make_photos, trained

BEARABLE = 60.0  # points: val has a dozen photos
# At a higher rate all probabilities are 0 or 1, and no rounding moves them.
GENTLY = {"training.num_epochs": 1, "training.learning_rate": 5e-4}


@pytest.fixture(scope="module")
def run_dir(clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("quantising"), clip_folder, photos, **GENTLY)


@pytest.fixture(scope="module")
def int8(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "out"
    export(run_dir, folder, precision="int8", max_loss=BEARABLE, progress=False)
    return folder


def crops_of(folder: Path, photos: Path) -> list[np.ndarray]:
    runner = Exported(folder)
    return [runner.crop(read_rgb(path)) for path in sorted(photos.rglob("*.png"))]


def test_an_int8_folder_answers_by_what_val_says_of_its_own_graph(
    int8: Path, run_dir: Path, photos: Path
) -> None:
    """Threshold, temperature and class means are those of the quantised features, not copies."""
    found = read_checkpoint(int8)
    classifier = load_classifier(found)
    settings = saved_settings(resolve_checkpoint(run_dir))
    val = labelled_photos(settings, photos, "val", found.record.class_names)
    measuring = Measuring(device=torch.device("cpu"), num_workers=0, progress=False)
    said = measuring.predict([classifier], val.samples, "val")
    expected = fit_answers(
        said.logits[0], said.features[0], said.labels, weights_CD=classifier.class_weights().numpy()
    )
    assert found.record.answers is not None
    assert found.record.answers.threshold == pytest.approx(expected.threshold, abs=1e-6)
    assert found.record.answers.temperature == pytest.approx(expected.temperature, rel=1e-5)
    before = resolve_checkpoint(run_dir).record.answers
    assert before is not None
    assert before.threshold != found.record.answers.threshold
    right = (said.logits[0].argmax(axis=1) == said.labels).mean()
    assert found.record.metrics == {"val_accuracy": right, "val_images": len(said.labels)}
    known = Exported(int8).answer(crops_of(int8, photos / "val"))["known"]
    assert known.mean() >= 0.95


@pytest.mark.slow
def test_an_int8_folder_is_smaller_and_says_what_it_costs(int8: Path, photos: Path) -> None:
    told = json.loads((int8 / "export.json").read_text(encoding="utf-8"))["int8"]
    count = len(list((photos / "val").rglob("*.png")))
    lost = told["judged"]["points_lost"]
    assert told["judged"]["photos"] == count
    assert lost["low"] <= lost["value"] <= lost["high"] <= BEARABLE
    assert told["calibrated_on"] == len(list((photos / "train").rglob("*.png")))
    assert told["bytes"]["int8"] < told["bytes"]["float32"]
    assert min(told["images_per_second"][key] for key in ("int8", "float32")) > 0
    types = {node.op_type for node in onnx.load(int8 / "model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= types


@pytest.mark.slow
def test_an_int8_folder_is_a_checkpoint_that_is_evaluated_as_it_answers(
    int8: Path, photos: Path, tmp_path: Path
) -> None:
    predictor = Predictor(int8)
    assert predictor.precision == "int8"
    paths = sorted((photos / "test").rglob("*.png"))
    right = np.mean([predictor.predict(path).label == path.parent.name for path in paths])
    measured = evaluate(int8, data_dir=photos, split="test", output_dir=tmp_path)
    assert measured.tuned.accuracy == pytest.approx(right)


def test_train_alone_calibrates_and_val_alone_judges(run_dir: Path, photos: Path) -> None:
    checkpoint = resolve_checkpoint(run_dir)
    found = int8_photos(checkpoint, saved_settings(checkpoint), photos, max_loss=BEARABLE)
    for samples, split in ((found.calibrating, "train"), (found.judging, "val")):
        paths = {sample.path for sample in samples}
        assert paths == set((photos / split).rglob("*.png"))


@pytest.mark.slow
def test_an_int8_folder_with_other_classes_claims_no_figures_of_the_former_ones(
    int8: Path, photos: Path, tmp_path: Path
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "cliptune", "remove-class", int8, "blue", "--data-dir", photos,
         "--output", tmp_path / "fewer"],
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    told = json.loads((tmp_path / "fewer" / "export.json").read_text(encoding="utf-8"))
    assert (told["precision"], told["int8"], told["verified"]) == ("int8", None, None)
    assert Predictor(tmp_path / "fewer").class_names == ("amber", "cyan")


def test_a_folder_without_splits_calibrates_nothing(
    run_dir: Path, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"found none\. .*--data FOLDER"):
        export(run_dir, tmp_path / "out", data=photos / "test", precision="int8", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("max_loss", [0.5, 1.0, 3.0])
def test_fewer_photos_than_could_show_it_are_refused_beforehand(max_loss: float) -> None:
    """At the least number told, no change at all is enough; at one photo less, it is not."""
    with pytest.raises(UserError, match=r"--max-loss .* \d+ photos are needed") as refusal:
        refuse_too_few(5, max_loss)
    needed = int(str(refusal.value).split(" photos are needed")[0].split()[-1])
    refuse_too_few(needed, max_loss)
    for count, enough in ((needed, True), (needed - 1, False)):
        high = 100 * float(difference_interval(0, 0, count)[1])
        assert high == pytest.approx(least_end(count), abs=1e-6)
        assert (high <= max_loss) is enough
    with pytest.raises(UserError):
        refuse_too_few(needed - 1, max_loss)


def test_a_loss_is_that_of_photos_which_one_alone_has_right() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    float32, int8 = (np.eye(3)[labels] + rng.normal(0, s, (400, 3)) for s in (0.5, 0.7))
    found = judged(float32, int8, labels)
    a, b = (x.argmax(axis=1) == labels for x in (float32, int8))
    assert found.loss.value == pytest.approx(100 * (a.mean() - b.mean()))
    assert (found.only_float32_right, found.only_int8_right) == ((a & ~b).sum(), (b & ~a).sum())
    back = judged(int8, float32, labels)
    assert back.loss.value == pytest.approx(-found.loss.value)
    assert back.loss.high == pytest.approx(-found.loss.low)


def test_a_loss_on_near_copies_is_as_sure_as_their_groups_are_many() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    float32, int8 = (np.eye(3)[labels] + rng.normal(0, s, (60, 3)) for s in (0.5, 0.7))
    alone = judged(float32, int8, labels)
    copies = [np.repeat(x, 6, axis=0) for x in (float32, int8, labels)]
    free, found = judged(*copies), judged(*copies, groups_N=np.repeat(np.arange(60), 6))
    assert found.loss.value == pytest.approx(alone.loss.value)
    assert found.loss.high - found.loss.low > 2 * (free.loss.high - free.loss.low)
    assert found.p == pytest.approx(alone.p)


@pytest.mark.slow
def test_more_loss_than_borne_is_refused_naming_layers_and_nothing_is_left(
    clip_folder: Path, tmp_path: Path
) -> None:
    """Classes that look the same: answers hang on a hair, and int8 changes some."""
    names = ("dog", "drawing", "class")
    photos = make_photos(tmp_path / "photos", classes=names, counts={"train": 8, "val": 30})
    run = trained(tmp_path, clip_folder, photos, **GENTLY)
    limit = least_end(90) + 0.01
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"nothing was written.*layers\.\d\.\w+.*--max-loss says"):
        export(run, tmp_path / "out", precision="int8", max_loss=limit, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == before


def small_graph(path: Path, weights: np.ndarray, *, offset: float, power: float) -> None:
    """pixels (B, 3, 2, 2) -> features (B, O): a linear layer of (pixels - offset) ** power."""
    tensors = {"weights": weights, "offset": np.float32(offset), "shape": np.array([-1, 12])}
    tensors |= {"power": np.float32(power), "bias": np.zeros(weights.shape[1], np.float32)}
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "shape"], ["rows"]),
        helper.make_node("Sub", ["rows", "offset"], ["moved"]),
        helper.make_node("Pow", ["moved", "power"], ["given"]),
        helper.make_node("MatMul", ["given", "weights"], ["product"], name="linear"),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", 3, 2, 2])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", weights.shape[1]])],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in tensors.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def features_of(path: Path, crops: list[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["features"], {"pixels": np.stack(crops)})[0]
    return found


def test_how_coarse_a_layer_gets_is_what_onnxruntime_makes_of_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    crops = list(rng.integers(0, 200, (16, 3, 2, 2), dtype=np.uint8))
    weights = rng.normal(size=(12, 6)).astype(np.float32)
    source, target = tmp_path / "exact.onnx", tmp_path / "coarse.onnx"
    small_graph(source, weights, offset=99.5, power=1)
    made = quantise(source, target, crops)
    assert [layer.node for layer in made.layers] == ["linear"]
    exact, coarse = features_of(source, crops), features_of(target, crops)
    share = (((coarse - exact) ** 2).sum(axis=1) / (exact**2).sum(axis=1)).mean()
    assert 0 < share < TOO_COARSE
    assert made.layers[0].error == pytest.approx(share, rel=0.2)


def test_a_layer_of_a_few_huge_inputs_stays_float32(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 6)).astype(np.float32)
    crops = list(rng.integers(0, 3, (16, 3, 2, 2), dtype=np.uint8))
    source, target = tmp_path / "exact.onnx", tmp_path / "coarse.onnx"
    small_graph(source, weights, offset=0, power=3)
    assert quantise(source, target, crops).left == ()
    crops[0][0, 0, 0] = 255
    with pytest.raises(UserError, match=r"none of the 1 linear layers .*: bias by"):
        quantise(source, target, crops)
    made = quantise(source, target, crops, too_coarse=1.0)
    assert [layer.node for layer in made.layers] == ["linear"]
    assert not np.allclose(features_of(source, crops), features_of(target, crops), rtol=0.01)


def test_weights_kept_in_fp16_answer_nearly_the_same(
    run_dir: Path, photos: Path, tmp_path: Path
) -> None:
    made = export(run_dir, tmp_path / "half", precision="fp16", progress=False)
    assert 0 < made.verified.largest_difference <= TOLERANCES["fp16"]
    whole = export(run_dir, tmp_path / "whole", progress=False)
    kept = onnx.load(made.folder / "model.onnx").graph.initializer
    halves = [tensor for tensor in kept if tensor.data_type == TensorProto.FLOAT16]
    assert len(halves) == 12  # six products in each of two layers
    assert Predictor(made.folder).precision == "fp16"
    assert whole.verified.largest_difference < made.verified.largest_difference


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "fp16", "int8"])
def test_weights_too_large_for_one_file_lie_beside_the_graph(
    run_dir: Path, photos: Path, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is protobuf's 2 GB: here torch is told a smaller one."""
    limit = "torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD"
    monkeypatch.setattr(limit, 1000)
    folder = tmp_path / "out"
    export(run_dir, folder, precision=precision, max_loss=BEARABLE, progress=False)
    assert (folder / "model.onnx.data").is_file()
    assert "  model.onnx.data\n" in (folder / "SHA256SUMS").read_text(encoding="utf-8")
    photo = next((photos / "test").rglob("*.png"))
    ran = subprocess.run(
        [sys.executable, folder / "run.py", photo], capture_output=True, text=True,
        encoding="utf-8", cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    expected = Predictor(folder).predict(photo)
    assert json.loads(ran.stdout)["probability"] == pytest.approx(expected.probability, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "apart"), [("float32", 1e-5), ("int8", 0.05)])
def test_openvino_reads_the_graph(
    run_dir: Path, photos: Path, tmp_path: Path, precision: str, apart: float
) -> None:
    """In float32 it answers the same; its int8 rounds otherwise than onnxruntime's."""
    openvino = pytest.importorskip("openvino")
    folder = tmp_path / "out"
    export(run_dir, folder, precision=precision, max_loss=BEARABLE, progress=False)
    crops = crops_of(folder, photos / "test")
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    run = openvino.Core().compile_model(str(folder / "model.onnx"), "CPU", hint)
    found = run({"pixels": np.stack(crops)})
    expected = Exported(folder).answer(crops)
    for name in ("probabilities", "known_score"):
        np.testing.assert_allclose(found[name], expected[name], atol=apart, err_msg=name)


@pytest.mark.slow
def test_answers_of_a_checkpoint_without_a_threshold_are_not_made_up(
    run_dir: Path, tmp_path: Path
) -> None:
    """Of an early checkpoint that tells no strangers, int8 tells none, either."""
    import shutil

    source = Path(shutil.copytree(resolve_checkpoint(run_dir).path, tmp_path / "early"))
    record = json.loads((source / "cliptune.json").read_text(encoding="utf-8"))
    text = json.dumps(record | {"answers": None})
    (source / "cliptune.json").write_text(text, encoding="utf-8", newline="\n")
    (source / "SHA256SUMS").unlink()
    made = export(source, tmp_path / "out", precision="int8", max_loss=BEARABLE, progress=False)
    assert load_answers(read_checkpoint(made.folder))[0] is None
    assert "known" not in Exported(made.folder).answer(
        crops_of(made.folder, tmp_path)[:1] or [np.zeros((3, 32, 32), np.uint8)]
    )


def test_two_precisions_at_once_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "cliptune", "export", "nowhere", "--output", tmp_path / "out",
         "--int8", "--fp16"],
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert ran.returncode != 0
    assert "--int8 and --fp16: choose one" in ran.stderr

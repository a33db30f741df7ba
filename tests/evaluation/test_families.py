"""Parents of classes in answers: the deepest that is sure, and how often they were right."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cliptune import Predictor
from cliptune.cli import main
from cliptune.data.image_files import find_images
from cliptune.data.parents import Parents
from cliptune.editing.change import add_class, remove_class
from cliptune.errors import UserError
from cliptune.evaluation.evaluate import evaluate
from cliptune.evaluation.families import families
from cliptune.evaluation.statistics.answering import fit_answers
from cliptune.evaluation.statistics.conformal import coverage_range, fit_sure
from cliptune.inference.export.export import export
from cliptune.model.answers import softmax
from cliptune.model.checkpoint import resolve_checkpoint
from conftest import trained
from servers import served

NAMES = ["husky", "malamute", "collie", "kelpie", "pug"]
TREE = Parents(
    NAMES,
    {"husky": "sled", "malamute": "sled", "collie": "herder", "kelpie": "herder",
     "sled": "working", "herder": "working"},
)  # fmt: skip


def chances(seed: int, *, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of photos, whose mistakes stay within a parent more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, count)
    kin = np.array([0, 0, 1, 1, 2])
    logits = rng.normal(size=(count, 5)) + 1.5 * (kin[labels][:, None] == kin[None])
    logits[np.arange(count), labels] += rng.normal(1, 1, count)
    return softmax(logits), labels


@pytest.mark.parametrize("share", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("count", [19, 100])
def test_what_is_sure_is_right_for_further_photos_at_the_rate_promised(
    share: float, count: int
) -> None:
    p_NC, labels_N = chances(1, count=40_000)
    rng, rates = np.random.default_rng(2), []
    for _ in range(300):
        some = rng.choice(len(labels_N), count + 500, replace=False)
        own, further = some[:count], some[count:]
        sure = fit_sure(p_NC[own], labels_N[own], TREE, share=share)
        assert sure is not None
        nodes = TREE.deepest(p_NC[further], above=sure.limit)
        rates.append(TREE.member_MC[nodes, labels_N[further]].mean())
    error = 4 * np.std(rates) / 300**0.5
    assert share - error < np.mean(rates) < share + 1 / (count + 1) + error


def test_the_more_is_promised_the_less_deep_are_answers() -> None:
    p_NC, labels_N = chances(3, count=2000)
    depths = []
    for share in (0.5, 0.7, 0.9, 0.97, 0.995):
        sure = fit_sure(p_NC, labels_N, TREE, share=share)
        assert sure is not None
        assert sure.kept >= share
        nodes = TREE.deepest(p_NC, above=sure.limit)
        depths.append(TREE.member_MC[nodes].sum(axis=1))
        assert (TREE.member_MC[nodes, labels_N]).mean() == pytest.approx(sure.kept)
    assert all((less <= more).all() for less, more in pairwise(depths))
    assert fit_sure(p_NC[:18], labels_N[:18], TREE, share=0.95) is None


def test_parents_change_nothing_else_of_how_a_checkpoint_answers() -> None:
    rng = np.random.default_rng(0)
    p_NC, labels_N = chances(5, count=200)
    given = (np.log(p_NC), rng.normal(size=(200, 8)), labels_N)
    weights_CD = rng.normal(size=(5, 8))
    plain = fit_answers(*given, weights_CD=weights_CD)
    none = fit_answers(*given, weights_CD=weights_CD, parents=Parents(NAMES, {}))
    known = fit_answers(*given, weights_CD=weights_CD, parents=TREE)
    assert plain == none
    assert "sure" not in plain.model_dump()
    assert known.sure is not None
    assert known.sure.share == 0.95
    assert known.model_copy(update={"sure": None}) == plain
    other = fit_answers(*given, weights_CD=weights_CD, parents=TREE, coverage=0.8)
    assert other.sure is not None
    assert other.sure.share == 0.8


def test_figures_of_parents_are_those_counted_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2, 4, 4])
    said = np.array([0, 1, 2, 1, 3, 4, 4, 0])
    found = families(TREE, None, np.eye(5)[said], labels)
    assert found is not None
    assert found.right.value == 5 / 8
    assert (found.within, found.across) == (2, 3)
    sled = next(each for each in found.parents if each.name == "sled")
    assert (sled.num_images, sled.within, sled.across) == (4, 1, 1)
    assert sled.recall is not None
    assert sled.recall.value == 3 / 4
    assert sled.precision is not None
    assert sled.precision.value == 3 / 4
    working = next(each for each in found.parents if each.name == "working")
    assert working.classes == tuple(NAMES[:4])
    assert (working.num_images, working.within, working.across) == (6, 3, 1)
    assert found.sure is None
    assert families(Parents(NAMES, {}), None, np.eye(5)[said], labels) is None
    low, high = coverage_range(0.9, 200)
    assert low < 0.9 < high


@pytest.fixture(scope="module")
def data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos, and what their classes are."""
    folder = Path(shutil.copytree(photos, tmp_path_factory.mktemp("parents") / "data"))
    (folder / "classes.yaml").write_text(
        "blue: {parent: cold}\ncyan: {parent: cold}\ncold: {name: 冷色}\n",
        encoding="utf-8", newline="\n",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def unsure_run(clip_folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned next to nothing, whose answers are to be right in 70 % of cases."""
    changes = {
        "training.recipe": "plain", "training.learning_rate": 1e-6, "training.num_epochs": 1,
        "evaluation.coverage": 0.7,
    }  # fmt: skip
    return trained(tmp_path_factory.mktemp("families"), clip_folder, data, **changes)


@pytest.mark.slow
def test_what_is_sure_is_the_same_by_every_door(
    unsure_run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = find_images(data / "test")
    predictor = Predictor(unsure_run, device="cpu")
    assert predictor.answers is not None
    sure = predictor.answers.sure
    assert sure is not None
    found = predictor.predict_batch(paths, top_k=3)
    labels = []
    for each in found:
        p = {score.label: score.probability for score in each.scores}
        cold = p["blue"] + p["cyan"]
        chain = [(each.label, p[each.label])] + [("cold", cold)] * (each.label != "amber")
        labels.append(next((name for name, share in chain if share > sure.limit), ""))
        assert each.sure_share == 0.7
        assert (each.sure_of.label if each.sure_of else "") == labels[-1]
        if labels[-1] == "cold":
            assert each.sure_of is not None
            assert each.sure_of.name == "冷色"
            assert each.sure_of.probability == pytest.approx(cold)
    assert len(set(labels)) > 1  # else no law could be seen

    ask = ["predict", "--checkpoint", str(unsure_run), "--image-dir", str(data / "test"),
           "--device", "cpu"]  # fmt: skip
    for ending in ("csv", "jsonl", "txt"):
        with pytest.raises(SystemExit, match=r"^0$"):
            main([*ask, "--output", str(tmp_path / f"p.{ending}")])
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        assert [row["sure_of"] for row in csv.DictReader(file)] == labels
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    assert [row["sure_of"]["label"] if row["sure_of"] else "" for row in told] == labels
    shown = {"": "none", "cold": "冷色"}
    texts = (tmp_path / "p.txt").read_text(encoding="utf-8").splitlines()
    for line, label in zip(texts, labels, strict=True):
        assert f"sure of: {shown.get(label, label)}" in line
    capsys.readouterr()
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*ask[:3], "--image", str(paths[0]), "--device", "cpu"])
    assert "At 70 % sure of: " in capsys.readouterr().out

    made = export(unsure_run, tmp_path / "onnx", progress=False)
    assert (made.verified.other_sure, made.verified.other_sets) == (0, 0)
    done = subprocess.run(
        [sys.executable, made.runner, *map(str, paths)], capture_output=True, text=True, check=True
    )
    for line, ours in zip(done.stdout.splitlines(), found, strict=True):
        theirs = json.loads(line)
        assert list(theirs) == list(ours.to_dict())
        assert (theirs["sure_of"] or {}).get("name") == (ours.sure_of and ours.sure_of.name)
    again = Predictor(made.folder).predict_batch(paths)
    assert [x.further["sure_of"] for x in again] == labels
    plain = export(unsure_run, tmp_path / "plain", form="transformers", progress=False)
    assert plain.verified.other_sure == 0

    with served(unsure_run) as running:
        answer = running.client.post("/predict", content=paths[0].read_bytes()).json()
    assert (answer["sure_of"] or {"label": ""})["label"] == labels[0]
    assert answer["sure_share"] == 0.7


def test_an_evaluation_tells_how_often_the_parent_was_right(
    unsure_run: Path, data: Path, tmp_path: Path
) -> None:
    found = evaluate(
        unsure_run, data_dir=data, output_dir=tmp_path, device="cpu", baseline=False,
        num_workers=0, progress=False,
    )  # fmt: skip
    with (tmp_path / "evaluation_predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    group = {"amber": "amber", "blue": "cold", "cyan": "cold"}
    right = np.mean([group[row["label"]] == group[row["predicted"]] for row in rows])
    assert found.families is not None
    assert found.families.right.value == pytest.approx(right)
    held = [row["sure_of"] in ("", row["label"], group[row["label"]]) for row in rows]
    assert found.families.sure is not None
    assert found.families.sure.right.value == pytest.approx(np.mean(held))
    told = json.loads((tmp_path / "evaluation_results.json").read_text(encoding="utf-8"))
    assert told["parents"]["parent_right"]["value"] == pytest.approx(right)
    assert told["parents"]["per_parent"]["cold"]["classes"] == ["blue", "cyan"]
    assert told["display_names"]["cold"] == "冷色"
    text = (tmp_path / "evaluation_report.txt").read_text(encoding="utf-8").replace("\n", " ")
    assert f"At least the parent was right for {100 * right:.1f} (" in text
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Parents of classes" in page
    assert "冷色" in page


def test_a_class_added_may_have_a_parent_and_promises_to_other_classes_go(
    unsure_run: Path, tmp_path: Path
) -> None:
    before = resolve_checkpoint(unsure_run).record
    assert before.answers is not None
    options = {"device": "cpu", "progress": False}
    grown = add_class(unsure_run, "green", parent="cold", output=tmp_path / "plus", **options)
    record = grown.checkpoint.record
    assert record.parents == before.parents | {"green": "cold"}
    assert record.answers is not None
    assert (record.answers.sets, record.answers.sure) == (None, None)
    assert Predictor(tmp_path / "plus", device="cpu").engine.parents.of(3) == ("cold",)
    shrunk = remove_class(unsure_run, "blue", output=tmp_path / "minus", **options)
    assert shrunk.checkpoint.record.parents == {"cyan": "cold"}
    with pytest.raises(UserError, match=r"--parent cald: .* 'cold'\?.* Its parents: cold"):
        add_class(unsure_run, "green", parent="cald", output=tmp_path / "x", **options)
    with pytest.raises(UserError, match=r"'cold': that is what classes .* called together"):
        add_class(unsure_run, "cold", output=tmp_path / "x", **options)


def test_a_checkpoint_without_parents_says_nothing_of_them(tiny_run: Path) -> None:
    path = resolve_checkpoint(tiny_run).path
    told = json.loads((path / "cliptune.json").read_text(encoding="utf-8"))
    assert "parents" not in told
    assert "sure" not in told["answers"]
    assert Predictor(tiny_run, device="cpu").predict(np.zeros((8, 8, 3), np.uint8)).further == {}

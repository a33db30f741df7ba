"""What classes are called: in prompts, in reports, in predictions, and where the names are kept."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import normalize

from cliptune import Evaluation, Predictor, evaluate, load_settings, prepare, train
from cliptune.data.classes_file import GivenNames, read_names
from cliptune.data.naming import display_names, spoken_name
from cliptune.errors import CheckpointError, DataError, SettingsError
from cliptune.evaluation.report import build_evaluation
from cliptune.evaluation.report_text import report_text
from cliptune.evaluation.writing import write_report
from cliptune.inference.output import bar_chart, open_output
from cliptune.model.backbone import load_backbone, text_features
from cliptune.model.checkpoint import read_checkpoint
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.model.prompts import class_features, prompt_counts, prompts_for, zero_shot_weights
from cliptune.training.setup import set_up
from conftest import make_photos, tensors

Overrides = dict[str, Any]

CLASSES = ("amber", "blue", "cyan")
TEMPLATES = ["a photo of a {}.", "a drawing of a {}."]
PROMPT_NAMES = {"amber": ["amber", "red dog"], "cyan": ["green", "type of cyan", "cyan"]}


def write_names(data_dir: Path, text: str) -> Path:
    data_dir.mkdir(exist_ok=True)
    (data_dir / "classes.yaml").write_text(text, encoding="utf-8")
    return data_dir


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    """Photos beside which a test may write what it likes."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


@pytest.fixture(scope="module")
def runs(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The last checkpoints of two runs on the same photos: "plain", and "shown" by given names."""
    folder = tmp_path_factory.mktemp("naming")
    data_dir = make_photos(folder / "photos")
    found = {}
    for kind in ("plain", "shown"):
        if kind == "shown":
            write_names(data_dir, "amber: 琥珀\nblue: {name: Blue (Azul)}\n")
        overrides = {
            "model.name": str(clip_folder), "data.data_dir": str(data_dir), "data.num_workers": 0,
            "training.num_epochs": 1, "training.min_updates": 0,
            "training.batch_size": 8, "lora.towers": "both",
            "output.output_dir": str(folder / kind), "output.log_dir": str(folder / "logs"),
            "hardware.device": "cpu", "hardware.mixed_precision": False,
        }  # fmt: skip
        result = train(load_settings(overrides=overrides), progress=False)
        assert result.last is not None
        found[kind] = result.last.path
    (data_dir / "classes.yaml").unlink()  # from here on only the checkpoint knows
    return found


def test_names_are_spoken_without_synset_and_underscores() -> None:
    assert spoken_name("n02099601-golden_retriever") == "golden retriever"
    assert spoken_name("Shih-Tzu") == "Shih Tzu"
    assert spoken_name("___") == "___"


def test_classes_whose_readable_names_are_alike_are_shown_by_class_name() -> None:
    shown = display_names(["n02110958-pug", "pug", "toy_poodle"], {})
    assert list(shown.values()) == ["n02110958-pug", "pug", "toy poodle"]


folder_names = st.text("_- nap1\x1f\u3000") | st.from_regex(r"n\d{8}[-_]a?\Z")


@given(st.lists(folder_names, unique=True))
def test_no_two_classes_are_shown_alike_by_default(class_names: list[str]) -> None:
    assert len(set(display_names(class_names, {}).values())) == len(class_names)


def test_without_a_file_every_name_is_the_default(tmp_path: Path) -> None:
    assert read_names(tmp_path, CLASSES) == GivenNames()
    for nothing in (
        "",
        "# amber: x\n",
        "amber:\nblue: {}\n",
        "blue: blue\ncyan: {prompts: [cyan]}",
    ):
        assert read_names(write_names(tmp_path, nothing), CLASSES) == GivenNames()


def test_a_name_shown_enters_no_prompt(tmp_path: Path) -> None:
    names = read_names(write_names(tmp_path, "amber: 琥珀\nblue: {name: 蓝}\n"), CLASSES)
    assert names == GivenNames(display={"amber": "琥珀", "blue": "蓝"})
    assert prompts_for(CLASSES, ["{}"], prompt_names=names.prompts) == list(CLASSES)


def test_everything_in_the_file_is_text(tmp_path: Path) -> None:
    """YAML alone would read these classes as a number, false, and a date, and names as others."""
    classes = ("007", "no", "2024-01-01", "St. Bernard")
    text = "007: 1e5\nno: null\n2024-01-01: {name: yes, prompts: [1, off]}\nSt. Bernard: ~\n"
    names = read_names(write_names(tmp_path, "\ufeff" + text.replace("\n", "\r\n")), classes)
    expected = {"007": "1e5", "no": "null", "2024-01-01": "yes", "St. Bernard": "~"}
    assert names == GivenNames(display=expected, prompts={"2024-01-01": ["1", "off"]})


def test_names_are_brought_to_one_line(tmp_path: Path) -> None:
    names = read_names(write_names(tmp_path, 'amber: "  a\\tred\u3000 dog\\n"\n'), CLASSES)
    assert names.display == {"amber": "a red dog"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("amer: x\n", "classes.yaml:1: unknown class 'amer' (nearest: amber)"),
        ("zebra: x\n", "unknown class 'zebra' (classes: amber, blue, cyan)"),
        ("[a, b]: x\n", "not valid YAML"),
        ("amber: {nme: x}\n", "amber: unknown key 'nme'. Did you mean 'name'? Keys: name, prompts"),
        ("amber: [x]\n", "amber: found ['x']; expected the name shown, or 'name:' and 'prompts:'"),
        ("amber: !!int 7\n", "amber: found 7; expected the name shown"),
        ("amber: {name: [x]}\n", "amber.name: found ['x']; expected text"),
        ("amber:\n  name:\n", "classes.yaml:2: amber.name: found nothing; expected text"),
        ("amber: ''\n", "classes.yaml:1: amber.name: found an empty name; expected text"),
        ("amber: '\u3000'\n", "amber.name: found an empty name"),
        ('amber: "\\e[31m"\n', "amber.name: found control characters in '\\x1b[31m'"),
        ('amber: "\\udcff"\n', "amber.name: found control characters"),
        ("amber: {prompts: dog}\n", "amber.prompts: found 'dog'; expected a list, such as [amber,"),
        ("amber: {prompts: []}\n", "amber.prompts: found []; expected a list"),
        ("amber: {prompts: }\n", "amber.prompts: found nothing; expected a list"),
        ("amber: {prompts: [dog, '']}\n", "amber.prompts: found an empty name"),
        ("amber: {prompts: [dog, {a: b}]}\n", "amber.prompts: found {'a': 'b'}; expected text"),
        ("amber: {prompts: [dog, dog]}\n", "amber.prompts: 'dog' stands there more than once"),
        ("amber: x\ncyan: x\n", "classes.yaml:1: amber, cyan would all be shown as 'x'"),
        ("cyan: blue\n", "classes.yaml:1: blue, cyan would all be shown as 'blue'"),
        ("amber: x\namber: y\n", "written twice: 'amber' (lines 1 and 2)"),
        ("amber: {name: x, name: y}\n", "written twice: 'amber.name' (lines 1 and 1)"),
        ("- amber\n", "expected class names with what they are called"),
        ("amber\n", "expected class names with what they are called"),
        ("amber: x\n b: [\n", "not valid YAML"),
        ("amber: &a\n  name: *a\n", "for themselves"),
        ("amber: &a [*a]\n", "amber: found [[[...]]]; expected"),
        ("blue: &b {name: x}\namber: {!!merge <<: *b}\n", "blue would all be shown as 'x'"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_file_line_and_remedy(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_names(write_names(tmp_path, text), CLASSES)
    assert words in str(caught.value)
    assert str(tmp_path / "classes.yaml") in str(caught.value)


def test_all_faults_are_told_together_in_few_words(tmp_path: Path) -> None:
    text = f"amer: x\nblue: {{nme: y, prompts: {['z'] * 9_000}}}\ncyan: ''\ncyan: cyan\n"
    with pytest.raises(DataError) as caught:
        read_names(write_names(tmp_path, text), CLASSES)
    message = str(caught.value)
    assert f"{tmp_path / 'classes.yaml'}: 4 faults:" in message
    for words in ("unknown class 'amer'", "unknown key 'nme'", "'z' stands there", "written twice"):
        assert words in message
    assert len(message) < 1000


def test_an_unknown_class_is_answered_with_the_folder_that_may_be_meant(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown class 'Pug' \(nearest: n02110958-pug\)"):
        read_names(write_names(tmp_path, "Pug: x\n"), ["n02110958-pug", "beagle"])


def test_lists_of_lists_without_end_are_shown_in_short(tmp_path: Path) -> None:
    lists = "amber: &a [1, 1, 1, 1, 1, 1]\nblue: &b [*a, *a, *a, *a, *a, *a]\n"
    with pytest.raises(DataError) as caught:
        read_names(write_names(tmp_path, lists + "cyan: [*b, *b, *b, *b, *b, *b, *b]\n"), CLASSES)
    assert len(str(caught.value)) < 1500


def links_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


@pytest.mark.parametrize(
    ("make_file", "words"),
    [
        (lambda path: path.write_bytes("amber: 琥珀\n".encode("gbk")), "cannot be read"),
        (lambda path: path.write_text("#" * (4 * 2**20 + 1)), "larger than 4 MiB"),
        (lambda path: path.mkdir(), "cannot be read"),
        (links_nowhere, "no such file of class names"),
    ],
)
def test_what_is_no_text_file_of_names_is_refused(
    tmp_path: Path, make_file: Callable[[Path], object], words: str
) -> None:
    make_file(tmp_path / "classes.yaml")
    with pytest.raises(DataError, match=words):
        read_names(tmp_path, CLASSES)


def test_extra_prompt_names_average_like_templates(any_model_folder: Path) -> None:
    """Compared with `transformers`, which encodes each text alone."""
    from transformers import AutoModel

    backbone = load_backbone(str(any_model_folder))
    ours = zero_shot_weights(backbone, CLASSES, TEMPLATES, prompt_names=PROMPT_NAMES)
    reference = AutoModel.from_pretrained(any_model_folder).eval()
    for row, class_name in zip(ours, CLASSES, strict=True):
        features = []
        for name in PROMPT_NAMES.get(class_name, [class_name]):
            for template in TEMPLATES:
                tokens = backbone.tokenize([template.replace("{}", name)])
                with torch.no_grad():
                    output = reference.get_text_features(**tokens)
                features.append(normalize(output.pooler_output[0], dim=-1))
        expected = normalize(torch.stack(features).mean(0), dim=-1)
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-6)
    single = zero_shot_weights(backbone, CLASSES, TEMPLATES, prompt_names=PROMPT_NAMES, batch=1)
    torch.testing.assert_close(ours, single, rtol=1e-4, atol=1e-6)


def test_without_extra_names_features_are_to_the_bit_those_of_before(clip_folder: Path) -> None:
    backbone = load_backbone(str(clip_folder))
    tokens = backbone.tokenize(prompts_for(CLASSES, TEMPLATES))
    counts = prompt_counts(CLASSES, TEMPLATES)
    with torch.no_grad():
        ours = class_features(backbone.model, tokens, counts=counts)
        features = normalize(text_features(backbone.model, tokens).float(), dim=-1)
        before = normalize(features.view(3, -1, features.shape[-1]).mean(dim=1), dim=-1)
    assert torch.equal(ours, before)
    assert torch.equal(zero_shot_weights(backbone, CLASSES, TEMPLATES), before)


def test_gradients_of_many_prompts_are_those_of_each_class_alone(clip_folder: Path) -> None:
    backbone = load_backbone(str(clip_folder))
    texts = prompts_for(CLASSES, TEMPLATES, prompt_names=PROMPT_NAMES)
    counts = prompt_counts(CLASSES, TEMPLATES, prompt_names=PROMPT_NAMES)
    assert counts == [4, 2, 6]
    tokens = backbone.tokenize(texts)
    weight = backbone.model.text_projection.weight
    torch.manual_seed(0)
    direction = torch.randn(3, weight.shape[0])
    together = class_features(backbone.model, tokens, counts=counts)
    (ours,) = torch.autograd.grad((together * direction).sum(), weight)
    expected = torch.zeros_like(ours)
    for label, start in enumerate((0, 4, 6)):
        part = {key: value[start : start + counts[label]] for key, value in tokens.items()}
        alone = class_features(backbone.model, part, counts=[counts[label]])
        expected += torch.autograd.grad((alone * direction[label]).sum(), weight)[0]
    assert expected.abs().max() > 0
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_no_classes_yaml_changes_no_logit(runs: dict[str, Path]) -> None:
    """Names shown are for eyes: what is trained is the same to the bit, the text tower too."""
    plain, shown = tensors(runs["plain"]), tensors(runs["shown"])
    assert all(torch.equal(plain[name], shown[name]) for name in plain)
    record = read_checkpoint(runs["plain"]).record
    assert record.display_names == record.prompt_names == {}


def test_display_names_travel_with_the_checkpoint_and_change_no_prediction(
    runs: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(runs["shown"], tmp_path / "moved"))
    paths = sorted((photos / "test").rglob("*.png"))
    plain = Predictor(runs["plain"], device="cpu").predict_batch(paths)
    predictor = Predictor(moved, device="cpu")
    shown = predictor.predict_batch(paths)
    assert predictor.display_names == {"amber": "琥珀", "blue": "Blue (Azul)", "cyan": "cyan"}
    for before, after in zip(plain, shown, strict=True):
        for old, new in zip(before.scores, after.scores, strict=True):
            assert (old.label, old.probability) == (new.label, new.probability)
            assert old.name == old.label
            assert new.name == predictor.display_names[new.label]
        assert after.name == after.scores[0].name
    card = (moved / "README.md").read_text(encoding="utf-8")
    assert "Classes: amber (琥珀), blue (Blue (Azul)), cyan." in card


def test_people_read_names_and_programs_read_labels(
    runs: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    predictor = Predictor(runs["shown"], device="cpu")
    result = predictor.predict(photos / "test" / "amber" / "amber_0.png")
    for ending in ("txt", "csv", "jsonl"):
        with open_output(tmp_path / f"out.{ending}", top_k=3) as write:
            write(result)
    for text in (bar_chart(result), (tmp_path / "out.txt").read_text(encoding="utf-8")):
        assert all(name in text for name in ("琥珀 ", "Blue (Azul) ", "cyan "))
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert {row[f"label_{i}"] for i in (1, 2, 3)} == set(CLASSES)
    assert not any("name" in column for column in row)
    values = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert (values["label"], values["name"]) == (result.label, result.name)
    assert {score["label"]: score["name"] for score in values["scores"]} == predictor.display_names


def test_reports_show_names_and_keep_their_keys(
    runs: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    results = {}
    for kind, checkpoint in runs.items():
        evaluate(
            checkpoint, data_dir=photos, output_dir=tmp_path / kind, num_workers=0, progress=False,
            device="cpu",
        )  # fmt: skip
        text = (tmp_path / kind / "evaluation_results.json").read_text(encoding="utf-8")
        results[kind] = json.loads(text)
    shown = {"amber": "琥珀", "blue": "Blue (Azul)", "cyan": "cyan"}
    assert results["plain"].pop("display_names") == dict(zip(CLASSES, CLASSES, strict=True))
    assert results["shown"].pop("display_names") == shown
    for changes in ("checkpoint", "seconds", "images_per_second"):
        assert results["plain"].pop(changes) != results["shown"].pop(changes)
    assert results["plain"] == results["shown"]
    report = (tmp_path / "shown" / "evaluation_report.txt").read_text(encoding="utf-8")
    assert all(f"\n{name} " in report for name in shown.values())


def evaluation_of(
    names: tuple[str, ...], logits_NC: Any, labels_N: Any, given_names: dict[str, str]
) -> Evaluation:
    facts: dict[str, Any] = {"checkpoint": "", "base_model": "", "data_dir": "", "split": "test"}
    facts |= {"missing_classes": (), "ignored_classes": (), "skipped_images": (), "seconds": 1.0}
    return build_evaluation(
        logits_NC=logits_NC, labels_N=labels_N, baseline_logits_NC=None, class_names=names,
        given_names=given_names, **facts,
    )  # fmt: skip


def test_reports_are_those_of_classes_that_are_really_called_so(tmp_path: Path) -> None:
    """Text and pictures, even where a class is called like a row of scikit-learn's report."""
    outcome = np.eye(3)[[0, 1, 1, 2, 2]], np.array([0, 0, 1, 1, 2])
    given_names = {"accuracy": "Genauigkeit", "b_c": "d"}
    ours = evaluation_of(("accuracy", "b_c", "e_f"), *outcome, given_names)
    real = evaluation_of(("Genauigkeit", "d", "e f"), *outcome, {})
    assert report_text(ours) == report_text(real)
    write_report(ours, tmp_path / "ours")
    write_report(real, tmp_path / "real")
    for picture in ("confusion_matrix.png", "class_performance.png"):
        with (
            Image.open(tmp_path / "ours" / picture) as a,
            Image.open(tmp_path / "real" / picture) as b,
        ):
            assert np.array_equal(np.asarray(a), np.asarray(b))


def changed_record(checkpoint: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of `checkpoint` whose cliptune.json was changed, as another version may write it."""
    copy = Path(shutil.copytree(checkpoint, target))
    (copy / "SHA256SUMS").unlink()
    record = json.loads((copy / "cliptune.json").read_text(encoding="utf-8"))
    change(record)
    (copy / "cliptune.json").write_text(json.dumps(record), encoding="utf-8")
    return copy


def test_a_checkpoint_without_the_new_fields_loads(
    runs: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    def earlier(record: dict[str, Any]) -> None:
        assert record.pop("display_names")
        assert record.pop("prompt_names") == {}
        assert record["format"] == 1

    old = changed_record(runs["shown"], tmp_path / "old", earlier)
    photo = photos / "test" / "blue" / "blue_1.png"
    before, after = (Predictor(path, device="cpu").predict(photo) for path in (runs["plain"], old))
    assert before.scores == after.scores


def test_a_record_whose_prompts_have_no_name_is_refused(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    damaged = changed_record(
        runs["plain"], tmp_path / "damaged", lambda record: record.update(prompt_names={"blue": []})
    )
    with pytest.raises(CheckpointError, match="damaged or of another format"):
        read_checkpoint(damaged)


@pytest.mark.parametrize("towers", ["vision", "both"])
def test_prompt_names_reach_training_its_baseline_and_the_evaluation(
    overrides: Overrides, own_photos: Path, towers: str
) -> None:
    write_names(own_photos, json.dumps({name: {"prompts": p} for name, p in PROMPT_NAMES.items()}))
    overrides |= {"data.data_dir": str(own_photos), "lora.towers": towers}
    overrides |= {"hardware.mixed_precision": False, "model.prompts": TEMPLATES}
    settings = load_settings(overrides=overrides)
    backbone = load_backbone(overrides["model.name"])
    expected = zero_shot_weights(backbone, CLASSES, TEMPLATES, prompt_names=PROMPT_NAMES)
    start = set_up(settings, progress=False).classifier.eval()
    torch.testing.assert_close(start.class_weights().detach(), expected)
    result = train(settings, progress=False)
    assert result.last is not None
    assert result.last.record.prompt_names == PROMPT_NAMES
    found = LoadedCheckpoint(result.last).zero_shot().class_weights()
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, zero_shot_weights(backbone, CLASSES, TEMPLATES), atol=1e-3)
    options: dict[str, Any] = {"split": "val", "output_dir": None, "num_workers": 0}
    evaluation = evaluate(result.last.path, device="cpu", progress=False, **options)
    assert evaluation.baseline is not None
    assert evaluation.baseline.accuracy == result.baseline_accuracy
    # Stored once at the end, the text features are those that training used.
    assert evaluation.before_scaling.log_loss.value == pytest.approx(
        result.history[-1]["val_loss"], rel=1e-4
    )


def test_other_prompt_names_are_another_run_and_other_display_names_are_not(
    overrides: Overrides, own_photos: Path
) -> None:
    overrides |= {"data.data_dir": str(own_photos), "training.num_epochs": 1}
    write_names(own_photos, "amber: {name: 琥珀, prompts: [amber, red dog]}\n")
    train(load_settings(overrides=overrides), progress=False)
    settings = load_settings(overrides=overrides | {"training.num_epochs": 2})
    write_names(own_photos, "amber: {name: 琥珀}\nblue: {prompts: [dog]}\n")
    with pytest.raises(SettingsError) as caught:
        train(settings, resume=True, progress=False)
    assert "amber: was ['amber', 'red dog'], is the default" in str(caught.value)
    assert "blue: was the default, is ['dog']" in str(caught.value)
    assert "classes.yaml" in str(caught.value)
    write_names(own_photos, "amber: {name: Ambar, prompts: [amber, red dog]}\ncyan: 青\n")
    result = train(settings, resume=True, progress=False)
    assert result.last is not None
    assert result.last.record.display_names == {"amber": "Ambar", "cyan": "青"}
    assert result.epochs == 2


def test_faults_of_names_are_told_before_a_model_is_loaded(
    overrides: Overrides, own_photos: Path, tmp_path: Path
) -> None:
    write_names(own_photos, "ambre: x\n")
    overrides |= {"data.data_dir": str(own_photos), "model.name": str(tmp_path / "no model")}
    with pytest.raises(DataError, match="unknown class 'ambre'"):
        train(load_settings(overrides=overrides), progress=False)
    assert not (tmp_path / "run").exists()


def test_prepare_brings_names_along_and_counts_no_file_as_left_out(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"own": 4}, classes=("pug", "toy_poodle", "boxer"))
    text = "# mine\npug: 巴哥犬\ntoy_poodle: {prompts: [toy poodle, poodle]}\n"
    write_names(tmp_path / "own", text)
    result = prepare(tmp_path / "all", source=tmp_path / "own", progress=False)
    assert (tmp_path / "all" / "classes.yaml").read_text(encoding="utf-8") == text
    assert "left out" not in result.summary()
    prepare(tmp_path / "two", source=tmp_path / "own", classes=["pug", "boxer"], progress=False)
    names = read_names(tmp_path / "two", ("boxer", "pug"))
    assert names == GivenNames(display={"pug": "巴哥犬"})
    others = ["boxer", "toy_poodle"]
    prepare(tmp_path / "others", source=tmp_path / "own", classes=others, progress=False)
    names = read_names(tmp_path / "others", others)
    assert names == GivenNames(prompts={"toy_poodle": ["toy poodle", "poodle"]})


def test_prepare_leaves_names_that_are_there_alone(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"own": 4}, classes=("pug", "boxer"))
    write_names(tmp_path / "own", "pug: theirs\n")
    write_names(tmp_path / "out", "pug: mine\n")
    prepare(tmp_path / "out", source=tmp_path / "own", progress=False)
    assert read_names(tmp_path / "out", ("boxer", "pug")).display == {"pug": "mine"}
    assert prepare(tmp_path / "out", progress=False).kind == "already_there"


def test_prepare_tells_faults_of_names_before_it_copies_a_photo(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"own": 4}, classes=("pug", "boxer"))
    write_names(tmp_path / "own", "pugg: x\n")
    with pytest.raises(DataError, match=r"unknown class 'pugg' \(nearest: pug\)"):
        prepare(tmp_path / "out", source=tmp_path / "own", progress=False)
    assert not (tmp_path / "out").exists()

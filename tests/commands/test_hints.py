"""What was mistyped is answered with what may have been meant; what is printed can be copied."""

from __future__ import annotations

import re
import shlex
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from cliptune import Predictor, add_class, check, compare, evaluate, load_settings, prepare, train
from cliptune.checking.report import check_page, check_text
from cliptune.cli import main
from cliptune.commands.predicting import photos_to_predict
from cliptune.data.folder import load_split, load_training_splits
from cliptune.errors import (
    CheckpointError,
    DataError,
    DeviceError,
    ImageError,
    SettingsError,
    UserError,
)
from cliptune.files import user_path
from cliptune.hints import address_fault, nearest, not_there
from cliptune.model.device import resolve_device
from cliptune.text import command, counted
from conftest import make_model, make_photos

ONE_OF_MANY = re.compile(
    r"(?<![\d.,])1 (unreadable |training |validation )?"
    r"(photos|images|classes|files|updates|epochs|warnings|errors|notes|copies|class folders)\b"
)


def command_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command run in this process."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out, captured.err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space in its name that holds photos, a model, and one epoch's run of both."""
    folder = tmp_path_factory.mktemp("hints") / "my dogs"
    make_photos(folder / "data", counts={"train": 3, "val": 2, "test": 1}, classes=("blue", "red"))
    overrides = {
        "model.name": str(make_model(folder / "clip")),
        "data.data_dir": str(folder / "data"),
        "data.num_workers": 0,
        "training.num_epochs": 1,
        "output.output_dir": str(folder / "run"),
        "output.log_dir": str(folder / "logs"),
        "hardware.device": "cpu",
        "hardware.mixed_precision": False,
    }
    train(load_settings(overrides=overrides), progress=False)
    return folder


# Names


@pytest.mark.parametrize(
    ("name", "meant"),
    [("tset", "test"), ("validation", "val"), ("TRAIN", "train"), ("trian", "train"), ("x", None)],
)
def test_the_nearest_name_is_a_slip_of_the_pen_away(name: str, meant: str | None) -> None:
    assert nearest(name, ("train", "val", "test")) == meant


def test_a_mistyped_split_is_answered_by_every_verb(place: Path) -> None:
    calls = (
        lambda: evaluate(place / "run", split="tset"),
        lambda: compare([place / "run", place / "run"], split="tset"),
        lambda: add_class(place / "run", "green", split="tset"),
        lambda: load_split(place / "data", "tset", class_names=("blue",)),
    )
    for call in calls:
        with pytest.raises(UserError, match="Did you mean 'test'"):
            call()


def test_class_folders_that_evaluation_leaves_out_are_told_with_what_they_may_be(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Path(shutil.copytree(place / "data", tmp_path / "data"))
    (data / "test" / "blue").rename(data / "test" / "bleu")
    evaluate(
        place / "run", data_dir=data, output_dir=None, baseline=False, device="cpu",
        num_workers=0, progress=False,
    )  # fmt: skip
    assert "does not know these classes: bleu (did you mean 'blue'?)" in caplog.text
    assert "test has no photos of 1 class the model knows: blue" in caplog.text
    shutil.rmtree(data / "test" / "red")
    with pytest.raises(DataError, match="'bleu': Did you mean 'blue'"):
        load_split(data, "test", class_names=("blue", "red"))
    (data / "val" / "red").rename(data / "val" / "rde")
    with pytest.raises(DataError, match="Did you mean 'red'"):
        load_training_splits(data, val_ratio=0.1, seed=0)


@pytest.mark.parametrize("key", ["on_bad_image", "layout", "splits", "device"])
def test_a_mistyped_choice_names_the_nearest(place: Path, tmp_path: Path, key: str) -> None:
    source = place / "data"
    calls: dict[str, Any] = {
        "on_bad_image": lambda: evaluate(place / "run", on_bad_image="skpi"),  # type: ignore[arg-type]
        "layout": lambda: prepare(tmp_path / "out", source=source, layout="folder"),
        "splits": lambda: prepare(tmp_path / "out", source=source, splits="sourec"),
        "device": lambda: resolve_device("atuo"),
    }
    meant = {"on_bad_image": "skip", "layout": "folders", "splits": "source", "device": "auto"}
    with pytest.raises((UserError, DeviceError), match=f"Did you mean '{meant[key]}'"):
        calls[key]()


def test_a_mistyped_value_of_a_setting_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'cosine'"):
        load_settings(overrides={"training.lr_scheduler.type": "cosin"})


# Paths


def test_a_path_that_is_not_there_names_the_nearest_one(place: Path, tmp_path: Path) -> None:
    near = rf"no such folder; did you mean '{re.escape(str(place / 'data'))}'"
    wrong = place / "dta"
    with pytest.raises(DataError, match=near):
        check(wrong)
    with pytest.raises(DataError, match=near):
        load_training_splits(wrong, val_ratio=0.1, seed=0)
    with pytest.raises(DataError, match=near):
        evaluate(place / "run", data_dir=wrong)
    with pytest.raises(DataError, match="did you mean"):
        prepare(tmp_path / "out", source=wrong)
    with pytest.raises(CheckpointError, match=r"did you mean '.*/my dogs/run/checkpoint-epoch-1'"):
        Predictor(place / "rnu" / "checkpoint-epoch-1")
    with pytest.raises(CheckpointError, match="It holds runs: run"):
        Predictor(place)
    with pytest.raises(SettingsError, match="did you mean"):
        load_settings(place / "run" / "checkpoint-epoch-1" / "confg.yaml")
    with pytest.raises(ImageError, match=r"there is no such file; did you mean '.*blue_0\.png'"):
        Predictor(place / "run", device="cpu").predict(place / "data/test/blue/bleu_0.png")
    assert not_there(tmp_path / "nothing" / "alike", "no such folder") == "no such folder."


# What is no path


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("HTTP://example.org/dog.jpg", "no protocol that is read. Did you mean 'http'?"),
        ("ftp://example.org/dog.jpg", r"Expected one of .*s3://.*, or a path|download it first"),
        ("sftp://me:secret@example.org/dog.jpg", "sftp://…@example.org/dog.jpg: a password"),
        ("-", "standard input is not read"),
    ],
)
def test_an_address_that_is_not_read_is_answered_with_what_to_do(
    given: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--image", "--image-dir"):
        code, _, said = command_line(
            capsys, "predict", "--checkpoint", tmp_path, f"{option}={given}"
        )
        assert code == 2
        assert re.search(remedy, said)
        assert "secret" not in said


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("https://example.org/config.yaml", "download it first"),
        ("file:///my%20dogs/config.yaml", "give the path itself: '/my dogs/config.yaml'"),
    ],
)
def test_an_address_where_only_files_are_read_is_answered_with_what_to_do(
    given: str, remedy: str
) -> None:
    assert re.search(remedy, not_there(Path(given), "no such file"))
    assert address_fault("C:/photos/dog.jpg") is None
    assert address_fault("photos/dog.jpg") is None


def test_the_python_api_answers_an_address_as_the_command_line_does(place: Path) -> None:
    predictor = Predictor(place / "run", device="cpu")
    with pytest.raises(ImageError, match=r"ftp://a\.b/c\.jpg: 'ftp' is no protocol"):
        predictor.predict_batch(["ftp://a.b/c.jpg", "ftp://a.b/d.jpg"])
    with pytest.raises(UserError, match=r"ftp://example\.org/photos\.tar: 'ftp' is no protocol"):
        prepare(place / "out", source="ftp://example.org/photos.tar")


def test_a_quoted_pattern_names_the_photos_that_a_shell_would_have_named(place: Path) -> None:
    folder = place / "data" / "train"
    found = photos_to_predict([f"{folder}/*/*_1.png", str(folder / "red/red_0.png")], None)
    assert [path.name for path in found] == ["blue_1.png", "red_1.png", "red_0.png"]
    odd = place / "a[1].png"
    odd.write_bytes(b"")
    assert photos_to_predict([str(odd)], None) == [odd]  # a file's own name is no pattern
    with pytest.raises(UserError, match="no file of this pattern"):
        photos_to_predict([f"{folder}/*.webp"], None)


# The home folder, and text in settings


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("USERPROFILE", str(place))
    monkeypatch.chdir(tmp_path)
    (place / "settings.yaml").write_text("data:\n  data_dir: ~/data\n  cache_dir: ~/cache\n")
    settings = load_settings("~/settings.yaml", overrides={"output.output_dir": "~/other"})
    assert settings.data.data_dir == place / "data"
    assert settings.data.cache_dir == place / "cache"
    assert settings.output.output_dir == place / "other"
    assert check("~/data", progress=False).data_dir == place / "data"  # type: ignore[arg-type]
    options: dict[str, Any] = {"device": "cpu", "progress": False, "num_workers": 0}
    evaluate("~/run", data_dir="~/data", output_dir="~/report", base_model="~/clip", **options)
    assert (place / "report" / "report.html").is_file()
    predictor = Predictor("~/run", device="cpu")
    assert predictor.predict("~/data/test/red/red_0.png").label in ("blue", "red")
    prepare("~/out", source="~/data", progress=False)  # type: ignore[arg-type]
    assert (place / "out" / "train").is_dir()
    photo = "--image=~/data/test/red/*.png"
    code, out, err = command_line(
        capsys, "predict", "--checkpoint=~/run", photo, "--output=~/out.csv", "--device=cpu"
    )
    assert code == 0, err
    assert out == f"1 image predicted: {place / 'out.csv'}\n"
    assert not any(tmp_path.iterdir())  # no folder called ~
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_text_in_settings_is_what_is_written(tmp_path: Path) -> None:
    text = "model: {name: 001, revision: 12e4567}\ndata: {data_dir: 2024-11-05}\n"
    text += "output: {output_dir: no, log_dir: 2024-99-99}\n"
    (tmp_path / "config.yaml").write_text(text)
    settings = load_settings(tmp_path / "config.yaml")
    assert (settings.model.name, settings.model.revision) == ("001", "12e4567")
    assert settings.data.data_dir == Path("2024-11-05")
    assert settings.output.output_dir == Path("no")
    (tmp_path / "config.yaml").write_text("data: {cache_dir: ~, batch_size: 8}\n")
    assert load_settings(tmp_path / "config.yaml").data.cache_dir is None


def test_text_on_the_command_line_is_what_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--set", "training.num_epochs=0"]
    code, _, said = command_line(
        capsys, "train", "--set", "model.revision=001", "--set", "data.data_dir=2024-11-05", *wrong
    )
    assert code == 2
    assert "training.num_epochs: found 0" in said
    assert "revision" not in said
    assert "data_dir" not in said


def test_a_number_where_text_is_wanted_is_told_to_stand_in_quotes() -> None:
    with pytest.raises(SettingsError, match="expected text: put it in quotes"):
        load_settings(overrides={"model.revision": 1})


# What is printed


def test_numbers_agree_with_their_nouns() -> None:
    assert [counted(n, "photo") for n in (0, 1, 1200)] == ["0 photos", "1 photo", "1,200 photos"]
    assert [counted(2, noun) for noun in ("class", "copy", "box", "day", "unreadable file")] == [
        "2 classes", "2 copies", "2 boxes", "2 days", "2 unreadable files",
    ]  # fmt: skip


def test_nothing_says_one_photos(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = Path(shutil.copytree(place / "data", tmp_path / "data"))
    shutil.rmtree(data / "test" / "red")
    (data / "train" / "red" / "red_1.png").write_bytes(b"")
    options: dict[str, Any] = {"data_dir": data, "device": "cpu", "progress": False}
    evaluate(place / "run", output_dir=tmp_path / "report", num_workers=0, **options)
    twin = Path(shutil.copytree(place / "run", tmp_path / "twin"))
    compare([place / "run", twin], output_dir=tmp_path / "twins", num_workers=0, **options)
    said = [path.read_text("utf-8") for path in tmp_path.glob("*/*.txt")]
    said += [path.read_text("utf-8") for path in tmp_path.glob("*/*.html")]
    result = check(data, progress=False)
    said += [check_text(result), check_page(result), caplog.text]
    photo = data / "test/blue/blue_0.png"
    for arguments in (
        ("predict", "--checkpoint", place / "run", "--image", photo, "--device", "cpu"),
        ("check", data, "--output", tmp_path / "check", "--fix"),
        ("check", data, "--undo"),
    ):
        said += command_line(capsys, *arguments)[1:]
    assert len(said) > 10
    for text in said:
        assert not (found := ONE_OF_MANY.search(text)), text[found.start() - 60 : found.end() + 30]


def test_a_command_is_one_word_for_each_word_in_every_shell() -> None:
    words = ["cliptune", "my dogs/run", "it's", "$HOME", "a;b", "", "épagneul"]
    assert shlex.split(command(*words)) == words
    windows = command("cliptune", Path("my dogs"), "a&b", r"C:\x", "", windows=True)
    assert windows == r'cliptune "my dogs" "a&b" C:\x ""'


def test_every_printed_command_can_be_copied_from_a_folder_with_a_space(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a b" / "out"
    arguments = ["--set", f"model.name={place / 'clip'}", "--set", "training.num_epochs=1"]
    arguments += ["--set", "data.num_workers=0", "--set", f"output.log_dir={tmp_path / 'logs'}"]
    arguments += ["--data-dir", str(place / "data"), "--output-dir", str(out), "--device", "cpu"]
    code, shown, err = command_line(capsys, "train", *arguments)
    assert code == 0, err
    line = next(line for line in shown.splitlines() if line.startswith("  cliptune evaluate"))
    best, data = str(out / "checkpoint-epoch-1"), str(place / "data")
    expected = ["cliptune", "evaluate", "--checkpoint", best, "--data-dir", data]
    assert shlex.split(line) == expected
    _, _, said = command_line(capsys, "train", *arguments, "--resume")
    assert shlex.join(["cliptune", "evaluate", "--checkpoint", str(out)]) in said

    made = prepare(tmp_path / ("a long name " * 8), source=place / "data", progress=False)
    line = next(li for li in made.summary().splitlines() if li.startswith("  cliptune check"))
    assert shlex.split(line) == ["cliptune", "check", str(made.output_dir)]
    command_line(capsys, *shlex.split(line)[1:], "--output", tmp_path / "check")
    page = unescape((tmp_path / "check" / "check.html").read_text("utf-8"))
    assert f"<code>{shlex.join(['cliptune', 'check', str(made.output_dir)])}</code>" in page
    with pytest.raises(UserError, match=re.escape(shlex.join(["--checkpoint", best]))):
        compare([best])
    with pytest.raises(DataError, match=re.escape(shlex.join(["--source", str(place)]))):
        load_training_splits(place, val_ratio=0.1, seed=0)

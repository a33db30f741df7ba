"""What commands say where Chinese is asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import rich._wrap
import rich.text
from rich.text import Text
from typer import rich_utils

from cliptune.cli import app, main
from cliptune.commands.helping import FIXED
from cliptune.text import columns

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]


@pytest.fixture
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chinese is asked for; what help changes in other libraries is undone at the end."""
    monkeypatch.setenv("CLIPTUNE_LANG", "zh")
    for name in FIXED:
        monkeypatch.setattr(rich_utils, name, getattr(rich_utils, name))
    monkeypatch.setattr(rich._wrap, "re_word", rich._wrap.re_word)
    monkeypatch.setattr(rich.text, "divide_line", rich.text.divide_line)  # type: ignore[attr-defined]
    monkeypatch.setattr(Text, "rstrip_end", Text.rstrip_end)


def run(*words: object) -> None:
    """A command that ends well."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code in (0, None), words


def english_in(text: str) -> list[str]:
    """Runs of English words: three, or two and no names; commands and paths are none."""
    text = re.sub(r"^ *python .*$|\bcliptune( [^ ：，]+)+", "", text, flags=re.MULTILINE)
    text = re.sub(r"'[^']*'|\S*[/\\=]\S*|\S+\.\w+|--?[\w-]+", "·", text)
    return re.findall(r"\b[a-z]{2,}(?: [a-z]{2,})+\b", text)


# -- help --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_in_chinese_holds_no_english_sentence(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    run(*([command.replace("_", "-")] if command else []), "--help")
    shown = capsys.readouterr().out
    assert "用法：" in shown
    assert [words for words in english_in(shown) if len(words.split()) > 2] == []
    assert all(columns(line) <= 100 for line in shown.splitlines())


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize("command", ["prepare", "evaluate", "select"])
def test_help_in_chinese_cuts_nothing_off(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run(command, "--help")
    assert capsys.readouterr().out.count("… │") == 0


def test_an_error_message_is_english_in_every_language(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for name in ("en", "zh"):
        monkeypatch.setenv("CLIPTUNE_LANG", name)
        for words in (["train", "--no-such-option"], ["evaluate", "--checkpoint", "nowhere"]):
            with pytest.raises(SystemExit):
                main(words)
        told.append(capsys.readouterr().err)
    assert told[0] == told[1] != ""
    assert columns(told[0]) == len(told[0])


# -- reports -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("chinese")
def test_what_commands_say_in_chinese_holds_no_english_sentence(
    tiny_run: Path, photos: Path, halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    run("evaluate", "--checkpoint", tiny_run, "--data-dir", photos, "--output-dir", tmp_path,
        "--split", "train")  # fmt: skip
    other = tiny_run / "checkpoint-epoch-1"
    run("compare", tiny_run, other, "--data-dir", photos, "--output-dir", tmp_path)
    run("remove-class", tiny_run, "amber", "--output", tmp_path / "less", "--data-dir", photos)
    run("prepare", "--source", photos / "train", "--output-dir", new)
    run("prepare", "--source", photos / "train", "--output-dir", new)
    run("check", new, "--output", tmp_path)
    run("select", tiny_run, "--images", halves / "test", "--number", 3, "--output",
        tmp_path / "list.csv")  # fmt: skip
    run("manifest", photos, "--output", tmp_path / "list.parquet.csv")
    run("push", tiny_run, "owner/dogs", "--dry-run")
    run("doctor", "--no-network")
    texts = [path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob("*.txt"))]
    assert len(texts) == 2  # evaluation_report.txt, comparison.txt
    for text in (capsys.readouterr().out, *texts):
        assert [words for words in english_in(text) if words not in KEPT] == []
        assert re.search("[\u4e00-\u9fff]", text)


# Names and formats that stay as they are.
KEPT = {"pip install", "base model"}


@pytest.mark.usefixtures("chinese")
def test_tables_in_chinese_line_up_within_80_columns(
    tiny_run: Path, label_run: Path, photos: Path, halves: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run("evaluate", "--checkpoint", tiny_run, "--data-dir", photos, "--output-dir", tmp_path / "a")
    run("evaluate", "--checkpoint", label_run, "--data-dir", halves, "--output-dir", tmp_path / "b")
    one, several = (
        (tmp_path / name / "evaluation_report.txt").read_text(encoding="utf-8").splitlines()
        for name in "ab"
    )
    rules = [place for place, line in enumerate(one) if line == "-" * 76]
    rows = [one[rules[0] - 1], *one[rules[0] : rules[1] + 3]]
    assert {columns(row) for row in rows} == {76}
    start = next(place for place, line in enumerate(several) if line.endswith("阈值"))
    table = several[start : several.index("", start)]
    assert len(table) == 5
    assert {columns(row) for row in table} == {columns(table[0])}
    for line in (*one, *several):
        assert columns(line) <= 80 or "/" in line, line


def test_json_and_csv_are_the_same_bytes_in_both_languages(
    tiny_run: Path, photos: Path, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (clean / "train" / "beagle copy").mkdir()
    made, printed = [], []
    for name in ("en", "zh"):
        monkeypatch.setenv("CLIPTUNE_LANG", name)
        folder = tmp_path / name
        for verb in ("evaluate", "check"):
            words = ["--checkpoint", tiny_run, "--data-dir", photos, "--output-dir"]
            words = [clean, "--output"] if verb == "check" else words
            with pytest.raises(SystemExit):
                main([verb, *map(str, words), str(folder)])
        capsys.readouterr()
        printed.append(json_without_seconds(folder))
        made.append({p.name: p.read_bytes() for p in folder.glob("*.csv")})
    assert made[0] == made[1] != {}
    assert printed[0] == printed[1] != {}


def json_without_seconds(folder: Path) -> dict[str, str]:
    """Every .json of the folder, less what a clock told."""
    found = {}
    for path in folder.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        found[path.name] = re.sub(r'"(seconds|images_per_second)": [\d.]+', "", text)
    return found

"""What people read is there in their language, and nothing else changes with it."""

from __future__ import annotations

import ast
import copy
import importlib.util
import json
import pickle
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from types import ModuleType

import pytest
import rich._wrap
import rich.text
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from typer import rich_utils

import cliptune
from cliptune.cli import app, main
from cliptune.commands.helping import FIXED
from cliptune.language import (
    CATALOGUES,
    FOLDER,
    amount,
    catalogue,
    counting,
    joined,
    language,
    said,
    translated,
)
from cliptune.text import UNBROKEN, columns, left, right, wrap

ROOT = Path(__file__).parents[1]
PACKAGE = Path(cliptune.__file__).parent
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
# Modules that hold little but what people read.
PROSE = [
    *PACKAGE.rglob("*text.py"),
    *(PACKAGE / name for name in (
        "commands/screen.py", "commands/checking.py", "commands/predicting.py",
        "evaluation/families.py", "evaluation/heading.py", "evaluation/seen.py",
        "evaluation/sets.py", "preparing/report.py", "checking/report.py",
    )),
]  # fmt: skip


@pytest.fixture(scope="module")
def catalogues() -> ModuleType:
    """The tool that finds texts: release/catalogues.py."""
    pytest.importorskip("babel", reason="of the extra dev")
    found = importlib.util.spec_from_file_location("catalogues", ROOT / "release/catalogues.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


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


# -- every text has its translation ------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_text_found_in_the_code_stands_translated_in_its_catalogue(
    name: str, catalogues: ModuleType
) -> None:
    known = {message.id: message.string for message in read_po(name)}
    found = {message.id for message in catalogues.texts(name) if message.id}
    assert found - known.keys() == set(), "make catalogues, and translate what it names"
    assert known.keys() - found == set(), "make catalogues: it takes out what is gone"
    assert [text for text, shown in known.items() if not shown] == []


@pytest.mark.parametrize("name", CATALOGUES)
def test_a_translation_is_not_the_english_again(name: str, catalogues: ModuleType) -> None:
    same = [message.id for message in read_po(name) if message.id == message.string]
    assert [text for text in same if re.search(r"[a-z]{4}", text)] == []


@pytest.mark.parametrize("name", CATALOGUES)
def test_a_translation_holds_what_its_english_is_filled_with(
    name: str, catalogues: ModuleType
) -> None:
    for message in read_po(name):
        assert fields(message.string) == fields(message.id), message.id


@pytest.mark.parametrize("name", CATALOGUES)
def test_the_compiled_catalogue_is_that_which_people_write(
    name: str, catalogues: ModuleType
) -> None:
    from babel.messages.mofile import read_mo

    with (FOLDER / "zh" / "LC_MESSAGES" / f"{name}.mo").open("rb") as file:
        compiled = {message.id: message.string for message in read_mo(file) if message.id}
    assert compiled == {message.id: message.string for message in read_po(name)}


def test_a_text_in_two_catalogues_is_translated_alike(catalogues: ModuleType) -> None:
    first, second = ({m.id: m.string for m in read_po(name)} for name in CATALOGUES)
    both = first.keys() & second.keys()
    assert {text: first[text] for text in both} == {text: second[text] for text in both}


def read_po(name: str) -> list[ModuleType]:
    from babel.messages.pofile import read_po as read

    with (FOLDER / "zh" / "LC_MESSAGES" / f"{name}.po").open("rb") as file:
        return [message for message in read(file, locale="zh") if message.id]


def fields(text: str) -> set[tuple[str, str | None]]:
    """What stands in braces, and how it is written; and %(name)s of pages."""
    named = {(name, None) for name in re.findall(r"%\((\w+)\)s", text)}
    try:
        braced = {(field, spec) for _, field, spec, _ in Formatter().parse(text) if field}
    except ValueError:  # braces of a page's own
        braced = set()
    return named | braced


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("from cliptune.language import translated as _\n_('a b')", ["a b"]),
        ("from cliptune.language import translated as _\nf'{_(\"in f\")}'", ["in f"]),
        ("from cliptune.language import said\nsaid('x' if y else 'z', n=1)", ["x", "z"]),
        ("from cliptune.language import amount\namount(3, 'photo')", ["{number:,} photo"]),
        ("def _(text): ...\n_('nothing of ours')", []),
    ],
)
def test_texts_are_found_wherever_they_stand(
    code: str, texts: list[str], catalogues: ModuleType
) -> None:
    assert sorted(catalogues.python_texts(code)) == texts


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_where_people_are_spoken_to_no_sentence_bypasses_the_catalogue(path: Path) -> None:
    assert bare_sentences(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_a_sentence_that_bypasses_the_catalogue_is_found() -> None:
    code = 'print(_("this one is well"), f"{this} is not so")'
    assert bare_sentences(ast.parse(code)) == [" is not so"]


def bare_sentences(tree: ast.Module) -> list[str]:
    """Literals of several words that no function of `cliptune.language` is given."""
    given: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.Assert) or is_document(node) or (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", ""))
            in ("_", "said", "marked", "amount", "counting", "joined", "UserError", "folder_here")
        ):  # fmt: skip
            given |= {id(each) for each in ast.walk(node)}
        if isinstance(node, ast.Call) and any(
            keyword.arg == "file" and ast.unparse(keyword.value) == "sys.stderr"
            for keyword in node.keywords
        ):
            given |= {id(each) for each in ast.walk(node)}  # errors stay English
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and id(node) not in given and re.search(r"[a-z]{2,} [a-z]{2,}", node.value)
    ]  # fmt: skip


def is_document(node: ast.AST) -> bool:
    """Whether the statement is a docstring, which nobody is shown."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


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


# -- language ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CLIPTUNE_LANG": "zh"}, "zh"),
        ({"CLIPTUNE_LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LC_ALL": "zh_CN.UTF-8", "LANG": "C"}, "zh"),
        ({"LANG": "zh_TW"}, "zh"),
        ({"CLIPTUNE_LANG": "en", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"CLIPTUNE_LANG": "klingon"}, "en"),
        ({"CLIPTUNE_LANG": "", "LANG": "C.UTF-8"}, "en"),
    ],
)
def test_the_variable_decides_and_after_it_the_locale(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLIPTUNE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert language() == expected
    shown = translated("Options")
    assert shown == ("选项" if expected == "zh" else "Options")


def test_what_a_catalogue_lacks_is_shown_in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTUNE_LANG", "zh")
    assert translated("no such text 1") == "no such text 1"
    assert translated("") == ""  # a catalogue's header is not for people
    assert amount(2, "no such thing") == "2 no such things"


def test_what_is_said_is_english_as_data_and_translated_where_it_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLIPTUNE_LANG", "zh")
    detail = said(
        "{classes} with fewer than {limit}: {names}",
        classes=counting(1, "class"), limit=10, names=joined(["a", said("list")], " and "),
    )  # fmt: skip
    assert detail == "1 class with fewer than 10: a and list"
    assert json.dumps(detail) == '"1 class with fewer than 10: a and list"'
    for each in (detail, copy.deepcopy(detail), pickle.loads(pickle.dumps(detail))):
        assert translated(each) == "1 个类别不足 10 张：a、列表"


def test_a_number_has_its_english_plural_and_no_chinese_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {}
    for name in ("en", "zh"):
        monkeypatch.setenv("CLIPTUNE_LANG", name)
        told[name] = [amount(number, "photo") for number in (0, 1, 1234)]
    assert told["en"] == ["0 photos", "1 photo", "1,234 photos"]
    assert told["zh"] == ["0 张照片", "1 张照片", "1,234 张照片"]


def test_without_catalogues_everything_is_shown_in_english(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPTUNE_LANG", "zh")
    monkeypatch.setattr("cliptune.language.FOLDER", tmp_path)
    catalogue.cache_clear()
    try:
        assert translated("Options") == "Options"
    finally:
        catalogue.cache_clear()


# -- lines -------------------------------------------------------------------------------------

HAN = st.text("照片类别的正确率与置信区间，。；：（）“”《》、", min_size=1, max_size=30)
LATIN = st.text("abc.-19%()", min_size=1, max_size=12)


@given(st.lists(HAN | LATIN, max_size=20).map(" ".join), st.sampled_from(["", "    "]))
def test_a_paragraph_of_chinese_fills_80_columns_and_loses_nothing(text: str, indent: str) -> None:
    shown = wrap(text, indent=indent)
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", text)
    lines = shown.split("\n")
    unbroken = [part for part in re.findall(UNBROKEN, text) if columns(part) > 70]
    if not unbroken:
        assert all(columns(line) <= 80 for line in lines)
    if columns(text) != len(text):
        # Closing punctuation stays with what it closes, unless a space parted them.
        assert not any(re.match(r"\s*[，。；：）》、]", line) for line in lines[1:]) or re.search(
            r"\s[，。；：）》、]", text
        )


@given(st.text("abc de-f. ", max_size=300), st.sampled_from(["", "    "]))
def test_a_paragraph_of_english_is_as_textwrap_fills_it(text: str, indent: str) -> None:
    filled = textwrap.fill(
        text, 80, initial_indent=indent, subsequent_indent=indent and indent + "  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    assert wrap(text, indent=indent) == filled


@given(st.text("ab照片", max_size=10), st.integers(0, 30))
def test_a_cell_takes_its_columns_whatever_is_written_in_it(text: str, width: int) -> None:
    for cell in (left(text, width), right(text, width)):
        assert columns(cell) == max(width, columns(text))
        assert cell.strip() == text
    if text.isascii():
        assert (left(text, width), right(text, width)) == (f"{text:<{width}}", f"{text:>{width}}")


def test_the_glossary_names_the_terms_that_are_used(catalogues: ModuleType) -> None:
    rows = list(glossary())
    assert len(rows) > 30
    everything = "\n".join(message.string for name in CATALOGUES for message in read_po(name))
    assert [chinese for chinese in rows if chinese not in everything] == []


def glossary() -> Iterator[str]:
    """The Chinese of each row of the table of terms."""
    for line in (FOLDER / "zh" / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "English":
            yield cells[1]

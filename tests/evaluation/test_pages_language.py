"""Pages in the reader's language: nothing stays English but names, and English stays as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from faults import FAULTS, Garden, plant_in_folders
from jinja2 import nodes
from test_multilabel_compare import made_up as made_up_labels
from test_multilabel_page import measured
from test_report import evaluation_of

from cliptune.cli import main
from cliptune.evaluation.comparison.multilabel_page import multilabel_comparison_page
from cliptune.evaluation.multilabel.writing import multilabel_page
from cliptune.evaluation.report_page import report_page
from cliptune.html import environment, render
from cliptune.language import catalogue
from conftest import make_photos
from pictures import plant_clean

PAGES = Path(__file__).parents[2] / "src" / "cliptune" / "pages"
TEMPLATES = sorted(path.name for path in PAGES.glob("*.html"))
HOSTILE = "</script><img src=x onerror=alert(1)>"
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def texts_of(template: str) -> Iterator[str]:
    """Every text that a template gives to gettext, as it stands there."""
    tree = environment("en").parse((PAGES / template).read_text(encoding="utf-8"))
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in ("_", "gettext"):
            (text,) = call.args
            assert isinstance(text, nodes.Const), f"{template}: a text that is not written there"
            yield text.value


def test_templates_give_their_texts_to_gettext() -> None:
    assert "Recall is the share of a class's photos" in " ".join(texts_of("report.html"))
    assert len({text for name in TEMPLATES for text in texts_of(name)}) > 100


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_text_of_a_template_is_translated(template: str) -> None:
    chinese = catalogue("zh")
    for text in texts_of(template):
        key = re.sub(r"\s*\n\s*", " ", text)
        found = chinese.gettext(key)
        assert found != key, f"{template}: {key!r} has no translation; run 'make catalogues'"
        names = re.compile(r"%\((\w+)\)s")
        assert set(names.findall(found)) == set(names.findall(key)), key
        values = dict.fromkeys(names.findall(key), "value")
        assert "%(" not in found % values  # no other sign of formatting, and each "%" is doubled


# What a template may write as it stands: names of figures, and what is no word.
OPEN = {"AP", "F1", "AUROC", "mAP", "cliptune", "nbsp"}


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_word_of_a_template_is_left_outside_of_gettext(template: str) -> None:
    source = (PAGES / template).read_text(encoding="utf-8")
    source = re.sub(r"{% block (style|policy) %}.*?{% endblock %}", "", source, flags=re.DOTALL)
    source = re.sub(r"<(style|script)\b.*?</\1>", "", source, flags=re.DOTALL)
    source = re.sub(r"{% trans.*?{% endtrans \+?%}", "", source, flags=re.DOTALL)
    source = re.sub(r"{%.*?%}|{{.*?}}|{#.*?#}", "", source, flags=re.DOTALL)
    shown = re.findall(r'(?:alt|title|aria-label)="([^"]*)"', source)
    text = re.sub(r"<[^<>]*>", " ", source) + " ".join(shown)
    assert set(re.findall(r"[A-Za-z]\w+", text)) <= OPEN


@pytest.mark.parametrize("template", TEMPLATES)
def test_in_english_a_text_is_shown_as_the_template_writes_it(template: str) -> None:
    english = environment("en")
    for text in texts_of(template):
        values = {name: f"<{name}>" for name in re.findall(r"%\((\w+)\)s", text)}
        shown = english.from_string("{{ gettext(text, **values) }}").render(
            text=text, values=values
        )
        escaped = {name: f"&lt;{name}&gt;" for name in values}
        assert shown == text % escaped


# -- pages of real runs -------------------------------------------------------------------------


class Shown(HTMLParser):
    """The words that a page shows, without names of files, commands and versions."""

    APART = ("style", "script", "pre", "code")
    VOID = ("br", "img", "link", "meta", "input", "line", "rect", "circle")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self._open: list[bool] = []  # for each element: whether what is in it is left out
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.words += [given[key] or "" for key in ("alt", "title", "aria-label") if key in given]
        if tag not in self.VOID:
            classes = (given.get("class") or "").split()
            self._open.append(tag in self.APART or bool({"path", "badge"} & set(classes)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not any(self._open) and data.strip():
            self.words.append(" ".join(data.split()))


# Names of people, methods, files and classes; options, and commands as they are quoted.
NAMES = re.compile(
    r"new folder|Stanford Dogs|Chefer|Romano|Sesia|Candès|McNemar|Holm|ImageNet|CLIP|AUROC|Brier"
    r"|EXIF|CMYK|cliptune|--[\w-]+|'[^']*'|\b[\w./-]+/[\w./<>-]*|\b\w+\.(?:png|jpg|json|csv|yaml)\b"
)
ENGLISH = re.compile(r"[A-Za-z]{2,} +[A-Za-z]{2,}")  # two words beside each other


def ran(*command: str) -> object:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(list(command))
    return stopped.value.code


@pytest.fixture(scope="module")
def chinese_pages(
    tiny_run: Path, label_run: Path, photos: Path, halves: Path, clip_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:  # fmt: skip
    """Every page that commands write, of real photos and models, where Chinese is asked for."""
    folder = tmp_path_factory.mktemp("chinese")
    strangers = make_photos(folder / "strangers", counts={"x": 9}, classes=("y",), seed=5)
    spoilt = plant_clean(folder / "spoilt", train=44, later=8)
    garden = Garden(spoilt, np.random.default_rng(0))
    for _, plant in FAULTS.values():
        plant(garden)
    assert list(plant_in_folders(garden))
    epochs = sorted(map(str, tiny_run.glob("checkpoint-*")))[:2]
    labels = sorted(map(str, label_run.glob("checkpoint-*")))[:2]
    one, several = ["--data-dir", str(photos)], ["--data-dir", str(halves)]
    commands = {
        "report": ["evaluate", "--checkpoint", str(tiny_run), *one, "--device", "cpu",
                   "--unknown", str(strangers), "--corruptions"],
        "multilabel": ["evaluate", "--checkpoint", str(label_run), *several, "--device", "cpu"],
        "comparison": ["compare", *epochs, *one, "--device", "cpu"],
        "several": ["compare", *labels, *several, "--device", "cpu"],
        "check": ["check", str(spoilt)],
        "labels": ["check", str(halves)],
        "suspects": ["check", str(photos), "--model", str(clip_folder)],
        "selection": ["select", str(tiny_run), "--images", str(strangers), "--number", "4"],
    }  # fmt: skip
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPTUNE_LANG", "zh")
        for name, command in commands.items():
            output = folder / name
            target = output / "list.csv" if name == "selection" else output
            option = "--output" if name == "selection" else "--output-dir"
            assert ran(*command, option, str(target)) in (0, 2), name
            (page,) = output.glob("*.html")
            found[name] = page.read_text(encoding="utf-8")
    return found


# What is said of a file that cannot be read is an error message, and English everywhere.
FAULTS_OF_FILES = ("unreadable", "truncated", "empty_file", "bomb", "file_too_large")


def test_a_chinese_page_holds_no_english_but_names(chinese_pages: dict[str, str]) -> None:
    for name, page in chinese_pages.items():
        assert page.startswith('<!doctype html>\n<html lang="zh-CN">')
        for kind in FAULTS_OF_FILES:
            page = re.sub(rf'(<section id="{kind}">.*?)<ul.*?</ul>', r"\1", page, flags=re.DOTALL)
        words = [NAMES.sub("·", text) for text in Shown(page).words]
        assert [text for text in words if ENGLISH.search(text)] == [], name
        assert sum(bool(CHINESE.search(text)) for text in words) > 5, name


def test_names_cannot_become_markup_of_a_chinese_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPTUNE_LANG", "zh")
    labels = np.array([0, 0, 1, 1])
    evaluation = evaluation_of((HOSTILE, "b"), np.eye(2)[[0, 1, 1, 0]], labels)
    several = made_up_labels(tmp_path, name=HOSTILE)
    for page in (report_page(evaluation), multilabel_comparison_page(several)):
        assert "<img src=x" not in page
        assert "&lt;/script&gt;&lt;img src=x" in page
        assert 'lang="zh-CN"' in page


def test_a_page_of_several_labels_is_the_same_in_english_whatever_language_was_shown_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = measured(tmp_path, classes=4)
    pages = []
    for language in ("en", "zh", "en"):
        monkeypatch.setenv("CLIPTUNE_LANG", language)
        pages.append(multilabel_page(evaluation, command=""))
    assert pages[0] == pages[2] != pages[1]
    assert not CHINESE.search(pages[0])


def test_a_page_can_be_had_in_another_language_than_the_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLIPTUNE_LANG", "en")
    page = render("serve.html", language="zh", shown="zh", languages="{}")
    assert '<html lang="zh-CN">' in page

"""The documents as a whole: links that lead somewhere, two languages, an index that knows all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean
from urllib.parse import unquote

import pytest

from documents import DOCUMENTS, ROOT, anchors, blocks, code_spans, links, site_module

make_site = site_module("make_site")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_within_the_repository_leads_to_a_file_and_heading(path: Path) -> None:
    faults = []
    for link in links(path):
        place, _, heading = unquote(link).partition("#")
        target = (path.parent / place) if place else path
        if not target.is_file():
            faults.append(f"{link}: no such file")
        elif heading and heading not in anchors(target):
            faults.append(f"{link}: no such heading")
    assert faults == []


def test_every_page_exists_in_english_and_in_chinese() -> None:
    assert set(make_site.pages_of("en")) == set(make_site.pages_of("zh"))
    for page, source in make_site.pages_of("en").items():
        if page.startswith("docs/"):
            other = make_site.pages_of("zh")[page]
            assert source != other
            # That of one language is written in it: Chinese has no text without Chinese characters.
            assert re.search(r"[\u4e00-\u9fff]{2}", other.read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_index_names_every_page_once(language: str) -> None:
    pages = make_site.pages_of(language)
    index = pages["docs/index.md"]
    listed = [
        line
        for block in blocks(index)
        if block.language == "{toctree}"
        for line in block.text.splitlines()
        if line and not line.startswith(":")
    ]
    assert len(listed) == len(set(listed))
    own = {page.removeprefix("docs/").removesuffix(".md") for page in pages if "docs/" in page}
    assert {line for line in listed if not line.startswith("../")} == own - {"index"}


def test_links_of_chinese_pages_are_called_as_on_the_site() -> None:
    for source in make_site.pages_of("zh").values():
        text = make_site.with_site_names(source.read_text(encoding="utf-8"))
        assert ".zh-CN.md)" not in text
        assert "](01-微调" not in text
        assert "](../02-模型" not in text


def test_broken_lines_of_chinese_leave_no_space_and_code_stays_as_it_is() -> None:
    kept = "```text\n甲\n乙，\n丙\n```\n\n| 甲 |\n| 乙 |\n"
    text = "微调\n模型，\n`x` 与\nCLIP。\n\n- 一，\n  二\n- 三：\n\n"
    assert make_site.joined(text + kept) == (
        "微调模型，`x` 与\nCLIP。\n\n- 一，二\n- 三：\n\n" + kept
    )


def test_chinese_page_of_failures_has_every_message_as_printed() -> None:
    english, chinese = (
        code_spans(ROOT / "docs" / f"when-something-fails{ending}")
        for ending in (".md", ".zh-CN.md")
    )
    assert {span for span in english if " " in span} - chinese == set()


@pytest.mark.parametrize("ending", [".md", ".zh-CN.md"])
def test_readme_fits_two_screens(ending: str) -> None:
    assert len((ROOT / f"README{ending}").read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.parametrize("path", ["README.md", "README.zh-CN.md", "docs/how-to/few-photos.md"])
def test_figures_of_few_photos_are_those_in_the_json(path: str) -> None:
    measured = json.loads((ROOT / "benchmarks/results/few-photos.json").read_text("utf-8"))
    by_folder = measured["top1_percent"].values()
    rows = [cells for folder in by_folder for cells in folder.values()]
    cited = ("probe", "textprobe", "wise", "tip_f", "prolip")
    wanted = [
        (
            mean(cells["zero-shot"]),
            mean(cells["probe"]),
            max(mean(cells[recipe]) for recipe in cited),
            mean(cells["cliptune train"]),
        )
        for cells in rows
    ]
    found = []
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
        if line.startswith("|") and line.endswith("** |"):
            numbers = [float(each) for each in re.findall(r"(?<=[| *])\d+\.\d(?=[ *])", line)]
            if len(numbers) >= 4:
                found.append((*numbers[:3], numbers[-1]))
    assert len(found) == len(wanted) == 8
    for row, expected in zip(found, wanted, strict=True):
        assert row == pytest.approx(expected, abs=0.06)

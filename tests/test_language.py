"""Which language is spoken, and how sentences, lines and cells are made in it."""

from __future__ import annotations

import copy
import json
import pickle
import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliptune.language import (
    amount,
    catalogue,
    counting,
    joined,
    language,
    said,
    translated,
)
from cliptune.text import UNBROKEN, columns, left, right, wrap


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

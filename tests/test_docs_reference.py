"""The reference that is made from the program: nothing is missing in it, nothing is made up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import typer
import yaml
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from browser import browser
from cliptune.cli import app
from cliptune.config import Settings
from documents import ROOT, site_module

settings_tables = site_module("settings_tables")
command_tables = site_module("command_tables")
make_site = site_module("make_site")


def keys(values: dict[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and key != "class_weights":
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


# Left out of the settings that are written while it is null.
EVERY = {*keys(Settings().to_dict()), "evaluation.coverage"}


def test_every_setting_has_a_meaning_in_both_languages_and_none_is_of_another() -> None:
    comments = settings_tables.comments(settings_tables.COMMENTED.read_text(encoding="utf-8"))
    assert set(comments) >= EVERY
    assert {each for each in set(comments) - EVERY if "." in each} == set()
    assert set(yaml.safe_load(settings_tables.CHINESE.read_text(encoding="utf-8"))) == EVERY


@pytest.mark.parametrize("language", ["en", "zh"])
def test_table_of_settings_has_every_key_with_a_default_that_is_the_default(language: str) -> None:
    rows = settings_tables.rows(language)
    assert {key for key, *_ in rows} == EVERY
    for key, _, default, meaning in rows:
        value: object = Settings()
        for part in key.split("."):
            value = getattr(value, part)
        read = yaml.safe_load(default)
        assert read == value or str(read) == str(value) or tuple(read) == value
        assert meaning


@pytest.mark.parametrize(
    "page",
    [
        "reference/settings.md",
        "reference/settings.zh-CN.md",
        "tutorial/02-lora-in-practice.md",
        "02-模型微调技术/02-LoRA微调实践.md",
    ],
)
def test_defaults_that_pages_tell_are_the_defaults(page: str) -> None:
    """Those of the program or, for the tutorial, of its settings file."""
    commented = yaml.safe_load(settings_tables.COMMENTED.read_text(encoding="utf-8"))
    compared = 0
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for key, code, number in re.findall(
        r"^\| `([a-z_.]+)` \| (?:`([^|`]+)`|([\d.e-]+)) \|", text, re.MULTILINE
    ):
        if key in EVERY:
            ours: Any = Settings().to_dict()
            tutorial: Any = commented
            for part in key.split("."):
                ours, tutorial = ours[part], tutorial[part]
            told = yaml.safe_load(code or number)
            told = float(told) if re.fullmatch(r"[\d.]+e-?\d+", str(told)) else told
            assert told in (ours, tutorial, *(ours if isinstance(ours, list) else ())), key
            compared += 1
    assert compared >= 15


def test_what_a_table_allows_comes_from_the_type() -> None:
    allowed = {key: kind for key, kind, *_ in settings_tables.rows("en")}
    assert allowed["lora.r"] == "whole number, ≥ 1, ≤ 1024"
    assert allowed["model.head"] == "`text`, `linear`"
    assert allowed["model.image_size"].endswith("or `null`")
    assert allowed["data.augmentation.crop_scale"] == "two numbers"


def test_every_command_and_option_stands_in_the_reference() -> None:
    text = command_tables.as_markdown()
    top = typer.main.get_command(app)
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        part = text.split(f"## `cliptune {name}`")[1].split("\n## ")[0]
        for parameter in command.params:
            if not getattr(parameter, "hidden", False) and parameter.opts[0].startswith("-"):
                assert parameter.opts[0] in part, (name, parameter.opts)
        assert "Example: " in part


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package, reason="pip install 'cliptune[docs]'")
    folder = tmp_path_factory.mktemp("site")
    for language in make_site.LANGUAGES:
        assert make_site.build(language, folder) == 0  # a warning would be an error
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_of_the_site_leads_to_its_twin_and_loads_nothing_from_elsewhere(
    site: Path, language: str
) -> None:
    for page in make_site.pages_of(language):
        assert (site / language / page).with_suffix(".html").is_file()
    for path in (site / language).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|img)[^>]* src=\"(?:https?:)?//", text), path
        assert not re.search(r"<link[^>]*stylesheet[^>]*href=\"(?:https?:)?//", text), path
        if path.relative_to(site / language).parts[0] == "docs":
            other = re.search(r'class="language-switch"[^>]*?href="([^"]+)"', text)
            assert other
            assert (path.parent / other[1]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "asked", "answer"),
    [
        ("en", "temperature calibration", "Foundations of fine-tuning"),
        ("zh", "灾难性遗忘", "微调理论基础"),  # found by pairs of characters, not by a dictionary
        ("zh", "logit_adjustment", "各类照片多少不一"),
    ],
)
def test_search_finds_a_page_without_a_server(
    site: Path, tmp_path: Path, language: str, asked: str, answer: str
) -> None:
    with browser(tmp_path, width=1000, height=800) as page:
        page.get(f"{(site / language / 'search.html').as_uri()}?q={quote(asked)}")
        WebDriverWait(page, 20).until(
            lambda _: answer in page.find_element(By.ID, "search-results").text
        )

"""The reference that is made from the program: nothing is missing in it, nothing is made up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from cliptune.cli import app
from cliptune.config import Settings
from documents import site_module

settings_tables = site_module("settings_tables")
command_tables = site_module("command_tables")


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


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    make_site = site_module("make_site")
    for language in make_site.LANGUAGES:
        assert make_site.build(language, tmp_path) == 0
        pages = {
            path.relative_to(tmp_path / language) for path in (tmp_path / language).rglob("*.html")
        }
        for page in make_site.pages_of(language):
            assert (tmp_path / language / page).with_suffix(".html").is_file()
        for page in pages:
            text = (tmp_path / language / page).read_text(encoding="utf-8")
            assert not re.search(r"<(?:script|img)[^>]* src=\"(?:https?:)?//", text), page
            assert not re.search(
                r"<link[^>]* rel=\"stylesheet\"[^>]*href=\"(?:https?:)?//", text
            ), page
            if page.parts[0] == "docs":
                other = re.search(r'class="language-switch"[^>]*?href="([^"]+)"', text)
                assert other
                assert other[1].endswith(page.as_posix())
    # 置信区间 is found by its pairs of characters, whichever words a dictionary makes of it.
    index = (tmp_path / "zh" / "searchindex.js").read_text(encoding="utf-8")
    assert all(f'"{pair}":' in index for pair in ("置信", "信区", "区间"))

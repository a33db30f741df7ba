"""Which language the server's page speaks: the browser's, and not that of the server's machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from browser import browser
from cliptune.language import LANGUAGES
from cliptune.serving.page import TEXTS, language_for, page, preferred
from servers import Served, error_of


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("ZH-hans", "zh"),
        ("en;q=0.3, zh;q=0.7", "zh"),
        ("de-DE,de;q=0.9", "en"),
        ("de,zh;q=0.1", "zh"),  # what is offered before what is not
        ("zh;q=0", "en"),  # which refuses it
        ("zh;q=much", "en"),
        ("*", "en"),
        (",;=,q", "en"),
    ],
)
def test_the_browsers_first_language_that_there_is_wins(accepted: str, expected: str) -> None:
    assert preferred(accepted) == expected


def test_the_servers_locale_says_nothing_but_cliptune_lang_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CLIPTUNE_LANG", raising=False)
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert language_for("en") == "en"
    assert language_for("") == "en"
    monkeypatch.setenv("CLIPTUNE_LANG", "zh")
    assert language_for("en") == "zh"
    monkeypatch.setenv("CLIPTUNE_LANG", "en")
    assert language_for("zh") == "en"


def test_the_script_of_the_page_asks_for_no_text_that_there_is_not() -> None:
    shown = page("en")
    calls = " ".join(re.findall(r"\btext\(([^){]*)", shown))
    names = set(re.findall(r'data-text="(\w+)"', shown)) | set(re.findall(r'"(\w+)"', calls))
    assert {"title", "sureOfNone", "looking", "done"} <= names
    assert names <= TEXTS.keys()
    unused = {name for name in TEXTS if name.removesuffix("One") not in names}
    assert unused == set()


@pytest.mark.long
def test_a_browser_is_answered_in_its_own_language(server: Served, tmp_path: Path) -> None:
    for tag, title in (("zh-CN,zh;q=0.9", "照片里是什么？"), ("en-GB", "What is on the photo?")):
        answer = server.client.get("/", headers={"Accept-Language": tag})
        assert answer.headers["Vary"] == "Accept-Language"
        assert f'<html lang="{tag[:2].replace("zh", "zh-CN")}">' in answer.text
        with browser(tmp_path / tag[:2]) as chrome:
            chrome.execute_cdp_cmd("Network.enable", {})
            chrome.execute_cdp_cmd(
                "Network.setExtraHTTPHeaders", {"headers": {"Accept-Language": tag}}
            )
            chrome.get(f"{server.address}/")
            assert chrome.find_element("tag name", "h1").text == title
            assert chrome.title == title
            lang = chrome.execute_script("return document.documentElement.lang")
            assert lang == {"z": "zh-CN", "e": "en"}[tag[0]]


def test_errors_and_answers_stay_english_for_a_chinese_browser(server: Served) -> None:
    chinese = {"Accept-Language": "zh-CN"}
    refused = server.client.post("/predict", content=b"no photo", headers=chinese)
    assert error_of(refused) == error_of(server.client.post("/predict", content=b"no photo"))
    assert error_of(refused).isascii()
    assert server.client.get("/about", headers=chinese).json() == server.client.get("/about").json()


def test_there_is_a_page_for_every_language() -> None:
    assert [re.search(r'<html lang="([\w-]+)">', page(each))[1] for each in LANGUAGES] == [  # type: ignore[index]
        "en",
        "zh-CN",
    ]

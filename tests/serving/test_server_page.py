"""The page at `/`, driven in a browser: what people see, do and take with them."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browser import browser, wider_than_window
from cliptune import Predictor
from servers import Served, served

PASTE = """
const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0));
const given = new DataTransfer();
given.items.add(new File([bytes], "from clipboard.png", {type: "image/png"}));
document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: given}));
"""
DROP = PASTE.replace("ClipboardEvent", "DragEvent").replace('"paste"', '"drop"').replace(
    "clipboardData", "dataTransfer"
)  # fmt: skip


def stranger(predictor: Predictor, folder: Path) -> Path:
    """A photo that the classifier says shows none of its classes."""
    rng, path = np.random.default_rng(0), folder / "stranger.png"
    for _ in range(200):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((64, 64), Image.Resampling.NEAREST).save(path)
        if predictor.predict(path).known is False:
            return path
    raise AssertionError("it knows everything")


class Page:
    """The page in a browser, by what is on it."""

    def __init__(self, chrome: Any, *, width: int, height: int = 900, dark: bool = False) -> None:
        self.chrome = chrome
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
        })  # fmt: skip
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        })  # fmt: skip

    def open(self, address: str) -> None:
        self.chrome.get(f"{address}/")
        self.until(lambda: "·" in self.text("#about"), "what the server answers by")

    def until(self, true: Callable[[], bool], what: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.chrome, 60, 0.05).until(lambda _: true(), f"waited for {what}")

    def all(self, selector: str) -> list[Any]:
        from selenium.webdriver.common.by import By

        return list(self.chrome.find_elements(By.CSS_SELECTOR, selector))

    def texts(self, selector: str) -> list[str]:
        """What is read there, of all at one moment: the page puts new elements for old ones."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)"
        return list(self.chrome.execute_script(script, selector))

    def text(self, selector: str) -> str:
        return self.texts(selector)[0]

    def choose(self, *paths: Path) -> None:
        self.all("#files")[0].send_keys("\n".join(map(str, paths)))

    def until_answered(self, count: int) -> None:
        self.until(lambda: f"{count} photo" in self.text("#status") and
                   "answered" in self.text("#status"), f"{count} answers")  # fmt: skip


@pytest.mark.long
def test_people_get_answers_from_the_page(
    server: Served, tiny_run: Path, photos: Path, tmp_path: Path
) -> None:
    predictor = Predictor(tiny_run, device="cpu")
    good = sorted((photos / "test").glob("*/*.png"))[::4]
    odd, broken = stranger(predictor, tmp_path), tmp_path / "=broken<b>.jpg"
    broken.write_bytes(b"\xff\xd8hello")
    with browser(tmp_path / "profile") as chrome:
        page = Page(chrome, width=1200)
        page.open(server.address)
        assert page.text("h1") == "What is on the photo?"
        assert not page.all("#key")[0].is_displayed()
        page.choose(good[0])
        page.until_answered(1)
        assert not page.all("#all")[0].is_displayed()
        answer = predictor.predict(good[0])
        share = f"{100 * answer.probability:.1f} %"
        assert page.text(".photo h3") == f"{answer.name} · {share}"
        assert [bar.split("\n")[0] for bar in page.texts(".bars li")] == [
            score.name for score in answer.scores
        ]
        page.choose(good[1], odd, broken)
        page.until_answered(4)
        rows = page.texts("#all tbody tr")
        assert "Perhaps none of these" in rows[2]
        assert "cannot be read" in rows[3]
        assert "=broken<b>.jpg" in rows[3]
        looks_by_hand(page)
        takes_csv(page, predictor, [good[0], good[1], odd])
        in_chinese(page)
        for script in (PASTE, DROP):
            content = base64.b64encode(good[2].read_bytes()).decode()
            page.chrome.execute_script(script, content)
        page.until(lambda: "6" in page.text("#status") and "已识别" in page.text("#status"), "6")
        assert page.texts(".photo .name")[-1] == "from clipboard.png"
        assert len(set(page.texts(".photo h3")[-2:])) == 1


def looks_by_hand(page: Page) -> None:
    """By the keyboard alone: where it looked, and back."""
    from selenium.webdriver.common.keys import Keys

    before = page.all(".photo img")[0].get_attribute("src")
    page.all(".photo button")[0].send_keys(Keys.ENTER)
    page.until(lambda: page.text(".photo button") == "Show the photo", "the picture")
    picture = page.all(".photo img")[0]
    assert picture.get_attribute("src") != before
    page.until(lambda: picture.get_property("naturalWidth") > 0, "the picture to be shown")
    page.all(".photo button")[0].send_keys(Keys.ENTER)
    page.until(lambda: page.all(".photo img")[0].get_attribute("src") == before, "the photo")


def takes_csv(page: Page, predictor: Predictor, readable: list[Path]) -> None:
    """The file holds what `cliptune predict --output x.csv` would, and no formula."""
    rows = list(csv.DictReader(io.StringIO(page.chrome.execute_script("return csv()"))))
    assert [row["image"] for row in rows] == [p.name for p in readable] + ["'=broken<b>.jpg"]
    for row, path in zip(rows, readable, strict=False):
        expected = predictor.predict(path)
        assert row["label_1"] == expected.label
        assert float(row["probability_1"]) == pytest.approx(expected.probability, abs=2e-6)
        assert row["known"] == str(expected.known).lower()
        assert float(row["known_score"]) == pytest.approx(expected.known_score, abs=2e-6)
    assert "cannot be read" in rows[-1]["error"]
    assert rows[-1]["known"] == ""


def in_chinese(page: Page) -> None:
    """All words but names and the server's own change, and the language is kept."""
    page.all("#language")[0].click()
    assert page.text("h1") == "照片里是什么？"
    assert page.chrome.execute_script("return document.documentElement.lang") == "zh-CN"
    assert "也许都不是" in page.texts("#all tbody tr")[2]
    left = page.chrome.execute_script(
        "return [...document.querySelectorAll('[data-text], #language, .photo button')]"
        ".map(e => e.textContent).filter(t => /^[\\x00-\\x7f]*$/.test(t))"
    )
    assert left == ["English"]


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_any_window(server: Served, photos: Path, tmp_path: Path, width: int) -> None:
    paths = sorted((photos / "test").glob("*/*.png"))[:3]
    with browser(tmp_path / "profile") as chrome:
        page = Page(chrome, width=width, dark=width == 360)
        page.open(server.address)
        assert not wider_than_window(chrome)
        page.choose(*paths)
        page.until_answered(3)
        assert not wider_than_window(chrome)
        small = [
            e for e in page.all("button, .button") if e.is_displayed() and e.size["height"] < 40
        ]
        assert small == []  # for fingers
        background = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(20, 24, 29)" if width == 360 else "rgb(255, 255, 255)")
        page.all("#clear")[0].click()
        assert page.all(".photo") == []
        assert page.text("#status") == ""


@pytest.mark.slow
def test_the_page_takes_a_key_once(tiny_run: Path, photos: Path, tmp_path: Path) -> None:
    key, path = "k" * 32, next((photos / "test").glob("*/*.png"))
    (tmp_path / "keys").write_text(key, encoding="utf-8", newline="\n")
    with (
        served(tiny_run, "--api-key-file", str(tmp_path / "keys")) as guarded,
        browser(tmp_path / "profile") as chrome,
    ):
        page = Page(chrome, width=1200)
        page.open(guarded.address)
        page.all("#secret")[0].send_keys(key + "\n")
        page.choose(path)
        page.until_answered(1)
        assert page.text(".photo h3")
        page.open(guarded.address)  # again, in the same window
        assert not page.all("#key")[0].is_displayed()

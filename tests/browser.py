"""A headless Chromium for tests of pages: Debian's packages chromium and chromium-driver."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def browser(profile: Path, *, width: int = 1200, height: int = 900) -> Iterator[Any]:
    """A selenium driver whose console must stay free of errors; skips where there is no browser."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-quic",
        "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", f"--window-size={width},{height}", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield chrome
        complaints = [entry for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]
        assert complaints == [], complaints
    finally:
        chrome.quit()


def wider_than_window(chrome: Any) -> bool:
    """Whether the page would have to be scrolled sideways."""
    script = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
    return bool(chrome.execute_script(script))

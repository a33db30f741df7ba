"""The page of an evaluation, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from report_size import made_up
from selenium.webdriver.common.action_chains import ActionChains
from test_report import evaluation_of

from browser import browser, wider_than_window
from cliptune.demo.drawings import draw_dataset
from cliptune.evaluation.report_page import MISTAKES, report_page, worst_mistakes
from cliptune.evaluation.writing import write_report


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("page") / "drawings"
    draw_dataset(folder, counts={"test": 2}, progress=False)
    return sorted(folder.rglob("*.png"))


@pytest.mark.parametrize(("photos", "classes"), [(200, 10), (1200, 120)])
def test_the_page_tells_each_cell_and_sorts_and_fits_narrow_and_wide_windows(
    drawings: list[Path], tmp_path: Path, photos: int, classes: int
) -> None:
    evaluation = made_up(drawings, photos=photos, classes=classes)
    write_report(evaluation, tmp_path / "report")
    with browser(tmp_path / "profile", height=1300) as chrome:
        chrome.get((tmp_path / "report" / "report.html").as_uri())
        images = chrome.execute_script(
            "return [...document.images].map(image => image.complete && image.naturalWidth > 0)"
        )
        assert images
        assert all(images)
        cards = chrome.find_elements("css selector", ".card")
        assert len(cards) == len(worst_mistakes(evaluation))

        # The last cell of the diagonal tells its class, its photos and how many are right.
        matrix = chrome.find_element("id", "matrix")
        chrome.execute_script("arguments[0].scrollIntoView(false)", matrix)
        size = matrix.size
        mouse = ActionChains(chrome)
        mouse.move_to_element_with_offset(matrix, size["width"] // 2 - 2, size["height"] // 2 - 2)
        mouse.perform()
        last = evaluation.class_order[-1]
        right, of = evaluation.confusion_CC[last, last], evaluation.confusion_CC[last].sum()
        name = evaluation.display_names[evaluation.class_names[last]]
        assert chrome.find_element("id", "cell").text == f"{name}: {right} of {of} right"

        def column(number: int) -> list[str]:
            rows = "[...document.querySelectorAll('#classes tbody tr')]"
            texts: list[str] = chrome.execute_script(
                f"return {rows}.map(row => row.cells[{number}].textContent)"
            )
            return texts

        recalls = [float(text) for text in column(2)]
        assert recalls == sorted(recalls)
        heads = chrome.find_elements("css selector", "#classes th")
        chrome.execute_script("arguments[0].click()", heads[2])
        assert [float(text) for text in column(2)] == sorted(recalls, reverse=True)
        chrome.execute_script("arguments[0].click()", heads[0])
        assert column(0) == sorted(column(0))

        loaded = chrome.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert all(name.startswith("data:") for name in loaded)
        for width in (1400, 400):
            chrome.set_window_size(width, 900)
            assert not wider_than_window(chrome), width


HOSTILE = "</script><img src=x onerror=alert(1)>"


def test_names_cannot_become_markup_or_script(tmp_path: Path) -> None:
    labels = np.array([0, 0, 1, 1])
    evaluation = evaluation_of((HOSTILE, "b"), np.eye(2)[[0, 1, 1, 0]], labels)
    page = report_page(evaluation)
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    with browser(tmp_path / "profile") as chrome:
        chrome.get((tmp_path / "page.html").as_uri())
        assert HOSTILE in chrome.execute_script("return data.names[0]")


def test_the_worst_mistakes_are_those_whose_truth_is_least_probable(drawings: list[Path]) -> None:
    evaluation = made_up(drawings, photos=300, classes=10)
    photos = evaluation.photos
    truth = photos.probabilities_NC[np.arange(300), photos.labels_N]
    wrong = np.flatnonzero(photos.predicted_N != photos.labels_N)
    expected = sorted(wrong, key=lambda i: truth[i])[:MISTAKES]
    assert worst_mistakes(evaluation) == expected


def test_a_photo_that_is_gone_leaves_the_page_whole(tmp_path: Path) -> None:
    evaluation = made_up([tmp_path / "gone.png"], photos=50, classes=5)
    page = report_page(evaluation)
    assert "gone.png" in page
    assert not re.search(r'<img src=""', page)


def test_figures_on_the_page_are_those_of_the_text(drawings: list[Path]) -> None:
    from cliptune.evaluation.report_text import summary_text

    evaluation = made_up(drawings, photos=200, classes=10)
    page = report_page(evaluation)
    cells = re.findall(r"\d+\.\d+ \(\d+\.\d+–\d+\.\d+\)", summary_text(evaluation))
    assert len(cells) >= 12
    assert all(cell in page for cell in cells)

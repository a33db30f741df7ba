"""How large the report of many photos and classes is, how long it takes, how fast it opens.

    python benchmarks/report_size.py [--photos 10000] [--classes 120]

Drawn photos and random answers, 80 % of them right, mistakes within groups of four classes. Opening
is timed in headless Chromium (Debian's chromium and chromium-driver), from the request to the last
picture and script.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cliptune.data.image_files import find_images
from cliptune.demo.drawings import draw_dataset
from cliptune.evaluation.report import Evaluation, build_evaluation
from cliptune.evaluation.statistics.metrics import similar_order
from cliptune.evaluation.writing import write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def made_up(paths: list[Path], *, photos: int, classes: int) -> Evaluation:
    """An evaluation of `photos` photos, each one of `paths`."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, photos)
    logits = rng.normal(0, 1, (photos, classes))
    logits[np.arange(photos), labels] += 4
    wrong = rng.random(photos) < 0.15
    neighbours = labels // 4 * 4 + (labels + rng.integers(1, 4, photos)) % 4
    logits[wrong, neighbours[wrong] % classes] += 5
    baseline = 0.5 * logits + rng.normal(0, 1.5, logits.shape)
    centres = np.repeat(rng.normal(size=(-(-classes // 4), 32)), 4, axis=0)[:classes]
    return build_evaluation(
        logits_NC=logits.astype(np.float32),
        labels_N=labels,
        baseline_logits_NC=baseline.astype(np.float32),
        class_names=[f"breed_number_{i:03}" for i in range(classes)],
        class_order=similar_order(centres + 0.5 * rng.normal(size=centres.shape)),
        paths=[paths[i % len(paths)] for i in range(photos)],
        checkpoint="outputs/run/checkpoint-epoch-10",
        data_dir="data/dogs",
        split="test",
        base_model="openai/clip-vit-base-patch32",
        missing_classes=(),
        ignored_classes=(),
        skipped_images=(),
        seconds=60.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=120)
    parser.add_argument("--keep", type=Path, help="keep the report in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_dataset(folder / "drawings", counts={"test": 20}, size=224, progress=False)
        paths = find_images(folder / "drawings")
        started = time.perf_counter()
        evaluation = made_up(paths, photos=options.photos, classes=options.classes)
        figures = time.perf_counter() - started
        output = options.keep or folder / "report"
        write_report(evaluation, output)
        whole = time.perf_counter() - started
        page = output / "report.html"
        print(f"{options.photos:,} photos, {options.classes} classes")
        print(f"figures and intervals: {figures:.1f} s; all files: {whole:.1f} s")
        print(f"report.html: {page.stat().st_size / 1e6:.1f} MB")
        from browser import browser

        opened = []
        for number in range(5):
            with browser(folder / f"profile-{number}") as chrome:
                chrome.get(page.as_uri())
                entry = "performance.getEntriesByType('navigation')[0]"
                opened.append(chrome.execute_script(f"return {entry}.loadEventEnd") / 1000)
        print("opens in " + ", ".join(f"{seconds:.2f}" for seconds in sorted(opened)) + " s")


if __name__ == "__main__":
    main()

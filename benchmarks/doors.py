"""The same photos through every door, Python, command line, ONNX, HTTP: how far answers differ.

    make doors                                             on drawings, by a run of a minute
    python benchmarks/doors.py RUN --photos FOLDER [FOLDER ...]

Each photo is taken in one form of nine, in turns: as it is, turned by EXIF, as CMYK, palette, grey,
with transparency, as PNG of 16 bits, tall, tiny. Reference is `Predictor` in float32 on paths; of
every other door: how many labels and how many "known" differ, the largest difference of a
probability, and photos that the door refuses though the reference reads them.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from serving.drawn import drawn
from serving.load import serving

from cliptune import Prediction, Predictor
from cliptune.data.image_files import find_images
from cliptune.data.reading import read_image

Answers = dict[str, dict[str, Any]]  # path -> the dictionary of a Prediction


def _turned(image: Image.Image) -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = 8
    return {"exif": exif}


def _clear(image: Image.Image) -> Image.Image:
    clear = image.convert("RGBA")
    clear.putalpha(image.convert("L"))
    return clear


def _deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)


# Name, ending, what becomes of the RGB photo, and how it is saved.
FORMS: list[
    tuple[str, str, Callable[[Image.Image], Image.Image], Callable[[Image.Image], dict[str, Any]]]
] = [
    ("as it is", "jpg", lambda x: x, lambda x: {"quality": 92}),
    ("turned", "jpg", lambda x: x, _turned),
    ("CMYK", "jpg", lambda x: x.convert("CMYK"), lambda x: {}),
    ("palette", "gif", lambda x: x.convert("P"), lambda x: {}),
    ("grey", "png", lambda x: x.convert("L"), lambda x: {}),
    ("clear", "webp", _clear, lambda x: {}),
    ("16 bits", "png", _deep, lambda x: {}),
    ("tall", "png", lambda x: x.resize((60, 480)), lambda x: {}),
    ("tiny", "png", lambda x: x.resize((9, 7)), lambda x: {}),
]


def made(folders: Sequence[Path], target: Path, *, most: int) -> list[Path]:
    """Photos of all forms, in turns."""
    photos = [path for folder in folders for path in find_images(folder)]
    places = np.linspace(0, len(photos) - 1, min(most, len(photos)), dtype=int)
    paths = []
    for i, place in enumerate(places):
        name, ending, change, options = FORMS[i % len(FORMS)]
        image = read_image(photos[place])
        paths.append(target / f"{i:04d} {name}.{ending}")
        change(image).save(paths[-1], **options(image))
    return paths


def by_predictor(predictor: Predictor, images: Sequence[Any], paths: Sequence[Path]) -> Answers:
    """Those that can be read."""
    found = predictor.stream(images, top_k=len(predictor.class_names))
    return {
        str(path): each.to_dict()
        for path, each in zip(paths, found, strict=True)
        if isinstance(each, Prediction)
    }


def by_command(checkpoint: Path, folder: Path, classes: int, *options: str) -> Answers:
    """`cliptune predict --image-dir` into .jsonl."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "found.jsonl"
        subprocess.run(
            [sys.executable, "-m", "cliptune", "predict", "--checkpoint", checkpoint,
             "--image-dir", folder, "--output", output, "--top-k", str(classes), *options],
            check=False, capture_output=True,
        )  # fmt: skip
        lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    return {line["image"]: line for line in lines if line.get("label")}


def by_runner(exported: Path, paths: Sequence[Path]) -> Answers:
    """`run.py` of the exported folder, in a process that has no torch."""
    blocked = "import sys, runpy; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
    ran = subprocess.run(
        [sys.executable, "-c", blocked + "runpy.run_path(sys.argv[0], run_name='__main__')",
         exported / "run.py", *paths],
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    return {line["image"]: line for line in map(json.loads, ran.stdout.splitlines())}


def by_http(address: str, way: str, paths: Sequence[Path], classes: int) -> Answers:
    """Sent to `cliptune serve` by eight clients at a time, so that batches are of all sizes."""
    found: Answers = {}
    with httpx.Client(base_url=address, timeout=60) as client, ThreadPoolExecutor(8) as pool:

        def ask(path: Path) -> None:
            content = path.read_bytes()
            body: dict[str, Any] = {
                "a form": {"files": {"image": (path.name, content)}},
                "raw": {"content": content},
                "base64": {"json": {"image": base64.b64encode(content).decode()}},
            }[way]
            answer = client.post("/predict", params={"top_k": classes}, **body)
            if answer.status_code == 200:
                found[str(path)] = answer.json()

        list(pool.map(ask, paths))
    return found


def doors(checkpoint: Path, exported: Path, paths: Sequence[Path]) -> Iterator[tuple[str, Answers]]:
    """Door and its answers, the reference first."""
    predictor = Predictor(checkpoint, precision="float32", device="cpu")
    classes = len(predictor.class_names)
    yield "Predictor, paths", by_predictor(predictor, paths, paths)
    yield "Predictor, bytes", by_predictor(predictor, [p.read_bytes() for p in paths], paths)
    opened = [io.BytesIO(p.read_bytes()) for p in paths]
    yield "Predictor, open files", by_predictor(predictor, opened, paths)
    folder = paths[0].parent
    asked = ("--precision", "float32", "--device", "cpu")
    yield "cliptune predict", by_command(checkpoint, folder, classes, *asked)
    yield "Predictor, exported folder", by_predictor(Predictor(exported), paths, paths)
    yield "cliptune predict, exported folder", by_command(exported, folder, classes)
    yield "run.py, without torch", by_runner(exported, paths)
    for served, options in ((checkpoint, asked), (exported, ())):
        with serving(served, *options) as server:
            for way in ("a form", "raw", "base64"):
                what = f"HTTP, {way}{'' if served == checkpoint else ', exported folder'}"
                yield what, by_http(server.address, way, paths, classes)
    in_bf16 = Predictor(checkpoint, precision="bf16", device="cpu")
    yield "Predictor in bf16", by_predictor(in_bf16, paths, paths)
    with serving(checkpoint, "--precision", "bf16", "--device", "cpu") as server:
        yield "HTTP in bf16, raw", by_http(server.address, "raw", paths, classes)


def row(door: str, found: Answers, expected: Answers, seconds: float) -> str:
    both = [(found[path], expected[path]) for path in expected if path in found]
    gaps = []
    for ours, theirs in both:
        chances = {score["label"]: score["probability"] for score in theirs["scores"]}
        gaps += [abs(s["probability"] - chances[s["label"]]) for s in ours["scores"]]
    labels, known = (
        sum(ours[key] != theirs[key] for ours, theirs in both) for key in ("label", "known")
    )
    refused = len(expected) - len(both)
    return (
        f"| {door} | {len(both)} | {labels} | {known} | {max(gaps):.1e} | {refused} "
        f"| {seconds:.1f} |"
    )


def measure(checkpoint: Path, folders: Sequence[Path], *, most: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        photos, exported = Path(scratch) / "photos", Path(scratch) / "exported"
        photos.mkdir()
        paths = made(folders, photos, most=most)
        subprocess.run(
            [sys.executable, "-m", "cliptune", "export", checkpoint, "--output", exported,
             "--data", photos], check=True,
        )  # fmt: skip
        print("| door | photos | other labels | other known | probability, largest difference "
              "| refused | seconds |\n|---|---|---|---|---|---|---|")  # fmt: skip
        expected: Answers | None = None
        started = time.perf_counter()
        for door, found in doors(checkpoint, exported, paths):
            expected = found if expected is None else expected
            print(row(door, found, expected, time.perf_counter() - started), flush=True)
            started = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--photos", nargs="+", type=Path, default=[])
    parser.add_argument("--most", type=int, default=400)
    given = parser.parse_args()
    if given.checkpoint is not None:
        measure(given.checkpoint, given.photos, most=given.most)
        return
    with tempfile.TemporaryDirectory() as scratch:
        run, photos = drawn(Path(scratch))
        measure(run, [photos], most=given.most)


if __name__ == "__main__":
    main()

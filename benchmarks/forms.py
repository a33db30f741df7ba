"""One photo in many forms: does a model answer the same, whatever file the photo comes in?

    python benchmarks/forms.py --output benchmarks/results/forms.md
    python benchmarks/forms.py --photo dog.jpg --model MODEL --classes collie,pug,beagle

The forms vary mode, depth, container, orientation and colour profile. Without `--photo` a dog is
drawn. `--model` is a base model, which answers zero-shot (default: that of `cliptune demo`);
`--checkpoint` one of ours instead. Each form is read as `predict --image` reads it, and measured
against the plain PNG: forms without colour against the plain grey one. Exit code 1 where a form
is further from it than its kind allows: a photo between two classes may flip without that.

Shape suffixes: H height, W width, C classes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from coverage import machine, table
from forms_files import FORMS, Form
from PIL import Image

from cliptune.data.images import Preprocess
from cliptune.data.reading import read_image
from cliptune.demo.drawings import DEMO_BREEDS, draw_dog
from cliptune.demo.run import HOME
from cliptune.errors import ImageError
from cliptune.inference.predictor import Predictor

PROMPT = "a photo of a {}, a type of dog."
# Mean change of a pixel at the model's size, in levels of 255, that a form may bring.
ALLOWED = {"exact": 0.0, "rounded": 1.0, "lossy": 8.0, "profile": 8.0}
FATES = {
    "same": "Read, with the same answer",
    "refused": "Refused by name, as it should be",
    "other": "Read as closely as its kind allows, yet another answer",
    "far": "Further from the plain photo than its kind allows, or refused without reason",
}


@dataclass(frozen=True)
class Seen:
    """What a model says of a file: class names, their probabilities (C,), and the pixels it got."""

    names: tuple[str, ...]
    shares_C: np.ndarray
    pixels: np.ndarray

    @property
    def label(self) -> str:
        return self.names[int(self.shares_C.argmax())]


Answer = Callable[[Path], Seen]


def of_checkpoint(checkpoint: Path) -> Answer:
    """Answers of one of our checkpoints, through the predictor."""
    predictor = Predictor(checkpoint)
    names, preprocess = predictor.class_names, predictor.engine.preprocess

    def answer(path: Path) -> Seen:
        scores = {s.label: s.probability for s in predictor.predict(path, top_k=len(names)).scores}
        return Seen(names, np.array([scores[n] for n in names]), seen(path, preprocess))

    return answer


def of_model(model: Path, names: tuple[str, ...]) -> Answer:
    """Zero-shot answers of a base model."""
    import torch

    from cliptune.model.backbone import load_backbone
    from cliptune.model.classifier import Classifier, TextHead
    from cliptune.model.prompts import zero_shot_weights

    backbone = load_backbone(str(model))
    head = TextHead(zero_shot_weights(backbone, names, [PROMPT]), backbone.model.logit_scale)
    classifier = Classifier(backbone.model, head, backbone.preprocess).eval().requires_grad_(False)
    weights = classifier.class_weights()

    def answer(path: Path) -> Seen:
        pixels = seen(path, backbone.preprocess)
        logits, _ = classifier.answer(torch.from_numpy(pixels[None]), weights)
        return Seen(names, logits.softmax(dim=-1)[0].numpy(), pixels)

    return answer


def seen(path: Path, preprocess: Preprocess) -> np.ndarray:
    """(3, H, W) uint8: what the model gets of the file."""
    return preprocess.pixels(read_image(path))


def row(form: Form, path: Path, answer: Answer, plain: Seen) -> tuple[list[str], str]:
    """(cells of the table, what became of the form, as `FATES` tells)."""
    head = [form.name, f"`{path.suffix}`"]
    try:
        found = answer(path)
    except ImageError as error:
        words = str(error).removeprefix(f"{path}: ")
        fate = "refused" if form.expected == "refused" else "far"
        return [*head, f"refused: {words}", "", "", ""], fate
    change = 100 * np.abs(found.shares_C - plain.shares_C).max()
    levels = np.abs(found.pixels.astype(float) - plain.pixels).mean()
    same = found.label == plain.label
    fate = "same" if same else "other"
    if levels > ALLOWED.get(form.expected, -1.0) + 1e-9:
        fate = "far"
    cells = [form.expected, f"{levels:.2f}", f"{change:.2f}", "yes" if same else found.label]
    return [*head, *cells], fate


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, help="[default: a drawn dog]")
    parser.add_argument("--model", type=Path, default=HOME / "model", help="a base model's folder")
    parser.add_argument("--checkpoint", type=Path, help="one of ours, instead of --model")
    parser.add_argument("--classes", default=",".join(DEMO_BREEDS))
    parser.add_argument("--keep", type=Path, help="a folder to leave the files in")
    parser.add_argument("--output", type=Path, help="a file for the table [default: the screen]")
    args = parser.parse_args()
    if args.photo:
        photo = read_image(args.photo)
    else:
        photo = draw_dog(DEMO_BREEDS[0], rng=np.random.default_rng(5), size=192)
        photo = photo.crop((0, 16, 192, 176))  # wider than high: a wrong turn is seen
    names = tuple(name.replace("_", " ") for name in args.classes.split(","))
    answer = of_checkpoint(args.checkpoint) if args.checkpoint else of_model(args.model, names)
    with tempfile.TemporaryDirectory() as folder:
        text, fates = measure(photo, answer, args.keep or Path(folder))
    what = args.photo.name if args.photo else "a drawn dog"
    model = args.checkpoint or ("the demo's" if args.model == HOME / "model" else args.model.name)
    head = (
        f"# One photo in {len(fates)} forms\n\n"
        f"`{' '.join(['python benchmarks/forms.py', *sys.argv[1:]])}`, commit {commit()}, "
        f"{machine()}, Pillow {PIL.__version__}. Photo: {what}, {photo.width} × {photo.height}. "
        f"Model: {model}.\n\n"
    )
    if args.output:
        args.output.write_text(head + text, encoding="utf-8")
    else:
        print(head + text)
    raise SystemExit(1 if "far" in fates else 0)


def measure(photo: Image.Image, answer: Answer, folder: Path) -> tuple[str, list[str]]:
    """(the table and what it says, what became of each form)."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {}
    for mode in ("RGB", "L"):
        photo.convert(mode).save(folder / f"plain-{mode}.png")
        plain[mode] = answer(folder / f"plain-{mode}.png")
    rows, fates = [], []
    for number, form in enumerate(FORMS):
        path = folder / f"{number:02}{form.ending}"
        path.write_bytes(form.make(photo))
        cells, fate = row(form, path, answer, plain["L" if form.grey else "RGB"])
        rows.append(cells)
        fates.append(fate)
    text = (
        "\n".join(f"- {words}: {fates.count(fate)}" for fate, words in FATES.items())
        + "\n\nPlain answers: "
        + "; ".join(
            f"{kind} {seen.label} ({100 * seen.shares_C.max():.1f} %)"
            for kind, seen in zip(("colour", "grey"), plain.values(), strict=True)
        )
        + ".\n\n*exact*: the same pixels; *rounded*: at most one level of 255 off on average; "
        "*lossy*: compressed, or converted between colour spaces; *profile*: colours of another "
        "space, which are taken as they are stored. Levels: mean change of a pixel at the model's "
        "size. Points: largest change of a probability.\n\n"
    )
    heads = ["form", "file", "kind", "levels", "points", "same answer"]
    return text + table(heads, rows), fates


if __name__ == "__main__":
    main()

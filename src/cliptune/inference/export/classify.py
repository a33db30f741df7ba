"""The answers of an exported classifier, with transformers, torch, safetensors and Pillow alone.

    python classify.py dog.jpg cat.jpg          a line of JSON for each photo

From Python: `Exported(folder).predict("dog.jpg")`. This file belongs to the folder it lies in.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel

# Pixels of more than 8 bits have no range of their own that could be guessed here.
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


class Exported:
    """The classifier in `folder`."""

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        self.about: dict[str, Any] = json.loads(
            (folder / "classifier.json").read_text(encoding="utf-8")
        )
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        # That of torchvision resizes otherwise than Pillow, by which photos were trained on.
        self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.head = load_file(folder / "head.safetensors")

    @torch.inference_mode()
    def answer(self, image: Image.Image) -> dict[str, torch.Tensor]:
        """Of an RGB image: probabilities (C,); and known_score (), where it is told."""
        head, pixels = self.head, self.processor(image, return_tensors="pt")["pixel_values"]
        features = self.model.get_image_features(pixel_values=pixels)
        features = getattr(features, "pooler_output", features)[0]  # (D,)
        unit = normalize(features, dim=-1)
        given = unit if self.about["cosine"] else features
        logits = head["logit_scale"].exp() * (head["class_weights"] @ given) + head["bias"]
        scaled = logits * head["factors"]
        found = {"probabilities": scaled.softmax(dim=-1)}
        if (score := self.about["score"]) == "probability":
            found["known_score"] = found["probabilities"].max()
        elif score == "energy":
            found["known_score"] = scaled.logsumexp(dim=-1)
        elif score is not None:  # cosine to the nearest of the directions
            found["known_score"] = (head["directions"] @ unit).max()
        return found

    def predict(self, path: Path | str, *, top_k: int = 5) -> dict[str, Any]:
        """What is on one photo, under the keys of cliptune's `Prediction.to_dict()`."""
        found = self.answer(read_rgb(path))
        chances = found["probabilities"]
        scores = [
            {"label": each["label"], "probability": chances[place].item(), "name": each["name"]}
            for place in chances.argsort(descending=True, stable=True)[:top_k].tolist()
            for each in [self.about["classes"][place]]
        ]
        known_score = found["known_score"].item() if "known_score" in found else None
        values = {
            "image": str(path),
            "label": scores[0]["label"],
            "name": scores[0]["name"],
            "probability": scores[0]["probability"],
            "known": None if known_score is None else known_score >= self.about["threshold"],
            "known_score": known_score,
            "scores": scores,
        }
        promised = self.about.get("answers") or {}
        if sets := promised.get("sets"):
            values |= self._set_of(chances, sets)
        if sure := promised.get("sure"):
            values |= self._sure_of(chances, sure)
        return values

    def _set_of(self, chances: torch.Tensor, sets: dict[str, Any]) -> dict[str, Any]:
        """The most probable classes, while those before have no more than the limit together."""
        order = chances.argsort(descending=True, stable=True)
        before = chances[order].double().cumsum(0).roll(1)
        before[0] = 0
        in_set = [
            {"label": each["label"], "probability": chances[place].item(), "name": each["name"]}
            for place in order[before <= sets["limit"]].tolist()
            for each in [self.about["classes"][place]]
        ]
        return {"prediction_set": in_set, "coverage": sets["coverage"]}

    def _sure_of(self, chances: torch.Tensor, sure: dict[str, Any]) -> dict[str, Any]:
        """From the best class up, the first whose classes have more than the limit together."""
        classes = self.about["classes"]
        best = classes[int(chances.argsort(descending=True, stable=True)[0])]
        names = {each["label"]: each["name"] for each in [*classes, *self.about["parents"]]}
        for label in [best["label"], *best["parents"]]:
            below = [label in (each["label"], *each["parents"]) for each in classes]
            if (share := chances[torch.tensor(below)].double().sum().item()) > sure["limit"]:
                found = {"label": label, "probability": share, "name": names[label]}
                return {"sure_of": found, "sure_share": sure["share"]}
        return {"sure_of": None, "sure_share": sure["share"]}


def read_rgb(path: Path | str) -> Image.Image:
    """The photo in `path`, upright, in RGB, transparency on white.

    Raises `ValueError` for pixels of more than 8 bits, `OSError` for what cannot be read.
    """
    with Image.open(path) as image:
        if image.mode in DEEP:
            raise ValueError(f"{path}: pixels of mode {image.mode}; save it with 8 bits first")
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in upright.info:
        upright = upright.convert("LA") if upright.mode == "La" else upright
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return upright.convert("RGB")


def main() -> None:
    """Answer for the photos named on the command line; 1 if one could not be read."""
    if len(sys.argv) < 2:
        raise SystemExit((__doc__ or "").strip())
    classifier, failed = Exported(Path(__file__).parent), False
    for path in sys.argv[1:]:
        try:
            print(json.dumps(classifier.predict(path), ensure_ascii=False))
        except (OSError, ValueError) as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()

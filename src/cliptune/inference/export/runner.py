"""The answers of an exported classifier, with numpy, Pillow and onnxruntime alone.

    python run.py dog.jpg cat.jpg          a line of JSON for each photo

From Python: `Exported(folder).predict("dog.jpg")`. This file belongs to the folder it lies in:
export.json says how a photo is brought to size, model.onnx what is answered.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime reports to its maker
import onnxruntime

# Pixels of more than 8 bits have no range of their own that could be guessed here.
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


class Exported:
    """The classifier in `folder`; `threads` 0 leaves their number to onnxruntime."""

    def __init__(self, folder: Path | str, *, threads: int = 0) -> None:
        folder = Path(folder)
        self.about: dict[str, Any] = json.loads(
            (folder / "export.json").read_text(encoding="utf-8")
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def answer(self, crops: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Of uint8 crops (3, H, W): logits and probabilities (B, C), features (B, D); and, where
        the classifier knows what it does not know, known_score and known (B,)."""
        names = [output.name for output in self.session.get_outputs()]
        found = self.session.run(names, {"pixels": np.stack(crops)})
        return dict(zip(names, found, strict=True))

    def predict(self, path: Path | str, *, top_k: int = 5) -> dict[str, Any]:
        """What is on one photo, under the keys of cliptune's `Prediction.to_dict()`."""
        found = self.answer([self.crop(read_rgb(path))])
        chances = found["probabilities"][0].astype(float)
        scores = []
        for place in np.argsort(-chances, kind="stable")[:top_k]:
            each = self.about["classes"][int(place)]
            scores.append({"label": each["label"], "probability": chances[place].item(),
                           "name": each["name"]})  # fmt: skip
        rejects = "known" in found
        values = {
            "image": str(path),
            "label": scores[0]["label"],
            "name": scores[0]["name"],
            "probability": scores[0]["probability"],
            "known": bool(found["known"][0]) if rejects else None,
            "known_score": float(found["known_score"][0]) if rejects else None,
            "scores": scores,
        }
        promised = self.about.get("answers") or {}
        if sets := promised.get("sets"):
            values |= self._set_of(chances, sets)
        if sure := promised.get("sure"):
            values |= self._sure_of(chances, sure)
        return values

    def _set_of(self, chances: np.ndarray, sets: dict[str, Any]) -> dict[str, Any]:
        """The most probable classes, while those before have no more than the limit together."""
        order = np.argsort(-chances, kind="stable")
        before = np.concatenate([[0.0], np.cumsum(chances[order])[:-1]])
        in_set = [
            {"label": each["label"], "probability": chances[place].item(), "name": each["name"]}
            for place in order[before <= sets["limit"]]
            for each in [self.about["classes"][int(place)]]
        ]
        return {"prediction_set": in_set, "coverage": sets["coverage"]}

    def _sure_of(self, chances: np.ndarray, sure: dict[str, Any]) -> dict[str, Any]:
        """From the best class up, the first whose classes have more than the limit together."""
        classes = self.about["classes"]
        best = classes[int(np.argsort(-chances, kind="stable")[0])]
        names = {each["label"]: each["name"] for each in [*classes, *self.about["parents"]]}
        for label in [best["label"], *best["parents"]]:
            below = [label in (each["label"], *each["parents"]) for each in classes]
            if (share := chances[below].sum().item()) > sure["limit"]:
                found = {"label": label, "probability": share, "name": names[label]}
                return {"sure_of": found, "sure_share": sure["share"]}
        return {"sure_of": None, "sure_share": sure["share"]}

    def crop(self, image: Image.Image) -> np.ndarray:
        """(3, H, W) uint8: the RGB `image` resized by its rule, and the middle cut out."""
        rule = self.about["preprocess"]
        if isinstance(rule["resize"], int):
            edge, (width, height) = rule["resize"], image.size
            long = int(edge * max(width, height) / min(width, height))
            size = (edge, long) if width <= height else (long, edge)
            image = image.resize(size, resample=rule["resample"])
        elif rule["resize"]:
            image = image.resize(tuple(reversed(rule["resize"])), resample=rule["resample"])
        if rule["crop"]:
            height, width = rule["crop"]
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


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

"""What `classify.py` has besides where a photo may show any of the classes: see `programs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import normalize

from cliptune.inference.export.classify import Exported as OneLabel


class Exported(OneLabel):
    """The same where a photo may show any of the classes, each from its own threshold on."""

    @torch.inference_mode()
    def answer(self, image: Image.Image) -> dict[str, torch.Tensor]:
        """Of an RGB image: probabilities (C,), each of a yes or no of its own; and known_score (),
        how far the surest is above its threshold."""
        head, pixels = self.head, self.processor(image, return_tensors="pt")["pixel_values"]
        features = self.model.get_image_features(pixel_values=pixels)
        features = getattr(features, "pooler_output", features)[0]  # (D,)
        given = normalize(features, dim=-1) if self.about["cosine"] else features
        logits = head["logit_scale"].exp() * (head["class_weights"] @ given) + head["bias"]
        chances = (logits * head["factors"]).sigmoid()
        return {"probabilities": chances, "known_score": (chances - head["thresholds"]).max()}

    def predict(self, path: Path | str, *, top_k: int = 5) -> dict[str, Any]:
        """What is on one photo, under the keys of cliptune's `Prediction.to_dict()`."""
        classes = self.about["classes"]
        values = super().predict(path, top_k=len(classes))
        least = {
            each["label"]: threshold.item()
            for each, threshold in zip(classes, self.head["thresholds"], strict=True)
        }
        scores = values["scores"]
        shown = [score for score in scores if score["probability"] >= least[score["label"]]]
        return values | {"scores": scores[:top_k], "shown": shown}

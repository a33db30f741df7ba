"""What `run.py` has besides where a photo may show any of the classes: see `programs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cliptune.inference.export.runner import Exported as OneLabel


class Exported(OneLabel):
    """The same where a photo may show any of the classes, each from its own threshold on."""

    def predict(self, path: Path | str, *, top_k: int = 5) -> dict[str, Any]:
        """What is on one photo, under the keys of cliptune's `Prediction.to_dict()`."""
        classes = self.about["classes"]
        values = super().predict(path, top_k=len(classes))
        least = {
            each["label"]: threshold["value"]
            for each, threshold in zip(classes, self.about["answers"]["thresholds"], strict=True)
        }
        scores = values["scores"]
        shown = [score for score in scores if score["probability"] >= least[score["label"]]]
        return values | {"scores": scores[:top_k], "shown": shown}

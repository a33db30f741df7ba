"""`cliptune export --format transformers`: merged weights that plain `transformers` loads, and a
head beside them.

Shape suffixes: C classes, D feature, K directions.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.files import SUMS
from cliptune.inference.export.programs import program
from cliptune.model.checkpoint import ADAPTER, HEAD, MEANS, PHOTOS, RECORD, write_tensors
from cliptune.model.classifier import Classifier, FittedHead, Head, LinearHead
from cliptune.model.exported.graph import answer_head
from cliptune.model.label_answers import AnyAnswers, LabelAnswers

CLASSIFIER = "classifier.json"
RUNNER = "classify.py"
# Of a checkpoint all but these are files of its tokenizer and image processor.
_OURS = {RECORD, HEAD, MEANS, PHOTOS, ADAPTER, SUMS, "adapter_config.json", "config.yaml"}
_OURS |= {"README.md"}


def write_for_transformers(
    folder: Path,
    checkpoint: Path,
    classifier: Classifier,
    answers: AnyAnswers | None,
    means_CD: NDArray[np.floating[Any]] | None,
    about: dict[str, Any],
) -> None:
    """Write `classifier`, merged and unfused, into `folder`, and what `answers` makes of it.

    model.safetensors and config.json are the dual encoder's, with the adapters in its weights; the
    files of its tokenizer and image processor come from the folder `checkpoint`.
    """
    for path in checkpoint.iterdir():
        if path.is_file() and path.name not in _OURS:
            shutil.copyfile(path, folder / path.name)
    classifier.model.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):  # transformers keeps them from other users
        path.chmod((folder / "config.json").stat().st_mode)
    write_tensors(folder / HEAD, head_tensors(classifier.head, answers, means_CD))
    score, threshold = (None, None) if answers is None else ("margin", 0.0)
    if answers is not None and not isinstance(answers, LabelAnswers):
        score, threshold = answers.score, answers.threshold
    told = about | {
        "cosine": not isinstance(classifier.head, LinearHead),
        "score": score,
        "threshold": threshold,
    }
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    (folder / CLASSIFIER).write_text(text, encoding="utf-8", newline="\n")
    runner = program(RUNNER, several=isinstance(answers, LabelAnswers))
    (folder / RUNNER).write_text(runner, encoding="utf-8", newline="\n")


def head_tensors(
    head: Head, answers: AnyAnswers | None, means_CD: NDArray[np.floating[Any]] | None
) -> dict[str, torch.Tensor]:
    """float32 `class_weights` (C, D), `logit_scale` (), `bias` (C,), `factors` (C,) and
    `directions` (K, D), by which a feature f becomes

    exp(logit_scale) · class_weights · f/|f| + bias (a linear head takes f itself), times factors;
    the known-score of the cosine kinds is the largest of directions · f/|f|. Of several labels,
    `thresholds` (C,) are in the place of directions.
    """
    whole = answer_head(head, answers, means_CD)
    last = "thresholds" if isinstance(answers, LabelAnswers) else "directions"
    weights_CD = whole.get_buffer("weights_CD")
    scale, bias = torch.zeros(()), torch.zeros(len(weights_CD))
    if isinstance(head, LinearHead):
        bias = head.linear.bias
    else:
        scale = head.logit_scale
        bias = head.bias if isinstance(head, FittedHead) else bias
    return {
        "class_weights": weights_CD,
        "logit_scale": scale,
        "bias": bias,
        "factors": whole.get_buffer("factors_C"),
        last: whole.get_buffer("thresholds_C" if last == "thresholds" else "directions_KD"),
    }


_BEST_OF_ONE = """chances = (logits * head["factors"]).softmax(dim=-1)
    print(about["classes"][int(chances.argmax())]["label"], float(chances.max()))"""
_ALL_SHOWN = """chances = (logits * head["factors"]).sigmoid()
    for place in (chances >= head["thresholds"]).nonzero().flatten().tolist():
        print(about["classes"][place]["label"], float(chances[place]))"""


def for_transformers_readme(classes: str, made: str, *, several: bool) -> str:
    """The first part of its README; `made` says of what and by whom, `classes` how many."""
    tensors = "thresholds of\n  the classes" if several else "directions of the\n  known-score"
    best, tells = (_ALL_SHOWN, "photos of none") if several else (_BEST_OF_ONE, "strangers")
    thresholds = "thresholds" if several else "threshold"
    return f"""# {classes}, for transformers

{made}

    pip install torch transformers safetensors Pillow
    python classify.py photo.jpg

Or by hand:

    import json, torch
    from PIL import Image
    from safetensors.torch import load_file
    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(".")
    processor = AutoImageProcessor.from_pretrained(".", backend="pil")
    head = load_file("head.safetensors")
    about = json.load(open("classifier.json", encoding="utf-8"))
    pixels = processor(Image.open("photo.jpg").convert("RGB"), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        feature = model.get_image_features(pixel_values=pixels).pooler_output[0]
    if about["cosine"]:
        feature = feature / feature.norm()
    logits = head["logit_scale"].exp() * (head["class_weights"] @ feature) + head["bias"]
    {best}

- `model.safetensors`, `config.json`: the dual encoder, with what was learned in its weights.
- `head.safetensors`: class weights, scale and bias, factors of the calibration, {tensors}\
; `classifier.json`: the classes in their order, {thresholds}, sums and versions.
- `classify.py` also turns photos upright, puts transparency on white and tells {tells}. Resizing
  is Pillow's: another library's gives other pixels, and other answers.
"""

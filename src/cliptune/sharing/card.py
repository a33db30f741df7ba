"""The model card of a pushed checkpoint: the one in its folder, and what the hub's readers need.

Whoever wrote README.md of the checkpoint, its text stays; keys of its front matter stay, too. A
section is added where there is none of its title yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from cliptune.evaluation.statistics.intervals import wilson_interval
from cliptune.model.checkpoint import Record
from cliptune.sharing.public import PublicBase
from cliptune.storage import HubPlace
from cliptune.text import counted

FRONT = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
FIGURES = {
    "accuracy": ("val_accuracy", "top-1"),
    "top_5_accuracy": ("val_top5_accuracy", "top-5"),
    "mean_average_precision": ("val_mean_ap", "mAP"),
}


@dataclass(frozen=True)
class Told:
    """What a card says besides the record of its checkpoint."""

    place: HubPlace
    base: PublicBase
    licence: str | None  # the owner's for this checkpoint
    base_licence: str | None
    exported: bool
    files: tuple[str, ...]


def public_card(text: str, record: Record, told: Told) -> str:
    """README.md for the hub, from `text`, that of the checkpoint."""
    found = FRONT.match(text)
    front = _front_matter(found[1] if found else "", record, told)
    body = text[found.end() :] if found else text
    if not body.strip():
        body = f"\n# Image classifier of {counted(len(record.class_names), 'class')}\n"
    body = body.replace(record.base_model.name, told.base.name)
    body = body.replace('(base_model, "THIS_FOLDER")', f'(base_model, "{told.place.repository}")')
    body = body.replace("THIS_FOLDER", str(told.place))
    for title, section in _sections(record, told):
        if not re.search(rf"^## {re.escape(title)}$", body, re.MULTILINE):
            body = f"{body.rstrip()}\n\n## {title}\n\n{section.strip()}\n"
    written = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{written}---\n{body}"


def _front_matter(text: str, record: Record, told: Told) -> dict[str, Any]:
    """The front matter of the card there was, with what it lacks."""
    try:
        own = yaml.safe_load(text)
    except yaml.YAMLError:
        own = None
    front: dict[str, Any] = own if isinstance(own, dict) else {}
    if front.get("base_model") in (None, record.base_model.name):
        front.pop("base_model", None)
        if told.base.on_hub:
            relation = "quantized" if told.exported else "adapter"
            front = {"base_model": told.base.name, "base_model_relation": relation} | front
    if told.licence is not None:
        front["license"] = told.licence
    usual: dict[str, Any] = {
        "library_name": "onnx" if told.exported else "peft",
        "pipeline_tag": "image-classification",
        "tags": ["cliptune", "onnx" if told.exported else "lora", "clip"],
    }
    front |= {key: value for key, value in usual.items() if key not in front}
    if "model-index" not in front and (figures := _figures(record)):
        front["model-index"] = [{"name": told.place.repository.partition("/")[2], "results": [{
            "task": {"type": "image-classification", "name": "Image classification"},
            "dataset": {"type": "imagefolder", "name": "validation split of its own photos",
                        "split": "validation"},
            "metrics": figures,
        }]}]  # fmt: skip
    return front


def _figures(record: Record) -> list[dict[str, Any]]:
    """The figures that the record holds, as shares of 1, each with its interval in its name."""
    counted_photos = int(record.metrics.get("val_images") or 0)
    worth = float(record.metrics.get("val_effective_images") or counted_photos)
    several = record.task == "multilabel"
    figures = []
    for kind, (key, name) in FIGURES.items():
        value = record.metrics.get(key)
        if value is None or (several and kind != "mean_average_precision"):
            continue
        said = f"{name} on {counted(counted_photos, 'validation photo')}"
        if not several:
            low, high = wilson_interval(float(value), worth)
            said += f", 95 % interval {low:.3f} to {high:.3f}"
        figures.append({"type": kind, "value": round(float(value), 4), "name": said})
    return figures


def _sections(record: Record, told: Told) -> list[tuple[str, str]]:
    sections = [("How to use it", _use(told))]
    if not told.exported:
        sections.append(("What is in it, and plain peft", _parts(record, told)))
    return [*sections, ("Limits and data", _limits(record)), ("Licence", _licence(told))]


def _use(told: Told) -> str:
    base = "" if told.base.on_hub or told.exported else " --base-model FOLDER"
    where = ""
    if base:
        where = (
            f"\n`FOLDER` is where the base model `{told.base.name}` lies: training had it from a "
            "folder, so that its\nname on the hub is not known. Other weights are refused.\n"
        )
    return f"""
```bash
pip install cliptune
cliptune predict --checkpoint {told.place} --image photo.jpg{base}
```
{where}
Only safetensors, JSON, YAML and ONNX are read; no code of a repository is run."""


WHAT = {
    "adapter_model.safetensors": "the LoRA matrices of the layers that `adapter_config.json` names",
    "head.safetensors": "class weights on the image feature",
    "means.safetensors": "mean feature of each class's validation photos, by which strangers are "
    "told",
    "photos.safetensors": "a sum of each photo of training and validation, by which `cliptune "
    "evaluate` notices photos that were seen before: who has a photo can tell by it whether it "
    "was among them; no photo can be made from it",
    "cliptune.json": "class names in order, preprocessing, prompts, figures, temperature",
    "config.yaml": "the settings of training, without folders",
}

LOGITS = {
    "text": 'weights = normalize(head["features"] + head["offset"], dim=-1)\n'
    'logits = head["logit_scale"].exp() * normalize(feature, dim=-1) @ weights.T',
    "fitted": 'weights = head["share"] * head["features"] + head["fitted"]\n'
    'weights = weights + head["strength"] * head["offset"]\n'
    'logits = head["logit_scale"].exp() * normalize(feature, dim=-1) @ weights.T + head["bias"]',
    "linear": 'logits = feature @ head["linear.weight"].T + head["linear.bias"]',
}


def _parts(record: Record, told: Told) -> str:
    rows = "\n".join(f"- `{name}`: {what}" for name, what in WHAT.items() if name in told.files)
    repository, revision = told.place
    pinned = "" if revision is None else f', revision="{revision}"'
    return f"""
{rows}

Without cliptune, by `peft` and `transformers`:

```python
import json

import torch
from huggingface_hub import snapshot_download
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel

folder = snapshot_download("{repository}"{pinned})
model = PeftModel.from_pretrained(AutoModel.from_pretrained("{told.base.name}"), folder).eval()
head = load_file(f"{{folder}}/head.safetensors")
names = json.load(open(f"{{folder}}/cliptune.json", encoding="utf-8"))["class_names"]

photo = Image.open("photo.jpg").convert("RGB")
pixels = AutoImageProcessor.from_pretrained(folder)(photo, return_tensors="pt")
with torch.no_grad():
    found = model.get_image_features(**pixels)
feature = getattr(found, "pooler_output", found)
{LOGITS[record.head]}
print(names[int(logits.argmax())])
```"""


def _limits(record: Record) -> str:
    classes, photos = counted(len(record.class_names), "class"), record.metrics.get("val_images")
    measured = "- There are no figures of it as it is now: measure it before you rely on it."
    if photos:
        measured = (
            f"- The figures are of {counted(int(photos), 'photo')} held out of the same collection "
            "as those of training.\n  They chose the checkpoint, so they lean to the good side; "
            "they are no test split, and say nothing\n  of photos of another kind."
        )
    strangers = (
        "any of them whose\n  threshold it reaches, or none."
        if record.task == "multilabel"
        else "one of them, unless\n  its threshold for strangers says otherwise."
    )
    calibrated = (
        "- Probabilities are calibrated for photos like those of validation, and classes as "
        "frequent as there."
        if record.answers or record.label_answers
        else "- Its probabilities are not calibrated."
    )
    return f"""
{measured}
- The photos are not part of this repository. The base model was trained on photos of the web, and
  may have seen these very ones.
- It knows {classes} and nothing else: a photo of something else gets {strangers}
{calibrated}
- Photos carry the leanings of who took and labelled them: look at each class, and do not decide
  about people by it."""


def _licence(told: Told) -> str:
    own = f"This checkpoint: {told.licence}." if told.licence else (
        "Its owner has stated none for this checkpoint.")  # fmt: skip
    terms = (
        f"Its base model `{told.base.name}` stands under {told.base_licence}, which holds, too."
        if told.base_licence
        else f"The licence of its base model `{told.base.name}` was not found where that lay: look "
        "it up, it holds\nbeside it."
    )
    return f"{own}\n{terms}"

"""From class names to prompts to text features: the zero-shot classifier of CLIP.

Radford et al., arXiv 2103.00020, section 3.1. Shape suffixes: C classes, P prompts of one class,
T tokens, D feature.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import normalize

from cliptune.model.backbone import Backbone, text_features

SYNSET = re.compile(r"^n\d{8}[-_]")  # the WordNet id before a folder's name in ImageNet's sets


def spoken_name(class_name: str) -> str:
    """A class name as one would say it: "golden retriever" for "n02099601-golden_retriever"."""
    name = SYNSET.sub("", class_name)
    return " ".join(name.replace("_", " ").replace("-", " ").split()) or class_name


def prompts_for(class_names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every template filled with every class name; the prompts of one class stand together."""
    return [
        template.replace("{}", spoken_name(class_name))
        for class_name in class_names
        for template in templates
    ]


def class_features(
    model: Any, tokens: dict[str, torch.Tensor], *, num_classes: int
) -> torch.Tensor:
    """(C, D), each row of length 1: the mean direction of the prompts of each class.

    `tokens` are those of `prompts_for`, (C·P, T).
    """
    features_CPD = normalize(text_features(model, tokens).float(), dim=-1)
    features_CPD = features_CPD.view(num_classes, -1, features_CPD.shape[-1])
    return normalize(features_CPD.mean(dim=1), dim=-1)


@torch.inference_mode()
def zero_shot_weights(
    backbone: Backbone, class_names: Sequence[str], templates: Sequence[str], *, batch: int = 256
) -> torch.Tensor:
    """(C, D) float32 on the CPU: the class weights of zero-shot CLIP, `batch` classes at a time."""
    device = next(backbone.model.parameters()).device
    rows = []
    for start in range(0, len(class_names), batch):
        names = class_names[start : start + batch]
        tokens = backbone.tokenize(prompts_for(names, templates))
        tokens = {key: value.to(device) for key, value in tokens.items()}
        rows.append(class_features(backbone.model, tokens, num_classes=len(names)).cpu())
    return torch.cat(rows).clone()

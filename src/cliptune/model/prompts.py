"""From class names to prompts to text features: the zero-shot classifier of CLIP.

Radford et al., arXiv 2103.00020, section 3.1. Shape suffixes: C classes, N prompts of all classes,
P of one, T tokens, D feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import normalize

from cliptune.data.naming import names_in_prompts
from cliptune.model.backbone import Backbone, text_features
from cliptune.model.tokenizer import refuse_equal_tokens

PromptNames = Mapping[str, Sequence[str]]  # class name -> the names that fill the {} of prompts
BY_FOLDER: PromptNames = {}  # each class by its folder's readable name


def prompts_for(
    class_names: Sequence[str], templates: Sequence[str], *, prompt_names: PromptNames = BY_FOLDER
) -> list[str]:
    """Every template filled with every name of every class; those of one class stand together."""
    return [
        template.replace("{}", name)
        for names in names_in_prompts(class_names, prompt_names)
        for template in templates
        for name in names
    ]


def prompt_counts(
    class_names: Sequence[str], templates: Sequence[str], *, prompt_names: PromptNames = BY_FOLDER
) -> list[int]:
    """How many of `prompts_for` belong to each class."""
    names_of_classes = names_in_prompts(class_names, prompt_names)
    return [len(templates) * len(names) for names in names_of_classes]


def class_features(
    model: Any, tokens: dict[str, torch.Tensor], *, counts: Sequence[int]
) -> torch.Tensor:
    """(C, D), each row of length 1: the mean direction of the prompts of each class.

    `tokens` are those of `prompts_for`, (N, T), and `counts` those of `prompt_counts`.
    """
    features_ND = normalize(text_features(model, tokens).float(), dim=-1)
    if len(set(counts)) == 1:  # as it mostly is: one mean instead of C of them
        means_CD = features_ND.view(len(counts), counts[0], -1).mean(dim=1)
    else:
        parts = torch.split(features_ND, list(counts))
        means_CD = torch.stack([part_PD.mean(dim=0) for part_PD in parts])
    return normalize(means_CD, dim=-1)


def check_names(
    backbone: Backbone, class_names: Sequence[str], *, prompt_names: PromptNames = BY_FOLDER
) -> None:
    """Raise `ModelError` where the tokenizer cannot tell the names of classes apart."""
    texts = [backbone.as_trained(names) for names in names_in_prompts(class_names, prompt_names)]
    refuse_equal_tokens(str(backbone.source), class_names, texts, backbone.tokenizer)


@torch.inference_mode()
def zero_shot_weights(
    backbone: Backbone,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    prompt_names: PromptNames = BY_FOLDER,
    batch: int = 256,
) -> torch.Tensor:
    """(C, D) float32 on the CPU: the class weights of zero-shot CLIP, `batch` classes at a time.

    Raises `ModelError` where the tokenizer cannot tell the classes apart.
    """
    check_names(backbone, class_names, prompt_names=prompt_names)
    device = next(backbone.model.parameters()).device
    rows = []
    for start in range(0, len(class_names), batch):
        names = class_names[start : start + batch]
        tokens = backbone.tokenize(prompts_for(names, templates, prompt_names=prompt_names))
        tokens = {key: value.to(device) for key, value in tokens.items()}
        counts = prompt_counts(names, templates, prompt_names=prompt_names)
        rows.append(class_features(backbone.model, tokens, counts=counts).cpu())
    return torch.cat(rows).clone()

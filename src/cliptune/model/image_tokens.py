"""Fewer tokens in the image tower: a lower resolution, and patches left out in training.

Both change what is computed, so they are settings and off by default.
Shape suffixes: B batch, P patches, T tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from cliptune.errors import ModelError
from cliptune.model.dropout import PhotoKeys, random_order


@torch.no_grad()
def resize_positions(model: Any, image_size: int) -> None:
    """Let the image tower of `model` take photos of `image_size`, by resizing its position table.

    Bicubic, as `transformers` does in every forward with `interpolate_pos_encoding`; here once.
    Raises `ModelError` for a size that patches do not fill, or a tower without such a table.
    """
    embeddings: Any = getattr(getattr(model, "vision_model", None), "embeddings", None)
    before = getattr(embeddings, "image_size", None)
    if before == image_size:
        return
    table = getattr(embeddings, "position_embedding", None)
    if not isinstance(before, int) or not isinstance(table, nn.Embedding):
        raise ModelError(
            f"model.image_size: {type(model).__name__} has no table of positions that could be "
            "resized; leave it at null"
        )
    patch = int(embeddings.patch_size)
    if image_size % patch:
        lower = max(1, image_size // patch) * patch
        raise ModelError(
            f"model.image_size: {image_size} is not a multiple of the model's patches of {patch} "
            f"pixels; use {lower} or {lower + patch}"
        )
    old, new = before // patch, image_size // patch
    first = table.num_embeddings - old * old  # the class token's place, where there is one
    patches = table.weight[first:].float().T.reshape(1, -1, old, old)
    resized = interpolate(patches, size=(new, new), mode="bicubic", align_corners=False)
    weight = torch.cat([table.weight[:first], resized[0].flatten(1).T.to(table.weight.dtype)])
    embeddings.position_embedding = nn.Embedding(weight.shape[0], weight.shape[1], _weight=weight)
    embeddings.position_embedding.requires_grad_(table.weight.requires_grad)
    places = torch.arange(len(weight), device=weight.device)[None]
    embeddings.register_buffer("position_ids", places, persistent=False)
    embeddings.num_patches, embeddings.num_positions = new * new, len(weight)
    embeddings.image_size = image_size


def drop_patches(model: Any, rate: float, *, keys: PhotoKeys | None = None) -> None:
    """In training, leave a random `rate` of each photo's patches out of the image tower.

    PatchDropout (Liu et al., arXiv 2208.07220): attention and every layer then see fewer tokens.
    The class token stays; in evaluation every patch is seen. `keys` say whose patches are drawn.
    """
    drawn_by = keys or PhotoKeys()
    inner = model.base_model.model if hasattr(model, "peft_config") else model

    def choose(embeddings: Any, inputs: Any, x_BTD: torch.Tensor) -> torch.Tensor:
        if not embeddings.training:
            return x_BTD
        first = x_BTD.shape[1] - int(embeddings.num_patches)
        keep = max(1, round((1 - rate) * int(embeddings.num_patches)))
        keys_B = drawn_by.of("vision", x_BTD)
        order_BP = random_order(keys_B, int(embeddings.num_patches), name="patches")
        kept_BP = order_BP[:, :keep].sort(1).values + first
        index_BTD = kept_BP[..., None].expand(-1, -1, x_BTD.shape[2])
        return torch.cat([x_BTD[:, :first], x_BTD.gather(1, index_BTD)], dim=1)

    inner.vision_model.embeddings.register_forward_hook(choose)

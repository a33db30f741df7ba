"""Where the class token's evidence came from: a map over the patches of a photo.

The method is that of Chefer, Gur and Wolf, "Generic Attention-model Explainability for
Interpreting Bi-Modal and Encoder-Decoder Transformers", ICCV 2021, arXiv 2103.15679, for
self-attention: attention weights count where they raise the logit asked about, and are followed
from the last layer back to the patches. The maintained libraries for such maps, among them
pytorch-grad-cam, import torchvision and OpenCV, which cliptune does without.

Shape suffixes: B batch, C channels (of pixels) or classes (of logits), H height and W width in
pixels, h and w in patches, N heads, T tokens (the class token first).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.errors import ModelError
from cliptune.model.backbone import image_features
from cliptune.model.classifier import Classifier
from cliptune.model.fast.encoder import FusedEncoder


def has_class_token(model: Any) -> bool:
    """Whether the image tower of the dual encoder `model` gathers its feature in a class token.

    CLIP, OpenCLIP and Chinese-CLIP do. SigLIP pools its patches by an attention of its own, for
    which the method is not defined.
    """
    return hasattr(getattr(_image_tower(model), "embeddings", None), "class_embedding")


def evidence_maps(
    classifier: Classifier, pixels_BCHW: torch.Tensor, classes_B: torch.Tensor
) -> NDArray[np.float32]:
    """(B, h, w) in [0, 1]: how much each patch spoke for class `classes_B[b]` in photo b.

    `pixels_BCHW`: uint8, on the classifier's device; `classes_B`: int64. The strongest patch of
    each photo is 1; a map is all zero where no patch spoke for the class. Maps are scaled by their
    maximum alone, not shifted by their minimum, so that 0 means none: two maps compare in shape,
    not in strength. Nothing about the classifier is changed.

    Raises `ModelError` for an image tower without a class token, and for a fused one, which never
    has its attention weights at hand: load it with `load_classifier(checkpoint, fast=False)`.
    """
    tower = _checked_tower(classifier.model)
    device = pixels_BCHW.device.type
    with _evaluating(classifier, device), _attention_weights(tower) as weights_BNTT:
        logits_BC = _logits(classifier, pixels_BCHW)
        if not weights_BNTT or any(weights is None for weights in weights_BNTT):
            raise ModelError(
                f"{type(tower).__name__}: its layers give no attention weights, so there is no "
                "telling where it looked. Expected CLIP, OpenCLIP or Chinese-CLIP."
            )
        chosen_B1 = logits_BC.gather(1, classes_B.to(logits_BC.device)[:, None])
        # Photos of a batch do not mix: the gradient of the sum holds that of each one's logit.
        gradients_BNTT = torch.autograd.grad(chosen_B1.sum(), weights_BNTT)
        evidence_BT = _class_token_row([w.detach() for w in weights_BNTT], gradients_BNTT)
    patch = tower.config.patch_size
    height, width = (side // patch for side in pixels_BCHW.shape[-2:])
    maps_Bhw: NDArray[np.float32] = evidence_BT[:, 1:].float().cpu().numpy()
    maps_Bhw = maps_Bhw.reshape(-1, height, width)
    largest_B11 = maps_Bhw.max(axis=(1, 2), keepdims=True)
    largest_B11[largest_B11 == 0] = 1
    maps_Bhw /= largest_B11
    return maps_Bhw


def _class_token_row(
    weights_BNTT: Sequence[torch.Tensor], gradients_BNTT: Sequence[torch.Tensor]
) -> torch.Tensor:
    """(B, T): the class token's row of R, where R starts as 1 and becomes R + Ā·R in each layer.

    Ā is the mean over heads of the positive part of gradient · weight. Of (1 + Ā_L) … (1 + Ā_1)
    one row is asked, so it is a row that is carried, from the last layer back.
    """
    batch, _, tokens, _ = weights_BNTT[0].shape
    row_B1T = weights_BNTT[0].new_zeros(batch, 1, tokens)
    row_B1T[:, :, 0] = 1
    for weights, gradients in zip(reversed(weights_BNTT), reversed(gradients_BNTT), strict=True):
        row_B1T = row_B1T + row_B1T @ (gradients * weights).clamp(min=0).mean(dim=1)
    return row_B1T[:, 0]


def _logits(classifier: Classifier, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """(B, C) float32 logits that know what they came from, whether or not weights train."""
    # The graph begins at the pixels, so that the first layer's attention is part of it.
    normalized_BCHW = classifier.preprocess.normalize(pixels_BCHW).requires_grad_()
    features_BD = image_features(classifier.model, normalized_BCHW)
    weights_CD = classifier.class_weights().detach()
    logits: torch.Tensor = classifier.head(features_BD.float(), weights_CD.float())
    return logits


def _image_tower(model: Any) -> Any:
    inner = model.base_model.model if hasattr(model, "peft_config") else model
    return getattr(inner, "vision_model", None)


def _checked_tower(model: Any) -> Any:
    tower = _image_tower(model)
    if not has_class_token(model):
        raise ModelError(
            f"{type(tower).__name__}: this image tower has no class token whose evidence could be "
            "followed. Expected CLIP, OpenCLIP or Chinese-CLIP."
        )
    if isinstance(tower.encoder, FusedEncoder):
        raise ModelError(
            f"{type(tower).__name__}: its encoder is fused and never has its attention weights at "
            "hand. Load the classifier with load_classifier(checkpoint, fast=False)."
        )
    return tower


@contextmanager
def _evaluating(classifier: Classifier, device: str) -> Iterator[None]:
    """No dropout, no rounding to half precision, a graph; each module afterwards as it was."""
    were_training = [module for module in classifier.modules() if module.training]
    classifier.eval()
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device, enabled=False),
        ):
            yield
    finally:
        for module in were_training:
            module.training = True


@contextmanager
def _attention_weights(tower: Any) -> Iterator[list[torch.Tensor]]:
    """A list that each layer of `tower` adds its attention weights (B, N, T, T) to, first to last.

    Only eager attention has them; the tower's own kind is put back afterwards.
    """
    usual = tower.config._attn_implementation
    weights_BNTT: list[torch.Tensor] = []

    def keep(module: Any, arguments: Any, output: Any) -> None:
        weights_BNTT.append(output[1])

    with ExitStack() as stack:
        for layer in tower.encoder.layers:
            stack.callback(layer.self_attn.register_forward_hook(keep).remove)
        stack.callback(tower.set_attn_implementation, usual)
        tower.set_attn_implementation("eager")
        yield weights_BNTT

"""Any CLIP-like dual encoder that `transformers` loads: CLIP, OpenCLIP, SigLIP, Chinese-CLIP.

Shape suffixes: B batch, C channels, H height, W width, P prompts, T tokens, D feature.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cliptune.data.images import Preprocess
from cliptune.errors import HubError, ModelError, reason
from cliptune.model.fast.encoder import LayerStates
from cliptune.model.image_tokens import resize_positions
from cliptune.model.locating import LoadOptions, locate, unreachable, weights_revision
from cliptune.model.tokenizer import broken_files, load_tokenizer, refuse_foreign_tokens

log = logging.getLogger(__name__)

# SigLIP was trained on prompts padded to the full length, without a mask: its pooled token sees
# the padding (Zhai et al., arXiv 2303.15343). CLIP's text tower is causal and BERT masks, so
# there the longest prompt's length is enough.
PAD_TO_FULL_LENGTH = frozenset({"siglip"})
# SigLIP and SigLIP 2 were trained on lower-cased text. SigLIP's own tokenizer sees to that (and
# drops punctuation); most folders of SigLIP 2 declare Gemma's, which does not.
LOWER_CASED = frozenset({"siglip"})


@dataclass(frozen=True)
class BaseModelSource:
    """Where a base model comes from, precisely enough to find the same weights again."""

    name: str  # a name on the hub, or the absolute path of a folder
    revision: str | None  # the commit on the hub; None for a folder
    fingerprint: str  # of the weights themselves

    def __str__(self) -> str:
        return f"{self.name}@{self.revision[:12]}" if self.revision else self.name


@dataclass
class Backbone:
    """A dual encoder with all it needs to turn photos and prompts into features."""

    model: Any  # a transformers model, later perhaps wrapped by PEFT
    preprocess: Preprocess
    # The transformers image processor, kept to be saved beside a checkpoint; None beyond training.
    processor: Any
    tokenizer: Any
    source: BaseModelSource
    lower_case: bool = False  # whether prompts are lower-cased before they become tokens

    def tokenize(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """int64 (P, T) token ids, and the mask where the model takes one.

        T is the longest prompt's length, or the full one where the model was trained so.
        Raises `ModelError` for a prompt longer than the text tower takes, rather than cut it, and
        for tokens that are not the text tower's.
        """
        prompts = self.as_trained(prompts)
        model_type = self.model.config.model_type
        limit = int(self.model.config.text_config.max_position_embeddings)
        full = model_type in PAD_TO_FULL_LENGTH
        tokens = self.tokenizer(
            prompts,
            padding="max_length" if full else "longest",
            max_length=limit if full else None,
            return_tensors="pt",
            return_attention_mask=not full,
        )
        length = tokens["input_ids"].shape[1]
        if length > limit:
            longest = max(prompts, key=len)
            raise ModelError(
                f"the prompt '{longest}' is {length} tokens long; {self.source} takes {limit}. "
                "Shorten model.prompts or the class name."
            )
        refuse_foreign_tokens(str(self.source), self.tokenizer, self.model, tokens["input_ids"])
        return dict(tokens)

    def as_trained(self, texts: Sequence[str]) -> list[str]:
        """`texts` in the case the text tower was trained on."""
        return [text.lower() for text in texts] if self.lower_case else list(texts)


def image_features(
    model: Any, pixels_BCHW: torch.Tensor, *, states: LayerStates | None = None
) -> torch.Tensor:
    """(B, D): the image tower's projected features, not normalised.

    `states` go to the fused encoder, which takes them up or leaves them.
    """
    further = {} if states is None else {"states": states}
    return _pooled(model.get_image_features(pixel_values=pixels_BCHW, **further))


def text_features(model: Any, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """(P, D): the text tower's projected features, not normalised."""
    return _pooled(model.get_text_features(**tokens))


def _pooled(output: Any) -> torch.Tensor:
    features: torch.Tensor = getattr(output, "pooler_output", output)
    return features


def load_backbone(
    name: str,
    *,
    revision: str | None = None,
    cache_dir: Path | None = None,
    image_size: int | None = None,
    lower_case: bool | None = None,
) -> Backbone:
    """Load a dual encoder with its tokenizer and image processor, in float32 on the CPU.

    `name` is a hub name or a local folder in `transformers` format. `image_size`, in pixels, asks
    for photos of another size than the model was trained on. `lower_case` says whether prompts
    are lower-cased; None: as the model was trained.

    Raises `ModelError` when it is no dual encoder, does not exist, or lacks a tokenizer or an
    image processor of its own, `HubError` when the hub cannot be reached.
    """
    name, options = locate(name, revision=revision, cache_dir=cache_dir)
    model, source = _load_weights(name, options)
    tokenizer = load_tokenizer(name, model, options)
    processor = _load_processor(name, options)
    preprocess = Preprocess.from_processor(processor)
    _refuse_other_image_size(name, model, preprocess)
    if lower_case is None:
        lower_case = model.config.model_type in LOWER_CASED
    if image_size is not None:
        preprocess = preprocess.scaled(image_size)
        resize_positions(model, image_size)
        processor.size, processor.crop_size = preprocess.processor_sizes()
    return Backbone(model, preprocess, processor, tokenizer, source, lower_case)


def load_model(
    name: str,
    *,
    revision: str | None = None,
    cache_dir: Path | None = None,
    image_size: tuple[int, int] | None = None,
) -> tuple[Any, BaseModelSource]:
    """The dual encoder alone, as `load_backbone` loads it, for photos of (height, width)."""
    name, options = locate(name, revision=revision, cache_dir=cache_dir)
    model, source = _load_weights(name, options)
    if image_size is not None and image_size[0] == image_size[1]:
        resize_positions(model, image_size[0])
    return model, source


def with_tokenizer(
    model: Any,
    source: BaseModelSource,
    name: str,
    *,
    revision: str | None,
    cache_dir: Path | None,
    preprocess: Preprocess,
    lower_case: bool,
) -> Backbone:
    """The loaded `model` with the tokenizer of `name`, from where it came.

    Raises `ModelError` where the tokenizer is missing or not the text tower's.
    """
    name, options = locate(name, revision=revision, cache_dir=cache_dir)
    return Backbone(
        model, preprocess, None, load_tokenizer(name, model, options), source, lower_case
    )


def fingerprint(model: nn.Module) -> str:
    """A short hash of the weights: every parameter's name, shape, and 64 of its values.

    The same for a hub copy and a local copy of one model, whatever the files' format; cheap
    enough to compute on every load.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // 64)
        sample = flat[::step][:64].float().cpu().contiguous()
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def _load_processor(name: str, options: LoadOptions) -> Any:
    """The image processor that `name` describes; never one made up from defaults."""
    from transformers import AutoImageProcessor
    from transformers.image_processing_base import ImageProcessingMixin

    expected = (
        "Expected preprocessor_config.json, with the size of photos, image_mean and image_std. "
        "Fetch it from where the model came; a checkpoint trained on it holds a copy."
    )
    try:
        described, _ = ImageProcessingMixin.get_image_processor_dict(name, **options)
        processor = AutoImageProcessor.from_pretrained(name, backend="pil", **options)
    except MemoryError:
        raise
    except Exception as error:  # libraries raise nearly anything on files that are not whole
        why = "; ".join(broken_files(Path(name))) or reason(error)
        raise ModelError(
            f"{name}: its image processor cannot be loaded: {why.rstrip('.')}. {expected}"
        ) from error
    if not described.keys() & {"size", "crop_size", "image_mean"}:
        raise ModelError(
            f"{name}: preprocessor_config.json says nothing of how photos are prepared. {expected}"
        )
    return processor


def _refuse_other_image_size(name: str, model: Any, preprocess: Preprocess) -> None:
    """Raise `ModelError` where the image tower was made for photos of another size."""
    vision = getattr(model.config, "vision_config", None)
    trained = getattr(vision, "image_size", None)
    if trained is None or not hasattr(vision, "patch_size"):
        return  # a convolutional tower takes photos of any size
    sizes = tuple(trained) if isinstance(trained, list | tuple) else (trained, trained)
    if preprocess.image_size != sizes:
        height, width = preprocess.image_size
        raise ModelError(
            f"{name}: its image processor makes photos of {height}×{width} pixels, and the image "
            f"tower was trained on {sizes[0]}×{sizes[1]}: preprocessor_config.json is not its own. "
            "Fetch that file from where the model came; for another size set model.image_size."
        )


def _load_weights(name: str, options: LoadOptions) -> tuple[Any, BaseModelSource]:
    from safetensors import SafetensorError
    from transformers import AutoModel

    at = options
    if commit := weights_revision(name, options):
        at = options | {"revision": commit}
    try:
        # Only safetensors, never a pickle; no code from the model's own repository.
        model = AutoModel.from_pretrained(
            name,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            **at,
        )
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if isinstance(error, OSError) and "connect" in str(error):
            raise HubError(unreachable(name, error)) from error
        why = "; ".join(broken_files(Path(name))) or reason(error)
        raise ModelError(
            f"{name}: the model cannot be loaded: {why}\n"
            "Expected weights in safetensors format and an architecture transformers knows."
        ) from error
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise ModelError(
            f"{name}: {type(model).__name__} is no dual encoder of images and texts. "
            "Expected CLIP, SigLIP, Chinese-CLIP or another model with both towers."
        )
    if model.config.model_type == "siglip2":
        raise ModelError(
            f"{name}: SigLIP 2 with variable resolution (NaFlex) is not supported. Use a "
            "fixed-resolution one, such as google/siglip2-base-patch16-224."
        )
    revision = options.get("revision") or getattr(model.config, "_commit_hash", None)
    return model, BaseModelSource(name, revision, fingerprint(model))

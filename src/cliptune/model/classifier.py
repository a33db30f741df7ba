"""Backbone, adapters and head together: pixels in, logits out.

Shape suffixes: B batch, N photos, C classes, D feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import linear, normalize

from cliptune.data.images import Preprocess
from cliptune.data.loading import Batch
from cliptune.data.reading import Unreadable
from cliptune.model.backbone import image_features
from cliptune.model.device import computing_in
from cliptune.model.fast.encoder import LayerStates
from cliptune.model.fast.kept_activations import FrozenStates, reused
from cliptune.model.lora import adapters_at
from cliptune.model.prompts import class_features


class TextHead(nn.Module):
    """A cosine classifier that starts as zero-shot CLIP and learns an offset from it.

    logits = exp(logit_scale) · cos(image feature, text feature + offset). The offset starts at
    zero, so update 0 *is* zero-shot CLIP, and weight decay pulls towards zero-shot, not towards
    nothing. SigLIP's logit bias is the same for every class and drops out of the softmax.
    """

    kind: Final = "text"
    features: torch.Tensor  # (C, D)
    logit_scale: torch.Tensor  # (), the logarithm of the scale

    def __init__(self, features_CD: torch.Tensor, logit_scale: torch.Tensor) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros_like(features_CD))  # (C, D)
        self.register_buffer("features", features_CD.clone())
        self.register_buffer("logit_scale", logit_scale.detach().float().reshape(()).clone())

    def weights(self, features_CD: torch.Tensor | None = None) -> torch.Tensor:
        """(C, D) class weights, each of length 1, from fresh text features or the stored ones."""
        features = self.features if features_CD is None else features_CD
        return normalize(features + self.offset, dim=-1)

    def forward(self, features_BD: torch.Tensor, weights_CD: torch.Tensor) -> torch.Tensor:
        """(B, C) logits."""
        return linear(normalize(features_BD, dim=-1), self.logit_scale.exp() * weights_CD)


FITTED = ("share", "fitted", "bias")


class HeadShifts(NamedTuple):
    """K changes of a head, (K, C, D) to its weights and (K, C) to its bias; (B,) whose is which."""

    weights_KCD: torch.Tensor
    bias_KC: torch.Tensor
    places_B: torch.Tensor

    def logits(self, directions_BD: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """(B, C) what they add to the logits; the head's weights count `scale` times."""
        changes, classes, dim = self.weights_KCD.shape
        all_BM = linear(directions_BD, scale * self.weights_KCD.view(-1, dim))
        all_BKC = all_BM.view(-1, changes, classes) + self.bias_KC
        own: torch.Tensor = all_BKC[torch.arange(len(all_BKC), device=all_BM.device), self.places_B]
        return own


class FittedHead(nn.Module):
    """A head fitted on frozen features (`cliptune.training.head`), and what it learns since.

    logits = exp(logit_scale) · f/|f| · (share · text feature + fitted + offset) + bias, of the
    image feature f. The offset starts at zero, so that weight decay pulls it to the fitted head.
    `strength` is the share of the offset that counts.
    """

    kind: Final = "fitted"
    features: torch.Tensor  # (C, D)
    logit_scale: torch.Tensor  # (), the logarithm of the scale
    share: torch.Tensor  # () of zero-shot
    fitted: torch.Tensor  # (C, D)
    bias: torch.Tensor  # (C,)
    strength: torch.Tensor  # ()

    def __init__(self, features_CD: torch.Tensor, logit_scale: torch.Tensor) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros_like(features_CD))  # (C, D)
        self.register_buffer("features", features_CD.clone())
        self.register_buffer("logit_scale", logit_scale.detach().float().reshape(()).clone())
        self.register_buffer("share", torch.ones(()))
        self.register_buffer("fitted", torch.zeros_like(features_CD))
        self.register_buffer("bias", torch.zeros(len(features_CD)))
        self.register_buffer("strength", torch.ones(()))

    def fitted_tensors(self) -> dict[str, torch.Tensor]:
        """Copies of what was fitted."""
        return {name: getattr(self, name).clone() for name in FITTED}

    @torch.no_grad()
    def set_fitted(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the place of what was fitted; what was learned since stays."""
        for name in FITTED:
            getattr(self, name).copy_(tensors[name])

    def weights(self, features_CD: torch.Tensor | None = None) -> torch.Tensor:
        """(C, D) class weights, from fresh text features or the stored ones."""
        features = self.features if features_CD is None else features_CD
        return self.share * features + self.fitted + self.strength * self.offset

    def forward(
        self,
        features_BD: torch.Tensor,
        weights_CD: torch.Tensor,
        shifts: HeadShifts | None = None,
    ) -> torch.Tensor:
        """(B, C) logits, by the head that `shifts` make of this for each photo."""
        scale, directions_BD = self.logit_scale.exp(), normalize(features_BD, dim=-1)
        logits_BC = linear(directions_BD, scale * weights_CD, self.bias)
        return logits_BC if shifts is None else logits_BC + shifts.logits(directions_BD, scale)


class LinearHead(nn.Module):
    """A fresh linear layer on the image feature, as a plain classifier has it."""

    kind: Final = "linear"

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, num_classes)

    def weights(self, features_CD: torch.Tensor | None = None) -> torch.Tensor:
        """(C, D) the layer's weights; text features play no part."""
        return self.linear.weight

    def forward(self, features_BD: torch.Tensor, weights_CD: torch.Tensor) -> torch.Tensor:
        """(B, C) logits."""
        return linear(features_BD, weights_CD, self.linear.bias)


Head = TextHead | FittedHead | LinearHead


def empty_head(kind: str, num_classes: int, dim: int) -> Head:
    """A head of that kind, to load tensors into."""
    if kind == "linear":
        return LinearHead(num_classes, dim)
    of_text = TextHead if kind == "text" else FittedHead
    return of_text(torch.zeros(num_classes, dim), torch.zeros(()))


class Classifier(nn.Module):
    """An image classifier: a CLIP-like backbone, perhaps with adapters, and a head.

    `prompt_tokens` are given where the text tower is being trained: its features are then
    computed anew in each step instead of once. `prompt_counts` says how many of them each class
    has; without it, all have equally many.

    `towers_dtype` is what the image tower computes in; None leaves it to the context. Features,
    logits and all after them are float32 in any case.
    """

    towers_dtype: torch.dtype | None = None

    def __init__(
        self,
        model: Any,
        head: Head,
        preprocess: Preprocess,
        *,
        prompt_tokens: dict[str, torch.Tensor] | None = None,
        prompt_counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.preprocess = preprocess
        self._token_names = tuple(prompt_tokens or ())
        self._prompt_counts = prompt_counts
        for name, tokens in (prompt_tokens or {}).items():
            self.register_buffer(f"prompt_{name}", tokens, persistent=False)

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.head.weights().shape[0])

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """While open, `strength` times what adapters and a fitted head learned counts: at 0 none.

        Raises `AssertionError` for another head, whose start is not kept.
        """
        assert isinstance(self.head, FittedHead)
        before = self.head.strength.item()
        try:
            self.head.strength.fill_(strength)
            with adapters_at(self.model, strength):
                yield
        finally:
            self.head.strength.fill_(before)

    def class_weights(self) -> torch.Tensor:
        """(C, D) the head's weights now; through the text tower where it is being trained."""
        return self.head.weights(self._text_features() if self._token_names else None)

    def refresh_text_features(self) -> None:
        """Store the text tower's present features in the head, for saving or fast inference."""
        if self._token_names and isinstance(self.head, TextHead | FittedHead):
            was_training = self.training
            with torch.no_grad():
                self.head.features = self.eval()._text_features()
            self.train(was_training)

    def _text_features(self) -> torch.Tensor:
        """(C, D) from the text tower as it is now."""
        tokens = {name: getattr(self, f"prompt_{name}") for name in self._token_names}
        num_prompts, num_classes = len(tokens[self._token_names[0]]), self.num_classes
        counts = self._prompt_counts or [num_prompts // num_classes] * num_classes
        return class_features(self.model, tokens, counts=counts)

    def image_features(
        self, pixels_BCHW: torch.Tensor, *, states: LayerStates | None = None
    ) -> torch.Tensor:
        """(B, D) from uint8 pixels (B, 3, H, W), or from `states` of B photos."""
        with computing_in(self.towers_dtype, pixels_BCHW.device):
            return image_features(self.model, self.preprocess.normalize(pixels_BCHW), states=states)

    def forward(
        self,
        pixels_BCHW: torch.Tensor,
        weights_CD: torch.Tensor | None = None,
        *,
        states: LayerStates | None = None,
        shifts: HeadShifts | None = None,
    ) -> torch.Tensor:
        """(B, C) float32 logits from uint8 pixels (B, 3, H, W).

        `weights_CD` saves computing the class weights again where they do not change.
        `states`, of a fused image tower, are taken up or left by this forward. `shifts` make
        another fitted head for each photo.
        """
        return self.answer(pixels_BCHW, weights_CD, states=states, shifts=shifts)[0]

    def answer(
        self,
        pixels_BCHW: torch.Tensor,
        weights_CD: torch.Tensor | None = None,
        *,
        states: LayerStates | None = None,
        shifts: HeadShifts | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(float32 logits (B, C), float32 image features (B, D)); arguments as in `forward`."""
        features_BD = self.image_features(pixels_BCHW, states=states)
        weights = self.class_weights() if weights_CD is None else weights_CD
        with torch.autocast(features_BD.device.type, enabled=False):
            features_BD = features_BD.float()
            others = () if shifts is None else (shifts,)
            logits: torch.Tensor = self.head(features_BD, weights.float(), *others)
        return logits, features_BD


@dataclass
class Predictions:
    """Of the photos that could be read: each classifier's logits and features, and the labels.

    `logits`: one float32 (N, C) for each classifier; `features`: one float32 (N, D).
    `labels`, and `indices` (places in the dataset): int64 (N,).
    """

    logits: list[NDArray[np.float32]]
    features: list[NDArray[np.float32]]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    unreadable: list[Unreadable]


@torch.inference_mode()
def predict_logits(
    classifiers: Sequence[Classifier],
    batches: Iterable[Batch],
    device: torch.device,
    *,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    frozen: FrozenStates | None = None,
) -> Predictions:
    """What `classifiers` (on `device`) say of all the photos in `batches`, in their order.

    `autocast` makes the context of mixed precision. `frozen` keeps, for several passes over the
    same photos, what does not change.
    """
    logits: list[list[torch.Tensor]] = [[torch.empty(0, c.num_classes)] for c in classifiers]
    features: list[list[torch.Tensor]] = [[] for _ in classifiers]
    labels = [torch.empty(0, dtype=torch.int64)]
    indices = [torch.empty(0, dtype=torch.int64)]
    unreadable = []
    with autocast():
        weights = [classifier.eval().class_weights() for classifier in classifiers]
        for batch in batches:
            unreadable += batch.unreadable
            if not len(batch):
                continue
            pixels = batch.pixels.to(device, non_blocking=True)
            labels.append(batch.labels)
            indices.append(batch.indices)
            for i, classifier in enumerate(classifiers):
                with reused(frozen, batch, pixels) as (given, states):
                    answer = classifier.answer(given, weights[i], states=states)
                    logits_BC, features_BD = answer
                logits[i].append(logits_BC.cpu())
                features[i].append(features_BD.cpu())
    return Predictions(
        logits=[torch.cat(x).numpy() for x in logits],
        features=[torch.cat(x).numpy() if x else np.empty((0, 0), np.float32) for x in features],
        labels=torch.cat(labels).numpy(),
        indices=torch.cat(indices).numpy(),
        unreadable=unreadable,
    )

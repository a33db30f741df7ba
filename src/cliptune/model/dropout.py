"""Dropout whose masks belong to photos, not to the batch a photo comes in.

A mask is a function of the run's seed, the epoch, the photo, the layer and the place in it. So an
update is the same however it is cut into micro-batches or shared among processes, fused or not.

The bits are those of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014, doi 10.1145/2660193.2660195),
which makes its k-th word of the key and of k alone: all words at once, on any device. Rates are
rounded to 1/65536.

Shape suffixes: B photos or prompts, S masks, W words of 64 bits, T tokens, N = B·T, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from cliptune.errors import ModelError

# SplitMix64's constants; torch has no arithmetic of unsigned integers, so they are signed here.
GAMMA = 0x9E3779B97F4A7C15 - 2**64
ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1))
# Words a thread works on at a time on the CPU, so that they stay in its cache: all in one piece
# took 1.7 times as long. Smaller pieces gain nothing, and threads wait for each other more often.
PIECE = 2**16
LANES = 4  # masks' elements in a word, of 16 bits each
INTEGERS = {
    torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32,
    torch.float64: torch.int64,
}  # fmt: skip


class PhotoKeys:
    """The keys of the photos and prompts of the forward at hand, for whoever draws for them.

    One object serves a whole model. Outside of `drawing_for`, keys come from torch's generator.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._keys: dict[str, torch.Tensor] = {}
        self._text_start: int | None = None

    @contextmanager
    def drawing_for(
        self, photos: torch.Tensor, *, view: int, update: int, device: torch.device
    ) -> Iterator[None]:
        """While open, masks are those of `photos`, places in the dataset (B,), in `view`.

        Prompts take part as a whole in every micro-batch: theirs are those of `update`. So is what
        else draws, namely a base model's own dropout in the text tower (Chinese-CLIP has some). One
        in the image tower, which no published model of these families has, follows the batch.
        """
        start = _number(f"{self.seed} photos {view}")
        self._keys = {"vision": words(start, photos.to(device, torch.int64))}
        self._text_start = _number(f"{self.seed} prompts {update}")
        torch.manual_seed(self._text_start)
        try:
            yield
        finally:
            self._keys, self._text_start = {}, None

    def drawn_for(self, tower: str) -> bool:
        """Whether the photos or prompts of `tower` are known: inside of `drawing_for`."""
        return tower in self._keys or (tower == "text" and self._text_start is not None)

    @contextmanager
    def taken_from(self, tower: str, keys: torch.Tensor) -> Iterator[None]:
        """While open, the keys of `tower` are what stands in `keys`, int64 (B,)."""
        before = self._keys
        self._keys = before | {tower: keys}
        try:
            yield
        finally:
            self._keys = before

    def of(self, tower: str, x: torch.Tensor) -> torch.Tensor:
        """int64 (B,): the keys of what is in `x` (B, ..., D), or (B·n, ..., D), B first.

        Raises `ModelError` where `x` cannot be shared out among the photos.
        """
        keys = self._keys.get(tower)
        if tower == "text" and self._text_start is not None and keys is None:
            prompts = torch.arange(len(x), device=x.device)
            keys = self._keys[tower] = words(self._text_start, prompts)
        if keys is None:
            keys = torch.empty(len(x), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        if len(x) % len(keys):
            raise ModelError(
                f"a layer of the {tower} tower sees {len(x)} rows for {len(keys)} photos, so that "
                "its dropout cannot be drawn for each photo. Set lora.lora_dropout to 0."
            )
        return keys


class PhotoDropout(nn.Module):
    """Dropout by the keys of photos, in the place of the `nn.Dropout` of an adapter.

    `name` is the layer's: each draws masks of its own.
    """

    def __init__(self, rate: float, *, name: str, tower: str, keys: PhotoKeys) -> None:
        super().__init__()
        self.tower, self.keys = tower, keys
        self.number = _number(name)
        self.dropped = min(round(rate * 2**16), 2**16 - 1)  # of 65536
        self.kept = 1 - self.dropped / 2**16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` with a share of its elements zero and the others scaled, so that the mean stays."""
        (mask,) = dropout_masks([self], x)
        if mask is None:
            return x
        return torch.where(mask.view(x.shape) != 0, x, 0.0) / self.kept

    def extra_repr(self) -> str:
        """The rate, for whoever prints the model."""
        return f"p={self.dropped / 2**16:g}"


def dropout_masks(
    dropouts: Sequence[PhotoDropout | None], x: torch.Tensor, *, first: int = 0
) -> list[torch.Tensor | None]:
    """For each of `dropouts` what `kept` takes: int16 (N, D), -1 where an element of `x` is kept.

    None: all are. `x` (B, T, D) begins at the token `first` of its photos, and the dropouts are of
    one tower.
    """
    drawing = [d for d in dropouts if d is not None and d.training and d.dropped]
    if not drawing:
        return [None] * len(dropouts)
    keys_B = drawing[0].keys.of(drawing[0].tower, x)
    width = x.shape[-1]
    tokens = x.numel() // width // len(keys_B)
    each = -(-width // LANES)  # words for a token
    places_W = torch.arange(first * each, (first + tokens) * each, device=x.device) * GAMMA
    starts_SW = torch.stack([places_W + d.number for d in drawing])
    words_SBW = _mix(starts_SW[:, None] + keys_B[:, None])
    bits_SND = words_SBW.view(torch.int16).view(len(drawing), -1, LANES * each)[..., :width]
    masks = {
        id(d): _at_least(bits, d.dropped - 2**15) for d, bits in zip(drawing, bits_SND, strict=True)
    }
    return [masks.get(id(d)) for d in dropouts]


def kept(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`x` where `mask` (int16 of the same shape) has all bits, 0 where it has none.

    On a CPU a sixth of the time of `torch.where` with a bool. No gradient passes.
    """
    as_integers = x.view(INTEGERS[x.dtype])
    return as_integers.bitwise_and(mask).view(x.dtype)


def words(start: int, places: torch.Tensor) -> torch.Tensor:
    """int64, as `places`: the words number `places` (from 0) of SplitMix64 begun at `start`."""
    return _mix((places + 1) * GAMMA + start)


def random_order(keys_B: torch.Tensor, count: int, *, name: str) -> torch.Tensor:
    """int64 (B, count): for each key a random permutation of range(count)."""
    places = torch.arange(count, device=keys_B.device) * GAMMA + _number(name)
    return _mix(places + keys_B[:, None]).argsort(1)


def seed_dropouts(model: nn.Module, keys: PhotoKeys, *, text: tuple[str, ...]) -> None:
    """Put a `PhotoDropout` in the place of each adapter's `nn.Dropout` in `model`, made by PEFT.

    Layers whose names begin with one of `text` are the text tower's.
    """
    for layer_name, layer in model.named_modules():
        dropouts = getattr(layer, "lora_dropout", None)
        if not isinstance(dropouts, nn.ModuleDict):
            continue
        tower = "text" if layer_name.startswith(text) else "vision"
        for adapter, dropout in dropouts.items():
            if isinstance(dropout, nn.Dropout):
                dropouts[adapter] = PhotoDropout(
                    dropout.p, name=f"{layer_name} {adapter}", tower=tower, keys=keys
                ).train(dropout.training)


def _at_least(bits: torch.Tensor, least: int) -> torch.Tensor:
    """int16: -1 where `bits` reach `least`, else 0; in a quarter of the time of a comparison."""
    return bits.clamp(least - 1, least).neg_().add_(least - 1)


def _mix(z: torch.Tensor) -> torch.Tensor:
    """SplitMix64's output function, in the place of `z` (int64)."""
    flat = z.view(-1)
    size = PIECE * torch.get_num_threads() if z.device.type == "cpu" else len(flat)
    spare = torch.empty_like(flat[:size])
    for part in torch.split(flat, len(spare) or 1):
        shifted = spare[: len(part)]
        for shift, factor in ROUNDS:
            torch.bitwise_right_shift(part, shift, out=shifted)
            part ^= shifted.bitwise_and_(2 ** (64 - shift) - 1)  # the sign bit does not move in
            if factor != 1:
                part *= factor
    return z


def _number(text: str) -> int:
    """A number of 64 bits, signed, that belongs to `text`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)

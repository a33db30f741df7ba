"""Forward and backward of a tower's layers as two CUDA graphs: recorded once, then replayed.

On a GPU a training step of few photos is some thousand small kernels, and Python starts them more
slowly than the GPU ends them. A replay starts all at once (Nguyen et al., "Accelerating PyTorch
with CUDA Graphs", pytorch.org/blog/accelerating-pytorch-with-cuda-graphs, 2021).

A recording belongs to shapes, types and addresses. It has its own copies of what changes from
batch to batch, namely the states that go in and the keys of the dropout, and reads the adapters
where the optimizer changes them.
Shape suffixes: B batch, T tokens, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from cliptune.model.dropout import PhotoKeys

log = logging.getLogger(__name__)

Layers = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
Given = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]
# Passes before recording, in which libraries set up what must not be set up in a recording.
WARM_UP = 3
# What a replay may differ from the same kernels started one by one, as a share of the largest:
# sums may be taken in another order.
TOLERANCE = 2e-2


class Recording:
    """`layers` of `given` (states (B, T, D), attention mask, keys of dropout), and their gradient.

    `layers` must draw nothing but by the keys, and wait for nothing. `trained` are the parameters
    in it that want a gradient.
    """

    def __init__(
        self, layers: Callable[..., torch.Tensor], given: Given, trained: list[torch.Tensor]
    ) -> None:
        self.given = [None if each is None else each.detach().clone() for each in given]
        self.trained = trained
        x_BTD = self.given[0]
        assert x_BTD is not None
        self.passes_on = given[0].requires_grad  # whether what came in wants a gradient, too
        wanted = [x_BTD.requires_grad_(), *trained] if self.passes_on else trained
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                out = layers(*self.given)
                torch.autograd.grad(out, wanted, torch.ones_like(out))
        torch.cuda.current_stream().wait_stream(aside)
        del out
        self.forward_graph, self.backward_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # Errors of this thread alone: others may copy batches to the GPU meanwhile.
        with torch.cuda.graph(self.forward_graph, capture_error_mode="thread_local"):
            out = layers(*self.given)
        self.grad_out = torch.zeros_like(out)
        pool = self.forward_graph.pool()
        with torch.cuda.graph(self.backward_graph, pool=pool, capture_error_mode="thread_local"):
            grads = torch.autograd.grad(out, wanted, self.grad_out)
            self.grad_x = grads[0] if self.passes_on else None
            self.grads = torch.cat([grad.reshape(-1) for grad in grads[-len(trained) :]])
        self.out = out.detach()
        self.turn = 0

    def __call__(self, *given: torch.Tensor | None) -> torch.Tensor:
        """What `layers` give; its backward must come before the next call."""
        for own, now in zip(self.given, given, strict=True):
            if own is not None and now is not None:
                own.detach().copy_(now)
        return _Replay.apply(self, given[0], *self.trained)  # type: ignore[no-any-return, no-untyped-call]


class _Replay(Function):
    @staticmethod
    def forward(
        ctx: Any, recording: Recording, x_BTD: torch.Tensor, *trained: torch.Tensor
    ) -> torch.Tensor:
        recording.turn += 1
        ctx.recording, ctx.turn = recording, recording.turn
        recording.forward_graph.replay()
        return recording.out.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        recording = ctx.recording
        if ctx.turn != recording.turn:
            raise RuntimeError(
                "backward of a recorded forward after another one, which has overwritten what it "
                "left. Set hardware.cuda_graphs to false."
            )
        recording.grad_out.copy_(grad)
        recording.backward_graph.replay()
        # Copies: who gets a gradient keeps it, and the next replay writes into the recording's.
        grad_x = None if recording.grad_x is None else recording.grad_x.clone()
        grads = recording.grads.clone().split([p.numel() for p in recording.trained])
        shaped = [each.view_as(p) for each, p in zip(grads, recording.trained, strict=True)]
        return None, grad_x, *shaped


class Recorder:
    """Records the layers of one tower when it meets the same shapes twice in a row.

    One recording at most: other shapes, as of an epoch's last batch, are computed as ever. Where
    recording fails, or a replay differs, all is computed as ever from then on.
    """

    def __init__(self, keys: PhotoKeys, *, tower: str) -> None:
        self.keys, self.tower = keys, tower
        self.recording: Recording | None = None
        self.last: Any = None
        self.recorded: Any = None
        self.off = False

    def stop(self) -> None:
        """No recording from now on; its memory is free."""
        self.recording, self.off = None, True

    def run(
        self,
        layers: Layers,
        x_BTD: torch.Tensor,
        mask: torch.Tensor | None,
        *,
        trained: list[torch.Tensor],
        kind: Any,
    ) -> torch.Tensor:
        """`layers` of `x_BTD` and `mask`, replayed where there is a recording.

        `kind` is what else they depend on, beside shapes and types.
        """
        if self.off or not trained or not x_BTD.is_cuda or not self.keys.drawn_for(self.tower):
            return layers(x_BTD, mask)
        given = x_BTD, mask, self.keys.of(self.tower, x_BTD)
        kind = (
            kind,
            len(trained),
            x_BTD.requires_grad,
            *(g is not None and (g.shape, g.dtype) for g in given),
        )

        def by_keys(
            x_BTD: torch.Tensor, mask: torch.Tensor | None, keys_B: torch.Tensor
        ) -> torch.Tensor:
            with self.keys.taken_from(self.tower, keys_B):
                return layers(x_BTD, mask)

        if self.recording is None and kind == self.last:
            self.recorded = kind
            self._record(by_keys, given, trained)
        self.last = kind
        replayed = self.recording is not None and kind == self.recorded
        return self.recording(*given) if self.recording and replayed else layers(x_BTD, mask)

    def _record(
        self, layers: Callable[..., torch.Tensor], given: Given, trained: list[torch.Tensor]
    ) -> None:
        try:
            recording = Recording(layers, given, trained)
            if _same(recording, layers, given):
                self.recording = recording
                return
            fault = "a replay differs from what it was recorded of"
        except RuntimeError as error:  # of CUDA; memory that runs out, too
            fault = str(error)
        log.warning("hardware.cuda_graphs: the %s tower goes without: %s", self.tower, fault)
        self.stop()
        torch.cuda.empty_cache()


def _same(recording: Recording, layers: Callable[..., torch.Tensor], given: Given) -> bool:
    """Whether a replay gives what `layers` do, and their gradient, on this batch."""
    found = []
    for compute in (layers, recording):
        out = compute(*given)
        generator = torch.Generator(out.device).manual_seed(0)
        toward = torch.randn(out.shape, generator=generator, device=out.device, dtype=out.dtype)
        found.append([out.detach(), *torch.autograd.grad(out, recording.trained, toward)])
    return all(
        float((a - b).float().abs().max()) <= TOLERANCE * float(a.float().abs().max())
        for a, b in zip(*found, strict=True)
    )

"""One optimizer update: forward, backward, step.

Shape suffixes: B micro-batch, C classes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch

from cliptune.data.loading import Batch
from cliptune.errors import ImageError, TrainingError, listing
from cliptune.foreign_errors import is_out_of_memory
from cliptune.model.fast.encoder import stop_recording
from cliptune.model.fast.kept_activations import reused
from cliptune.text import counted
from cliptune.timing import section
from cliptune.training.multilabel import outcome_of_several
from cliptune.training.run import Run
from cliptune.training.several.sharing import of_all, sum_gradients, summed

log = logging.getLogger(__name__)


def step(run: Run, group: Sequence[Batch]) -> tuple[float, int, int] | None:
    """Forward, backward and one optimizer step; (summed loss, correct, correct in top 5).

    None where loss or gradient was not finite and the settings say to leave such updates out.

    Each photo weighs what `Run.loss` says of its class, and has the same dropout masks, however
    the group is cut into micro-batches: the gradient is that of the loss summed over the whole
    group, divided by its number of photos. Where memory runs out, micro-batches are cut in half,
    for the rest of the run, and the update is taken again.
    """
    accelerator, optimizer = run.accelerator, run.optimizer
    # Of all processes: their shares of a batch may differ.
    photos = int(summed([sum(map(len, group))])[0])
    run.model.train()
    while True:
        try:
            parts = [part for batch in group for part in batch.cut(run.pieces)]
            sums = _gradient(run, parts, photos=photos)
            break
        except (MemoryError, RuntimeError) as error:
            largest = max(map(len, group))
            if not is_out_of_memory(error) or run.pieces >= largest:
                raise
            run.pieces *= 2
            log.warning(
                "out of memory: going on with micro-batches of %s; each update still takes %d",
                counted(-(-largest // run.pieces), "photo"), sum(map(len, group)),
            )  # fmt: skip
        # Outside of `except`: the error's traceback holds the tensors of the failed attempt.
        optimizer.zero_grad(set_to_none=True)
        stop_recording(run.classifier.model)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    sum_gradients(run.trained)
    loss_sum, correct, top5_correct = summed(sums.tolist())
    if not math.isfinite(loss_sum):
        _leave_out(run, group, "loss", loss_sum / photos)
        return None
    with section("optimizer"):
        norm = accelerator.clip_grad_norm_(run.trained, run.settings.training.max_grad_norm)
        # A scaler of fp16 skips such a step by itself; anywhere else it would destroy the weights.
        if accelerator.scaler is None and not torch.isfinite(norm):
            _leave_out(run, group, "gradient", float(norm))
            return None
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    run.progress.skipped_in_a_row = 0
    return loss_sum, int(correct), int(top5_correct)


def _leave_out(run: Run, group: Sequence[Batch], what: str, value: float) -> None:
    """Forget this update's gradient and count it; or raise `TrainingError`, by the settings."""
    training, state = run.settings.training, run.progress
    message = _not_finite(run, group, what, value)
    run.optimizer.zero_grad(set_to_none=True)
    if training.on_nonfinite == "stop":
        raise TrainingError(message)
    state.skipped += 1
    state.skipped_in_a_row += 1
    if state.skipped_in_a_row >= training.nonfinite_limit:
        raise TrainingError(
            f"{counted(state.skipped_in_a_row, 'update')} in a row could not be used, the limit of "
            f"training.nonfinite_limit. The last: {message}"
        )
    log.warning("update %d is left out: the %s became %s", state.update + 1, what, value)


def _gradient(run: Run, group: Sequence[Batch], *, photos: int) -> torch.Tensor:
    """Add the gradient of the group's loss over `photos` to the parameters'; `_outcome`'s sums."""
    accelerator = run.accelerator
    sums = torch.zeros(3, dtype=torch.float64)
    update = run.progress.update
    for batch in group:
        with section("copy"):
            pixels = batch.pixels.to(accelerator.device, non_blocking=True)
            labels = (
                batch.labels.to(accelerator.device, non_blocking=True)
                if run.several is None
                else run.several.of(batch)
            )
        drawing = run.keys.drawing_for(
            batch.indices, view=batch.view, update=update, device=accelerator.device
        )
        with section("forward"), drawing, reused(run.frozen, batch, pixels) as (given, states):
            shifts = run.fold_shifts.of(batch.indices) if run.fold_shifts else None
            logits_BC = run.model(given, states=states, shifts=shifts)
            loss = run.loss.summed(logits_BC, labels)
        with section("backward"):
            accelerator.backward(loss / photos)
        outcome = _outcome if run.several is None else outcome_of_several
        sums += outcome(loss.detach(), logits_BC.detach(), labels)
    return sums


def _outcome(loss: torch.Tensor, logits_BC: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """float64 (3,) on the CPU: summed loss, number correct, number with the truth in the top 5."""
    ranked = logits_BC.topk(min(5, logits_BC.shape[1])).indices == labels[:, None]
    sums = torch.stack([loss.float(), ranked[:, 0].sum().float(), ranked.sum().float()])
    return sums.cpu().double()  # on the CPU: not every device has float64


def refuse_unreadable_in(run: Run, group: Sequence[Batch]) -> int:
    """A file that could be read at the start and cannot now; by the settings, an end or a line.

    Returns how many photos all processes have, and ends where there is none.
    """
    readable = int(summed([sum(map(len, group))])[0])
    unreadable = [fault for batch in group for fault in batch.unreadable]
    if not unreadable and readable:
        return readable
    lines = listing([str(fault) for fault in unreadable])
    if run.settings.data.on_bad_image == "error" or not readable:
        raise ImageError(f"unreadable images met during training:\n{lines}")
    log.warning("skipped %s:\n%s", counted(len(unreadable), "unreadable image"), lines)
    return readable


def _not_finite(run: Run, group: Sequence[Batch], what: str, value: float) -> str:
    mine = [str(run.train_samples[i].path) for batch in group for i in batch.indices.tolist()]
    paths = [path for share in of_all(mine) for path in share]
    return (
        f"the {what} became {value} in update {run.progress.update + 1}. Lower "
        "training.learning_rate, or set hardware.mixed_precision to false. "
        f"The photos of that update:\n{listing(paths, limit=8)}"
    )

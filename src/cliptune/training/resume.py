"""Everything a stopped run needs to go on as if it had not stopped.

The folder `resume/` of a checkpoint holds `state.json` (counters, history, settings) and
`tensors.safetensors` (optimizer moments, random states). The order of photos, their augmentation
and dropout are functions of the seed and need no state.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import PlainValidator, TypeAdapter, ValidationError

from cliptune.data.classes_file import CLASSES_FILE
from cliptune.data.folder import Sample
from cliptune.errors import CheckpointError, SettingsError, listing
from cliptune.foreign_errors import validation_faults
from cliptune.model.checkpoint import write_tensors
from cliptune.model.restore import read_tensors
from cliptune.training.run import Progress

# What may differ when a run goes on; everything else would make it another run.
CHANGEABLE = (
    "data.cache",  # decoded once or anew: the same bytes
    "data.num_workers",
    "data.read_timeout",
    "data.pin_memory",
    "data.data_dir",
    "evaluation.",
    "hardware.",
    "model.cache_dir",
    "model.name",  # the fingerprint of the weights decides, wherever they lie
    "model.revision",
    "output.",
    "training.early_stopping.",
    "training.nonfinite_limit",
    "training.num_epochs",
)


# Settings that earlier versions did not have.
_NEW = {"data.task", "training.recipe", "training.min_updates", "training.val_in_head"}
# And those by which a run of before them was trained as by these values.
_BEFORE: dict[str, object] = {
    "training.class_weights": "none",
    "training.sampling": "uniform",
    "training.logit_adjustment": 0.0,
}

PythonRandom = tuple[int, tuple[int, ...], float | None]  # as `random.getstate` gives it
NumpyRandom = tuple[str, list[int], int, int, float]  # as `np.random.get_state` does, but a list


@dataclass(frozen=True)
class PhotoDigest:
    """How many training photos there are, and a digest of their classes and names in order."""

    count: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class ResumeState:
    """What `state.json` holds. Earlier checkpoints lack what has a default here."""

    progress: Annotated[Progress, PlainValidator(lambda values: Progress(**values))]
    scaler: dict[str, Any] | None  # of torch's own making; None without one
    settings: dict[str, object]  # with the keys and defaults of the version that wrote them
    photos: PhotoDigest | None = None
    events: dict[str, int] = field(default_factory=dict)  # the sizes of the event files, in bytes
    precision: dict[str, str] = field(default_factory=dict)  # computed in, by kind of device
    python_random: PythonRandom
    numpy_random: NumpyRandom


def save_resume(
    checkpoint: Path,
    state: ResumeState,
    *,
    optimizer: torch.optim.Optimizer,
    random_states: Sequence[dict[str, torch.Tensor]],
    heads: Mapping[str, Mapping[str, torch.Tensor]],
) -> None:
    """Write `resume/` into the checkpoint folder.

    `random_states` are those of torch in each process, as `torch_random` gives them. `heads`: under
    "head" what the run's fitted head holds in the place of that in the checkpoint, if it is
    another, under "folds" what photos are trained against, and under "losses" those of val.
    """
    folder = checkpoint / "resume"
    folder.mkdir()
    text = json.dumps(asdict(state), indent=1)
    (folder / "state.json").write_text(text, encoding="utf-8", newline="\n")
    tensors = _optimizer_tensors(optimizer)
    for kind, values in heads.items():
        tensors |= {f"{kind}.{name}": value for name, value in values.items()}
    for process, states in enumerate(random_states):
        tensors |= {f"random.{process}.{kind}": state for kind, state in states.items()}
    write_tensors(folder / "tensors.safetensors", tensors)


def read_resume(checkpoint: Path) -> ResumeState:
    """The contents of `resume/state.json`.

    Raises `CheckpointError` when it is missing or damaged.
    """
    path = checkpoint / "resume" / "state.json"
    try:
        # Earlier checkpoints may hold NaN, which is not JSON: a figure that is not known.
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
        return TypeAdapter(ResumeState).validate_python(values)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: missing, so this checkpoint predicts but cannot be trained further"
        ) from None
    except ValidationError as error:
        faults = "; ".join(validation_faults(error)[:3])
        raise CheckpointError(f"{path}: damaged: {faults}") from None
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None


def precision_before(checkpoint: Path, device: torch.device) -> str | None:
    """What the run to go on computed in on this kind of `device`; None where it is not known."""
    return read_resume(checkpoint).precision.get(device.type)


def read_heads(checkpoint: Path, kind: str) -> dict[str, torch.Tensor]:
    """What `save_resume` was given of `heads` under `kind`; empty where there was none."""
    tensors = read_tensors(checkpoint / "resume" / "tensors.safetensors")
    return {
        name.removeprefix(f"{kind}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{kind}.")
    }


def restore_training(
    checkpoint: Path, state: ResumeState, optimizer: torch.optim.Optimizer, *, process: int = 0
) -> None:
    """Put the optimizer moments and the random states of `process` in place."""
    tensors = read_tensors(checkpoint / "resume" / "tensors.safetensors")
    numbers = optimizer.state_dict()
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        index, _, key = rest.partition(".")
        if kind == "optimizer" and index.isdecimal():
            moments.setdefault(int(index), {})[key] = tensor
    numbers["state"] = moments
    _check_moments(checkpoint, moments, optimizer)
    try:
        optimizer.load_state_dict(numbers)
        _set_torch_random(tensors, process)
        random.setstate(state.python_random)
        generator, internal, place, has_gauss, gauss = state.numpy_random
        words = np.array(internal, dtype=np.uint32)
        np.random.set_state((generator, words, place, has_gauss, gauss))
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint / 'resume'}: does not fit: {error}") from None


def _check_moments(
    checkpoint: Path, moments: dict[int, dict[str, torch.Tensor]], optimizer: torch.optim.Optimizer
) -> None:
    """Raise `CheckpointError` where a moment is not of its parameter's shape."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, values in moments.items():
        shape = parameters[index].shape if 0 <= index < len(parameters) else None
        wrong = [key for key, value in values.items() if value.ndim and value.shape != shape]
        if shape is None or wrong:
            raise CheckpointError(
                f"{checkpoint / 'resume'}: the optimizer's state does not fit the model "
                f"(parameter {index}); it is of another model or was changed"
            )


def check_settings_agree(
    checkpoint: Path, saved: dict[str, object], now: dict[str, object]
) -> None:
    """Raise `SettingsError` where a resumed run would not be the same run."""
    before, after = (_completed(flat_settings(values)) for values in (saved, now))
    for key in _NEW - before.keys():  # earlier versions had no such key, and nothing changed
        before[key] = after.get(key)
    changed = [
        f"{key}: was {before.get(key)!r}, is {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(CHANGEABLE)
    ]
    if changed:
        raise SettingsError(
            f"{checkpoint}: the run to resume had other settings:\n{listing(changed)}\n"
            "Give the same settings to go on, or start a new run in another --output-dir."
        )


def _completed(flat: dict[str, object]) -> dict[str, object]:
    """With the settings of `_BEFORE` where there is nothing of or under such a key."""
    there = tuple(key for key in _BEFORE if any(f"{each}.".startswith(f"{key}.") for each in flat))
    return {key: value for key, value in _BEFORE.items() if key not in there} | flat


def photo_digest(
    samples: Sequence[Sample], several: Sequence[tuple[int, ...]] | None = None
) -> PhotoDigest:
    """What tells whether training photos are those of before; `several` are labels of each.

    Order and augmentation follow a photo's place, so one photo more or less makes another run.
    """
    digest = hashlib.sha256()
    for place, sample in enumerate(samples):
        label = sample.label if several is None else several[place]
        digest.update(f"{label}/{sample.path.name}\0".encode())
    return PhotoDigest(len(samples), digest.hexdigest()[:16])


def check_photos_agree(checkpoint: Path, saved: PhotoDigest, now: PhotoDigest) -> None:
    """Raise `SettingsError` where training photos were added, removed or renamed since."""
    if saved != now:
        renamed = ", with other names" if saved.count == now.count else ""
        raise SettingsError(
            f"{checkpoint}: the training photos are not those of before: {saved.count} then, "
            f"{now.count} now{renamed}. Restore them, or start a new run in another --output-dir."
        )


def check_prompt_names_agree(
    checkpoint: Path, saved: Mapping[str, list[str]], now: Mapping[str, list[str]]
) -> None:
    """Raise `SettingsError` where classes.yaml puts other names into the prompts than before.

    `saved` and `now` have those classes alone that are not called by default.
    """
    changed = [
        f"{name}: was {saved.get(name, 'the default')}, is {now.get(name, 'the default')}"
        for name in sorted(saved.keys() | now.keys())
        if saved.get(name) != now.get(name)
    ]
    if changed:
        raise SettingsError(
            f"{checkpoint}: the run to resume had other names in its prompts:\n{listing(changed)}\n"
            f"Restore 'prompts' in {CLASSES_FILE} of the data folder, or start a new run in "
            "another --output-dir."
        )


def flat_settings(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings under names with dots."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"optimizer.{index}.{key}": value
        for index, moments in optimizer.state_dict()["state"].items()
        for key, value in moments.items()
    }


def torch_random() -> dict[str, torch.Tensor]:
    """The states of torch's generators in this process, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_torch_random(tensors: dict[str, torch.Tensor], process: int) -> None:
    if f"random.{process}.cpu" not in tensors:  # more processes than before
        process = 0
    if "random.cpu" in tensors:  # as earlier versions wrote it
        torch.set_rng_state(tensors["random.cpu"])
        return
    torch.set_rng_state(tensors[f"random.{process}.cpu"])
    cuda, mps = (tensors.get(f"random.{process}.{kind}") for kind in ("cuda", "mps"))
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    if mps is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(mps)


def numpy_random() -> NumpyRandom:
    """The state of numpy's global generator."""
    kind, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    return str(kind), np.asarray(keys).tolist(), int(place), int(has_gauss), float(gauss)

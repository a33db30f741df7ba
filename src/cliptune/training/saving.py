"""Checkpoints of a run: tensors, record, settings, model card, and the state to go on from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import yaml

from cliptune._version import __version__
from cliptune.data.groups import Groups
from cliptune.data.parents import Parents
from cliptune.evaluation.plots import plot_training_curves
from cliptune.evaluation.statistics.answering import fit_answers
from cliptune.evaluation.statistics.grouped import effective_count, num_groups
from cliptune.evaluation.statistics.intervals import wilson_interval
from cliptune.evaluation.statistics.label_answering import fit_label_answers
from cliptune.evaluation.statistics.metrics import top_k_hits
from cliptune.evaluation.statistics.multilabel import MultilabelMetrics
from cliptune.model.answers import Answers, class_means
from cliptune.model.checkpoint import BaseModelRecord, Record, prune_checkpoints, write_checkpoint
from cliptune.model.classifier import FittedHead, Predictions
from cliptune.model.label_answers import LabelAnswers
from cliptune.text import counted, no_markup
from cliptune.timing import section
from cliptune.training.reporting import finite
from cliptune.training.resume import (
    ResumeState,
    numpy_random,
    photo_digest,
    save_resume,
    torch_random,
)
from cliptune.training.run import Run
from cliptune.training.several.sharing import of_all
from cliptune.training.validation import Validation

BETWEEN_PICTURES = 20  # times as long as one took: of short epochs a picture each is a third
PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "Pillow", "numpy")


def save(run: Run, name: str, validation: Validation | None) -> None:
    """Write the checkpoint `name` of `run`, draw the curves if it is time, and prune old ones.

    `validation` is that at this very update, where there was one: how the checkpoint answers is
    fitted on it.
    """
    random_states = of_all(torch_random())
    head = run.classifier.head
    fitted = head.fitted_tensors() if isinstance(head, FittedHead) and run.delivered else {}
    folds = run.fold_shifts.tensors() if run.fold_shifts else {}
    losses = {}
    if run.head_losses is not None:
        losses = {key: torch.from_numpy(x) for key, x in asdict(run.head_losses).items()}
    if not run.accelerator.is_main_process:
        return
    output = run.settings.output
    answers, means_CD = None, None
    with as_delivered(run, validation):
        run.classifier.refresh_text_features()
        if validation is not None and run.several is None:
            said = validation.predictions
            means_CD = class_means(said.features[0], said.labels, num_classes=len(run.class_names))
            answers = fitted_answers(run, said)
    record = make_record(run, validation, answers)

    def write_extras(folder: Path) -> None:
        settings = run.settings.to_dict()
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        (folder / "config.yaml").write_text(text, encoding="utf-8", newline="\n")
        with _system_errors():
            run.backbone.tokenizer.save_pretrained(folder)
        run.backbone.processor.save_pretrained(folder)
        (folder / "README.md").write_text(model_card(run, record), encoding="utf-8", newline="\n")
        scaler = run.accelerator.scaler
        state = ResumeState(
            progress=run.progress,
            scaler=scaler.state_dict() if scaler is not None else None,
            settings=settings,
            photos=photo_digest(run.train_samples, run.several_labels),
            events=run.events.sizes(),
            precision={run.accelerator.device.type: run.accelerator.mixed_precision},
            python_random=random.getstate(),
            numpy_random=numpy_random(),
        )
        save_resume(
            folder, state, optimizer=run.optimizer, random_states=random_states,
            heads={"head": fitted, "folds": folds, "losses": losses},
        )  # fmt: skip

    with section("checkpoint"), as_delivered(run, validation):
        write_checkpoint(
            output.output_dir / name, run.classifier, record, means_CD=means_CD,
            photo_sums=run.photo_sums, write_extras=write_extras,
        )  # fmt: skip
        prune_checkpoints(output.output_dir, keep=output.save_total_limit)
    if validation is not None and time.monotonic() > run.next_picture:
        draw_curves(run)


@contextmanager
def as_delivered(run: Run, validation: Validation | None) -> Iterator[None]:
    """While open, the classifier is what its checkpoint holds.

    That is at the strength val was measured at, and with the head that val is in, if it joins.
    """
    head = run.classifier.head
    if not isinstance(head, FittedHead):
        yield
        return
    own = head.fitted_tensors()
    try:
        head.set_fitted(run.delivered or own)
        with run.classifier.at_strength(validation.strength if validation else 1.0):
            yield
    finally:
        head.set_fitted(own)


def fitted_label_answers(run: Run, validation: Validation | None) -> LabelAnswers | None:
    """How this state of a run with several labels answers; None as `fitted_answers`."""
    if run.several is None or validation is None:
        return None
    said = validation.predictions
    if not len(said.indices) or not np.isfinite(said.logits[0]).all():
        return None
    return fit_label_answers(
        said.logits[0], run.several.val_NC[said.indices], seed=run.settings.seed
    )


def fitted_answers(run: Run, said: Predictions) -> Answers | None:
    """How this state of the run answers, fitted on val; None where a logit is not finite."""
    if not np.isfinite(said.logits[0]).all():
        return None
    weights_CD = run.classifier.head.weights().detach().float().cpu().numpy()
    return fit_answers(
        said.logits[0], said.features[0], said.labels, weights_CD=weights_CD,
        share=run.settings.evaluation.known_share, coverage=run.settings.evaluation.coverage,
        parents=Parents(run.class_names, run.names.parents), seed=run.settings.seed,
        groups_N=None if run.val_groups_N is None else run.val_groups_N[said.indices],
    )  # fmt: skip


def draw_curves(run: Run) -> None:
    """Draw the curves of the epochs so far, where there are any, and put off the next picture."""
    if run.progress.history:
        started = time.monotonic()
        plot_training_curves(
            run.progress.history,
            run.settings.output.output_dir / "training_curves.png",
            baseline_accuracy=run.progress.baseline.get("accuracy"),
        )
        run.next_picture = time.monotonic() + BETWEEN_PICTURES * (time.monotonic() - started)


@contextmanager
def _system_errors() -> Iterator[None]:
    """Raise as `OSError` what the tokenizers library tells of the system as text."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def make_record(run: Run, validation: Validation | None, answers: Answers | None) -> Record:
    """What `cliptune.json` says of the run at this point."""
    source = run.backbone.source
    baseline = run.progress.baseline
    figures: dict[str, float | int | None] = {
        "baseline_val_accuracy": baseline.get("accuracy"),
        "baseline_val_top5_accuracy": baseline.get("top5_accuracy"),
    }
    if validation is not None:
        metrics = validation.metrics
        if isinstance(metrics, MultilabelMetrics):
            figures |= {"baseline_val_mean_ap": baseline.get("mean_ap")}
            figures |= {"val_mean_ap": metrics.mean_ap}
        figures |= {
            "val_loss": finite(metrics.loss),
            "val_accuracy": metrics.accuracy,
            "val_top5_accuracy": metrics.top5_accuracy,
            "val_images": metrics.num_images,
        }
        if run.val_groups_N is not None and run.several is None:
            figures |= _of_groups(validation.predictions, run.val_groups_N)
        if isinstance(run.classifier.head, FittedHead):
            figures["val_scaled_loss"] = finite(validation.scaled_loss)
            figures["val_criterion"] = finite(validation.criterion)
    return Record(
        class_names=list(run.class_names),
        display_names=run.names.display,
        prompt_names=run.names.prompts,
        parents=run.names.parents,
        base_model=BaseModelRecord(
            name=source.name, revision=source.revision, fingerprint=source.fingerprint
        ),
        head=run.classifier.head.kind,
        prompts=list(run.settings.model.prompts),
        lower_case=run.backbone.lower_case,
        preprocess=run.backbone.preprocess.to_dict(),
        epoch=run.progress.epoch,
        update=run.progress.update,
        strength=validation.strength if validation else 1.0,
        val_in_head=bool(run.delivered),
        without_val=not run.has_val,
        metrics=figures,
        answers=answers,
        task="single" if run.several is None else "multilabel",
        label_answers=fitted_label_answers(run, validation),
        prior=run.loss.prior_C.tolist() or None,
        versions={"cliptune": __version__, "python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
    )


def _of_groups(said: Predictions, groups_N: Groups) -> dict[str, float | int | None]:
    """How many groups val's photos belong to, and as many independent photos they are worth."""
    groups_N = groups_N[said.indices]
    right_N = top_k_hits(said.logits[0], said.labels, k=1)
    return {
        "val_groups": num_groups(groups_N),
        "val_effective_images": effective_count(right_N, groups_N),
    }


def model_card(run: Run, record: Record) -> str:
    """README.md of a checkpoint: what it is, its figures, how to use it."""
    figures = record.metrics
    count = int(figures.get("val_images") or 0)
    photos, worth, of_groups = f"{count} photos", float(count), ""
    if groups := figures.get("val_groups"):
        photos, of_groups = f"{photos} in {groups} groups", " Photos of a group count as one lot."
        worth = float(figures.get("val_effective_images") or count)
    intervals = "In brackets: 95 % intervals, of other photos like these. The"
    rows = "\n".join(
        f"| {name} | {_share(figures[f'baseline_{key}'], worth)} "
        f"| {_share(figures.get(key), worth)} |"
        for name, key in (("top-1", "val_accuracy"), ("top-5", "val_top5_accuracy"))
    )
    several = ""
    if record.task == "multilabel":
        several, intervals = ", any number of them to a photo", "The"
        before, after = figures.get("baseline_val_mean_ap"), figures.get("val_mean_ap")
        rows = f"| mAP | {_percent(before)} | {_percent(after)} |"
    lora = run.settings.lora
    classes = ", ".join(no_markup(_class_in_words(name, record)) for name in record.class_names)
    epochs, updates = counted(record.epoch, "epoch"), counted(record.update, "update")
    how = ""
    if record.strength != 1:
        how += f"\nOf what was learned since the head was fitted, {record.strength:g} counts."
    if record.val_in_head:
        how += (
            "\nIts head was fitted on the validation photos, too; the figures below are those of "
            "a head\nthat has not seen them."
        )
    return f"""---
base_model: {record.base_model.name}
library_name: peft
pipeline_tag: image-classification
tags: [cliptune, lora, clip]
---

# Image classifier of {counted(len(record.class_names), "class")}{several}

LoRA adapters (rank {lora.r}, alpha {lora.lora_alpha:g}, on {", ".join(lora.target_modules)} of the
{lora.towers} tower) and a {record.head} head on `{record.base_model.name}`, made by cliptune
{__version__} after {epochs} ({updates}, seed {run.settings.seed}).{how}

| validation split, {photos} | zero-shot | this checkpoint |
|---|---|---|
{rows}

{intervals} validation split chose the checkpoint,
so its figures lean to the good side; measure on a test split with
`cliptune evaluate --checkpoint THIS_FOLDER --data-dir DATA --split test`.{of_groups}

Classes: {classes}.

```python
from cliptune import Predictor

print(Predictor("THIS_FOLDER").predict("photo.jpg", top_k=5))
```

The adapters alone load with `peft.PeftModel.from_pretrained(base_model, "THIS_FOLDER")`; the class
weights are in `head.safetensors`, the class names in `cliptune.json`.
"""


def _class_in_words(name: str, record: Record) -> str:
    """A class name, and in brackets the name shown where it is not the default."""
    shown = record.display_names.get(name)
    return f"{name} ({shown})" if shown else name


def _percent(value: float | int | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _share(value: float | int | None, count: float) -> str:
    """A share of `count` independent photos in percent, with its interval."""
    if value is None:
        return "–"
    low, high = wilson_interval(value, count)
    return f"{100 * value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"

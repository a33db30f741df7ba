"""Weights & Biases: curves, settings, pictures; offline where no key is known."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cliptune.training.trackers.telling import Outcome, Scalar
from cliptune.training.trackers.told import Told

log = logging.getLogger(__name__)


class WeightsAndBiases:
    """A run named `run_name` in `project`; W&B's own variables (WANDB_PROJECT, WANDB_NAME,
    WANDB_MODE, WANDB_DIR, …) have the last word.

    It is sent no lines of the terminal, and neither host nor user, git or command line: they name
    people and folders. What the processor and GPU are busy with is sent.
    """

    name = "wandb"

    def __init__(self, project: str, run_name: str, *, told: Told) -> None:
        import wandb

        self.wandb: Any = wandb
        self.project = os.environ.get("WANDB_PROJECT") or project
        self.run_name = os.environ.get("WANDB_NAME") or run_name
        self.told = told

    def begin(self, settings: Mapping[str, Scalar], *, resumed: bool) -> None:
        """Start a run, or go on with the one of before; offline where W&B does not answer."""
        before = self.told.run_of(self.name)
        given = {
            "project": self.project, "name": self.run_name, "config": dict(settings),
            "id": before, "resume": "allow" if before else None, "allow_val_change": True,
            "settings": self._privately(),
        }  # fmt: skip
        if not self._knows_a_key():
            log.info("wandb: no key is known (wandb login), so it writes offline")
            self.run = self.wandb.init(mode="offline", **given)
        else:
            try:
                self.run = self.wandb.init(**given)
            except Exception as error:
                log.warning("wandb: %s. It writes offline: wandb sync sends it later.", error)
                self.run = self.wandb.init(mode="offline", **given)
        self.told.keep_run(self.name, self.run.id)

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """A row of the history; values of one step come into one row."""
        if self.told.is_new(step):
            self.run.log(dict(values), step=step)

    def picture(self, name: str, path: Path, *, step: int) -> None:
        """An image in the row that stands open: rows of earlier steps are closed for good."""
        with Image.open(path) as image:
            self.run.log({name: self.wandb.Image(image.convert("RGB"))}, commit=False)

    def reached(self, files: Sequence[Path], *, step: int) -> None:
        """Those of the files that are pictures."""
        for path in files:
            if path.suffix == ".png":
                self.picture(path.stem, path, step=step)

    def finish(self, outcome: Outcome) -> None:
        """Close; one that was stopped counts as preempted, which is to be gone on with."""
        if outcome == "stopped":
            self.run.mark_preempting()
        self.run.finish(exit_code=0 if outcome == "finished" else 1)

    def _knows_a_key(self) -> bool:
        """Whether W&B would ask for no key. A run must not wait for an answer."""
        from requests.utils import get_netrc_auth

        known = self.wandb.setup().settings
        if getattr(known, "mode", None) in ("offline", "disabled", "shared", "dryrun"):
            return True  # then it needs none
        token = getattr(known, "identity_token_file", None)
        return bool(known.api_key or token or get_netrc_auth(known.base_url))

    def _privately(self) -> Any:
        """Its settings; two names are of before version 0.19, where they began with _."""
        now = "x_disable_meta" in getattr(self.wandb.Settings, "model_fields", {})
        hidden = {f"{'x' if now else ''}_disable_meta": True}
        return self.wandb.Settings(
            console="off", host="", disable_git=True, disable_code=True, **hidden
        )

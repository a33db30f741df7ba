"""MLflow: parameters, metrics, artifacts and the state of a run, in whatever store it is set to."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cliptune.training.trackers.telling import Outcome, Scalar
from cliptune.training.trackers.told import Told

log = logging.getLogger(__name__)

LONGEST = 500  # characters of a parameter: what servers before version 2.8 take
AT_ONCE = 100  # parameters of a call
STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MLflow:
    """A run named `run_name` in `experiment`, by MLflow's own settings (MLFLOW_TRACKING_URI,
    MLFLOW_EXPERIMENT_NAME, `mlflow.set_tracking_uri`).

    By its client, not its active run: that belongs to whoever calls us.
    """

    name = "mlflow"

    def __init__(self, experiment: str, run_name: str, *, told: Told) -> None:
        from mlflow import MlflowClient

        self.client: Any = MlflowClient()
        self.experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or experiment
        self.run_name, self.told = run_name, told

    def begin(self, settings: Mapping[str, Scalar], *, resumed: bool) -> None:
        """Start a run and tell its settings, or go on with the one of before."""
        before = self.told.run_of(self.name)
        if before is not None and self._goes_on(before):
            self.run_id = before
            return
        found = self.client.get_experiment_by_name(self.experiment)
        experiment_id = found.experiment_id if found else self._new_experiment()
        run = self.client.create_run(experiment_id, run_name=self.run_name)
        self.run_id = run.info.run_id
        self.told.keep_run(self.name, self.run_id)
        self._tell_settings(settings)

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """A metric for each, at `step`."""
        if self.told.is_new(step):
            self._metrics(values, step=step)

    def picture(self, name: str, path: Path, *, step: int) -> None:
        """The artifact `name`.png."""
        with Image.open(path) as image:
            self.client.log_image(self.run_id, image.convert("RGB"), f"{name}.png")

    def reached(self, files: Sequence[Path], *, step: int) -> None:
        """The files as artifacts."""
        for path in files:
            self.client.log_artifact(self.run_id, str(path))

    def finish(self, outcome: Outcome) -> None:
        """What became of it."""
        self.client.set_terminated(self.run_id, STATUS[outcome])

    def _goes_on(self, run_id: str) -> bool:
        """Whether the run is still there, and runs again now."""
        try:
            self.client.update_run(run_id, status="RUNNING")
        except Exception as error:  # of its store or network; a new run asks them again
            log.warning("mlflow: run %s cannot be gone on with (%s): a new one begins",
                        run_id, error)  # fmt: skip
            return False
        return True

    def _new_experiment(self) -> str:
        try:
            return str(self.client.create_experiment(self.experiment))
        except Exception:  # another run may have made it just now
            if found := self.client.get_experiment_by_name(self.experiment):
                return str(found.experiment_id)
            raise

    def _tell_settings(self, settings: Mapping[str, Scalar]) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:LONGEST]) for key, value in settings.items()]
        for start in range(0, len(params), AT_ONCE):
            self.client.log_batch(self.run_id, params=params[start : start + AT_ONCE])

    def _metrics(self, values: Mapping[str, float], *, step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(key, float(value), now, step) for key, value in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

"""A run, and a server of it that tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cliptune.config import load_settings
from cliptune.training.train import train
from servers import Served, served


def trained(folder: Path, photos: Path, model: Path, **changes: Any) -> Path:
    overrides: dict[str, Any] = {
        "model.name": str(model), "data.data_dir": str(photos), "data.num_workers": 0,
        "training.num_epochs": 2, "training.min_updates": 0, "training.learning_rate": 1e-2,
        "training.batch_size": 8, "output.output_dir": str(folder / "run"),
        "output.log_dir": str(folder / "logs"), "hardware.device": "cpu",
        "hardware.mixed_precision": False,
    }  # fmt: skip
    return train(load_settings(overrides=overrides | changes), progress=False).output_dir


@pytest.fixture(scope="package")
def run_dir(clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("serving"), photos, clip_folder)


@pytest.fixture(scope="package")
def server(run_dir: Path) -> Iterator[Served]:
    with served(run_dir, "--max-bytes", "200000", "--max-pixels", "10000000", "--max-photos", "3",
                "--timeout", "4", "--log-json") as running:  # fmt: skip
        yield running

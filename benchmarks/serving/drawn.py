"""Something to serve where nobody named a run."""

from __future__ import annotations

from pathlib import Path


def drawn(scratch: Path) -> tuple[Path, Path]:
    """A run on drawings, and the drawings."""
    from cliptune.config import load_settings
    from cliptune.demo.drawings import draw_dataset
    from cliptune.demo.run import COUNTS, HOME
    from cliptune.training.train import train

    draw_dataset(scratch / "drawings", counts=COUNTS, seed=0)
    settings = {
        "model.name": str(HOME / "model"), "data.data_dir": str(scratch / "drawings"),
        "training.num_epochs": 1, "training.min_updates": 0, "output.trackers": [],
        "output.output_dir": str(scratch / "run"), "output.log_dir": str(scratch / "logs"),
    }  # fmt: skip
    return train(load_settings(overrides=settings)).output_dir, scratch / "drawings" / "test"

"""The whole road on drawn dogs: prepare, train, evaluate, predict."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from cliptune.config import load_settings
from cliptune.data.image_files import find_images
from cliptune.demo.drawings import DEMO_BREEDS, draw_dataset
from cliptune.errors import Interrupted, UserError
from cliptune.evaluation.evaluate import evaluate
from cliptune.evaluation.report import Evaluation
from cliptune.inference.output import open_output
from cliptune.inference.prediction import Prediction
from cliptune.inference.predictor import Predictor
from cliptune.language import translated as _
from cliptune.storage import folder_here
from cliptune.text import command
from cliptune.training.reporting import clock
from cliptune.training.train import train

log = logging.getLogger(__name__)

HOME = Path(__file__).parent
COUNTS = {"train": 100, "val": 20, "test": 20}  # drawings of each breed


@dataclass(frozen=True)
class DemoResult:
    """What the demo made and reached."""

    output_dir: Path
    data_dir: Path
    checkpoint: Path
    evaluation: Evaluation
    example: Prediction
    predictions: Path
    seconds: float

    def lines(self) -> list[tuple[str, str]]:
        """(what, value) for the final table."""
        tuned, baseline = self.evaluation.tuned, self.evaluation.baseline
        before = _("{before:.1%} zero-shot → ").format(before=baseline.accuracy) if baseline else ""
        return [
            (_("test accuracy"), before + _("{figure:.1%} tuned").format(figure=tuned.accuracy)),
            (_("time"), _("{time} in all").format(time=clock(self.seconds))),
            (_("drawings"), str(self.data_dir)),
            (_("checkpoint"), str(self.checkpoint)),
            (_("curves"), str(self.output_dir / "run" / "training_curves.png")),
            (_("report"), str(self.output_dir / "evaluation" / "report.html")),
            (_("predictions"), str(self.predictions)),
        ]


def run_demo(output_dir: Path | str = "demo_run", *, seed: int = 42) -> DemoResult:
    """Draw ten breeds, train on them, evaluate on drawings used for nothing else, predict.

    Drawings of an earlier demo with the same seed are used again; its run is replaced.
    Raises `UserError` where `output_dir` holds something else.
    """
    started = time.perf_counter()
    output_dir = folder_here(output_dir, "--output-dir")
    data_dir = output_dir / f"drawings-{seed}"
    if output_dir.exists() and not any(output_dir.glob("drawings-*")) and any(output_dir.iterdir()):
        raise UserError(
            f"{output_dir}: this folder holds other files. Choose a new one with --output-dir."
        )
    if not data_dir.exists():
        log.info("drawing %d dogs of %d breeds", sum(COUNTS.values()) * 10, len(DEMO_BREEDS))
        output_dir.mkdir(parents=True, exist_ok=True)
        draw_dataset(data_dir, counts=COUNTS, seed=seed)
    settings = load_settings(
        HOME / "config.yaml",
        overrides={
            "model.name": str(HOME / "model"),
            "data.data_dir": str(data_dir),
            "output.output_dir": str(output_dir / "run"),
            "output.log_dir": str(output_dir / "logs"),
        },
    )
    try:
        result = train(settings, overwrite=True)
    except Interrupted:
        raise Interrupted(
            "stopped. The same command starts the demo anew; the drawings are kept."
        ) from None
    log.info("evaluating on the test split, which nothing was chosen on")
    evaluation = evaluate(
        result.output_dir,
        data_dir=data_dir,
        split="test",
        output_dir=output_dir / "evaluation",
        command=command(
            "cliptune", "evaluate", "--checkpoint", result.output_dir, "--data-dir", data_dir
        ),
    )
    predictor = Predictor(result.output_dir)
    predictions = output_dir / "predictions.csv"
    images = find_images(data_dir / "test")
    with open_output(predictions, top_k=3) as write:
        for prediction in predictor.stream(images, top_k=3):
            write(prediction)
    return DemoResult(
        output_dir=output_dir,
        data_dir=data_dir,
        checkpoint=predictor.checkpoint,
        evaluation=evaluation,
        example=predictor.predict(images[0], top_k=3),
        predictions=predictions,
        seconds=time.perf_counter() - started,
    )

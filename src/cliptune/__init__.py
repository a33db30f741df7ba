"""Fine-tune CLIP-family models with LoRA into image classifiers you can trust.

    from cliptune import load_settings, train, evaluate, Predictor

    result = train(load_settings(overrides={"data.data_dir": "data/dogs"}))
    evaluation = evaluate(result.output_dir, data_dir="data/dogs", split="test")
    print(Predictor(result.output_dir).predict("photo.jpg").label)

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cliptune._version import __version__

if TYPE_CHECKING:
    from cliptune.checking.check import CheckResult, check
    from cliptune.config import Settings, load_settings
    from cliptune.demo.run import run_demo
    from cliptune.editing.change import ClassChange, add_class, remove_class
    from cliptune.errors import CliptuneError, UserError
    from cliptune.estimator.classifier import CliptuneClassifier
    from cliptune.evaluation.comparison.compare import compare
    from cliptune.evaluation.comparison.comparison import Comparison
    from cliptune.evaluation.comparison.multilabel import MultilabelComparison
    from cliptune.evaluation.evaluate import evaluate
    from cliptune.evaluation.multilabel.evaluate import evaluate_multilabel
    from cliptune.evaluation.multilabel.measured import MultilabelEvaluation
    from cliptune.evaluation.report import Evaluation
    from cliptune.inference.pipeline import pipeline
    from cliptune.inference.prediction import ClassScore, Prediction
    from cliptune.inference.predictor import Predictor
    from cliptune.preparing.prepare import prepare
    from cliptune.sharing.push import Push, push
    from cliptune.training.reporting import TrainResult
    from cliptune.training.train import train

__all__ = [
    "CheckResult",
    "ClassChange",
    "ClassScore",
    "CliptuneClassifier",
    "CliptuneError",
    "Comparison",
    "Evaluation",
    "MultilabelComparison",
    "MultilabelEvaluation",
    "Prediction",
    "Predictor",
    "Push",
    "Settings",
    "TrainResult",
    "UserError",
    "__version__",
    "add_class",
    "check",
    "compare",
    "evaluate",
    "evaluate_multilabel",
    "load_settings",
    "pipeline",
    "prepare",
    "push",
    "remove_class",
    "run_demo",
    "train",
]

_HOMES = {
    "CheckResult": "cliptune.checking.check",
    "ClassChange": "cliptune.editing.change",
    "ClassScore": "cliptune.inference.prediction",
    "CliptuneClassifier": "cliptune.estimator.classifier",
    "CliptuneError": "cliptune.errors",
    "Comparison": "cliptune.evaluation.comparison.comparison",
    "Evaluation": "cliptune.evaluation.report",
    "MultilabelComparison": "cliptune.evaluation.comparison.multilabel",
    "MultilabelEvaluation": "cliptune.evaluation.multilabel.measured",
    "Prediction": "cliptune.inference.prediction",
    "Predictor": "cliptune.inference.predictor",
    "Push": "cliptune.sharing.push",
    "Settings": "cliptune.config",
    "TrainResult": "cliptune.training.reporting",
    "UserError": "cliptune.errors",
    "add_class": "cliptune.editing.change",
    "check": "cliptune.checking.check",
    "compare": "cliptune.evaluation.comparison.compare",
    "evaluate": "cliptune.evaluation.evaluate",
    "evaluate_multilabel": "cliptune.evaluation.multilabel.evaluate",
    "load_settings": "cliptune.config",
    "pipeline": "cliptune.inference.pipeline",
    "prepare": "cliptune.preparing.prepare",
    "push": "cliptune.sharing.push",
    "remove_class": "cliptune.editing.change",
    "run_demo": "cliptune.demo.run",
    "train": "cliptune.training.train",
}


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'cliptune' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__

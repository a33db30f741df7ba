"""Several labels to a photo: what zero-shot CLIP, a head, and a head with adapters are worth.

    python benchmarks/labels/multilabel.py PHOTOS MODEL --seeds 0 1 2 3 4

Of PHOTOS (train/, val/, test/ with a folder for each class) contact sheets are made anew for each
seed (`sheets.py`), and a classifier is trained on them with the settings' defaults but for
`--epochs`. Test is measured once for each seed, when the run is over; which checkpoint stands for
head and adapters is chosen on val.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from labels.sheets import make_sheets

from cliptune import evaluate_multilabel, train
from cliptune.config import load_settings

FIGURES = ("mean_ap", "micro_f1", "macro_f1", "exact")


def measured(photos: Path, model: str, *, seed: int, epochs: int) -> dict[str, list[float]]:
    """By name of the classifier: its figures on test, in percent."""
    with tempfile.TemporaryDirectory() as scratch:
        sheets = Path(scratch, "sheets")
        make_sheets(photos, sheets, seed=seed)
        settings = load_settings(
            overrides={
                "model.name": model, "data.data_dir": str(sheets), "data.num_workers": 0,
                "training.num_epochs": epochs, "output.output_dir": str(Path(scratch, "run")),
                "output.log_dir": str(Path(scratch, "logs")), "data.cache_dir": scratch,
                "output.save_total_limit": 100, "seed": seed,
            }
        )  # fmt: skip
        result = train(settings, progress=False)
        assert result.best is not None
        found = {}
        places = {"head": result.output_dir / "checkpoint-epoch-0", "adapters": result.best.path}
        for name, path in places.items():
            said = evaluate_multilabel(path, output_dir=None, num_workers=0, progress=False)
            found[name] = [100 * getattr(said.figures, figure).value for figure in FIGURES]
            if said.baseline is not None:
                found["zero-shot"] = [100 * said.baseline.value]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        rows.append(measured(options.photos, options.model, seed=seed, epochs=options.epochs))
        said = {name: [round(value, 1) for value in values] for name, values in rows[-1].items()}
        print(f"seed {seed}: {said}", flush=True)
    print(f"| classifier | {' | '.join(FIGURES)} |\n|{'---|' * (len(FIGURES) + 1)}")
    for name in ("zero-shot", "head", "adapters"):
        values = np.array([row[name] for row in rows])
        spread = values.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(values.shape[1])
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(values.mean(axis=0), spread, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

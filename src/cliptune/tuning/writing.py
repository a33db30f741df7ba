"""Write a search to its folder: figures, the best settings, a picture."""

from __future__ import annotations

import json

import yaml

from cliptune.evaluation.plots import SearchedSetting, plot_search
from cliptune.evaluation.writing import write_text
from cliptune.tuning.tuning import Tuning

PANELS = 3  # settings in the picture


def write_tuning(tuning: Tuning, *, picture: bool = False) -> None:
    """`tuning.json`, `best_config.yaml` once there is a best trial and, if asked, `tuning.png`."""
    folder = tuning.output_dir
    text = json.dumps(tuning.to_dict(), indent=2, ensure_ascii=False)
    write_text(folder / "tuning.json", text + "\n")
    best = tuning.best
    if best is not None:
        values = tuning.settings_of(best).to_dict()
        config = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        figure = f"val loss {best.val_loss:.4f}"
        if best.val_mean_ap is not None:
            figure = f"mAP on val {best.val_mean_ap:.2%}"
        head = f"# Trial {best.number} of {len(tuning.trials)}, {figure}.\n"
        write_text(folder / "best_config.yaml", head + config)
        if picture:
            _draw(tuning)


def _draw(tuning: Tuning) -> None:
    drawn = [trial for trial in tuning.trials if tuning.cost(trial) is not None]
    keys = [*tuning.importances, *(k for k in tuning.spaces if k not in tuning.importances)]
    numbers = [tuning.numbers_of(trial) for trial in drawn]
    settings = [
        SearchedSetting(key, [n.get(key) for n in numbers], log=tuning.spaces[key].log)
        for key in keys[:PANELS]
    ]
    default, best = tuning.default, tuning.best
    plot_search(
        [trial.number for trial in drawn],
        [tuning.cost(trial) or 0.0 for trial in drawn],
        [trial.state == "complete" for trial in drawn],
        settings,
        tuning.output_dir / "tuning.png",
        default_loss=None if default is None else tuning.cost(default),
        best=None if best is None else best.number,
        **({"what": "1 less mAP on val", "unit": "of 1"} if tuning.several else {}),
    )

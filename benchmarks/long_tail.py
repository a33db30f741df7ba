"""What evening out uneven classes is worth: a long tail cut from a folder, each option beside none.

    python benchmarks/long_tail.py --data dogs10 --model MODEL \\
        --prompt "a photo of a {}, a type of dog." --set training.num_epochs=3

By seed, chance says which classes are rare: 100, 60, 36, 21, 13, 8, 5, 3, 3 and 3 photos of ten,
and along the same curve of any other number. Every option trains on the same photos, from the same
seed, to the last epoch, and is measured on photos of val. Four a class of them are kept apart for
the temperature, and choose nothing. The last row is the default, answering by `--prior uniform`.
Writes a table in Markdown to --output.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cliptune import evaluate
from cliptune.config import TEXT_KEYS, load_settings
from cliptune.config_source import parse_override
from cliptune.data.folder import load_split, scan_classes
from cliptune.data.loading import PhotoDataset, make_loader
from cliptune.evaluation.statistics.figures import FullMetrics, full_metrics
from cliptune.model.classifier import predict_logits
from cliptune.training.head.fitting import fit_head
from cliptune.training.head.logistic import directions
from cliptune.training.setup import set_up
from cliptune.training.train import train
from cliptune.training.uneven import uneven_loss

CALIBRATING = 4  # photos of a class
TAIL = (100, 60, 36, 21, 13, 8, 5, 3, 3, 3)
DEFAULT = "default"
OPTIONS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "`class_weights: balanced`": {"training.class_weights": "balanced"},
    "`sampling: balanced`": {"training.sampling": "balanced"},
    "`logit_adjustment: 0.5`": {"training.logit_adjustment": 0.5},
    "`logit_adjustment: 1`": {"training.logit_adjustment": 1.0},
}
PRIOR = "default, `--prior uniform`"
# Balanced accuracy, macro-F1, mean recall of the frequent half and of the rare half, in percent.
Row = tuple[float, float, float, float]


def counts_of(num_classes: int) -> list[int]:
    """Photos of each class, the most frequent first: `TAIL`, or read off its curve."""
    places = np.linspace(0, len(TAIL) - 1, num_classes)
    curve = np.exp(np.interp(places, np.arange(len(TAIL)), np.log(TAIL)))
    counts: list[int] = np.rint(curve).astype(int).tolist()
    return counts


def cut(data: Path, folder: Path, *, seed: int) -> list[str]:
    """Link the tail of `data` into `folder`; the classes, the most frequent first.

    Of its val, some are val of `folder`, and the others, to be measured, test.
    """
    classes, held_out = scan_classes(data / "train"), scan_classes(data / "val")
    rng = np.random.default_rng(seed)
    names = [sorted(classes)[i] for i in rng.permutation(len(classes))]
    for name, count in zip(names, counts_of(len(names)), strict=True):
        chosen = rng.permutation(len(classes[name]))[:count]
        mixed = rng.permutation(len(held_out[name]))
        for split, photos in (
            ("train", [classes[name][i] for i in chosen]),
            ("val", [held_out[name][i] for i in mixed[:CALIBRATING]]),
            ("test", [held_out[name][i] for i in mixed[CALIBRATING:]]),
        ):
            (folder / split / name).mkdir(parents=True)
            for photo in photos:
                (folder / split / name / photo.name).symlink_to(photo.resolve())
    return names


def row_of(figures: FullMetrics, frequent: Sequence[bool]) -> Row:
    """Of one model; `frequent` says for each class whether it is of the frequent half."""
    recall = np.array([np.nan if each is None else each.value for each in figures.recall])
    often = np.array(frequent)
    return (
        100 * figures.balanced_accuracy.value,
        100 * figures.macro_f1.value,
        100 * float(np.nanmean(recall[often])),
        100 * float(np.nanmean(recall[~often])),
    )


def measure(data: Path, overrides: dict[str, Any], *, seed: int) -> dict[str, Row]:
    """Option -> its figures, of one seed."""
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        names = cut(data, folder, seed=seed)
        for option, more in OPTIONS.items():
            started = time.perf_counter()
            settings = load_settings(
                overrides=overrides
                | {
                    "data.data_dir": str(folder), "seed": seed,
                    "training.early_stopping.enabled": False, "output.save_total_limit": 1,
                    "output.output_dir": f"{place}/run-{len(rows)}",
                    "output.log_dir": f"{place}/logs", "output.trackers": [],
                }
                | more
            )  # fmt: skip
            last = train(settings, progress=False).last
            assert last is not None
            answers = {option: None, PRIOR: "uniform"} if option == DEFAULT else {option: None}
            for answered, prior in answers.items():
                found = evaluate(
                    last.path, data_dir=folder, split="test", output_dir=None, prior=prior,
                    baseline=option == DEFAULT, num_workers=0, progress=False,
                )  # fmt: skip
                half = set(names[: len(names) // 2])
                frequent = [name in half for name in found.class_names]
                rows[answered] = row_of(found.figures, frequent)
                if found.baseline_figures is not None:
                    rows["zero-shot"] = row_of(found.baseline_figures, frequent)
            seconds = time.perf_counter() - started
            print(f"seed {seed}  {option}  {rows[option]}  {seconds:.0f} s", flush=True)
    return rows


def measure_heads(data: Path, overrides: dict[str, Any], *, seed: int) -> dict[str, Row]:
    """Option -> the figures of the head fitted first, before any adapter."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        names = cut(data, folder, seed=seed)
        base = overrides | {"data.data_dir": str(folder), "seed": seed, "data.cache": False}
        run = set_up(load_settings(overrides=base), progress=False)
        train_split = load_split(folder, "train", class_names=run.class_names)
        said = []
        for split in (train_split, load_split(folder, "test", class_names=run.class_names)):
            photos = PhotoDataset(split.samples, run.backbone.preprocess)
            loader = make_loader(photos, batch_size=32)
            said.append(predict_logits([run.classifier], loader, run.accelerator.device))
    seen, new = said
    half = set(names[: len(names) // 2])
    frequent = [name in half for name in run.class_names]
    text_CD = run.zero_shot.features.double().numpy()
    scale = run.zero_shot.logit_scale.exp().item()
    zero_NC = scale * directions(new.features[0]) @ text_CD.T
    rows = {"zero-shot": row_of(full_metrics(zero_NC, new.labels, seed=0), frequent)}
    for option, more in OPTIONS.items():
        loss = uneven_loss(load_settings(overrides=base | more).training, train_split)
        fit = fit_head(
            seen.features[0], seen.labels, text_CD, scale, seed=seed,
            projection_DH=run.backbone.model.visual_projection.weight.detach().double().numpy(),
            shifts_C=loss.shifts_for(seen.labels),
        )  # fmt: skip
        logits_NC = fit.logits(new.features[0])
        rows[option] = row_of(full_metrics(logits_NC, new.labels, seed=0), frequent)
        if option == DEFAULT:
            flat_NC = logits_NC - np.log(loss.prior_C)
            rows[PRIOR] = row_of(full_metrics(flat_NC, new.labels, seed=0), frequent)
        print(f"seed {seed}  {option}  {rows[option]}", flush=True)
    return rows


def table(found: Sequence[dict[str, Row]]) -> str:
    """Means over seeds, and the difference of each seed's balanced accuracy to the default's."""
    order = ["zero-shot", *OPTIONS, PRIOR]
    lines = [
        "| training | balanced accuracy | less the default, by seed | macro-F1 "
        "| recall, frequent half | rare half |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for option in order:
        means = np.mean([rows[option] for rows in found], axis=0)
        gains = [rows[option][0] - rows[DEFAULT][0] for rows in found]
        apart = "" if option == DEFAULT else " ".join(f"{gain:+.1f}" for gain in gains)
        cells = [f"{means[0]:.1f}", apart, *(f"{mean:.1f}" for mean in means[1:])]
        lines.append(f"| {option} | {' | '.join(cells)} |")
    return "\n".join(lines)


def machine() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown processor"
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "?")


def main() -> None:
    """Measure every option and seed, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="holds train/ and val/")
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", default="a photo of a {}.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--heads", action="store_true", help="the head fitted first, no adapters")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results" / "long-tail.md"
    )
    given = parser.parse_args()
    overrides = {"model.name": given.model, "model.prompts": [given.prompt], "data.num_workers": 0}
    overrides |= dict(parse_override(text, as_written=TEXT_KEYS) for text in given.set)
    started = time.perf_counter()
    way = measure_heads if given.heads else measure
    found = [way(given.data, overrides, seed=seed) for seed in range(given.seeds)]
    minutes = (time.perf_counter() - started) / 60
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()  # fmt: skip
    words = [given.data.name if word == str(given.data) else word for word in sys.argv[1:]]
    words = [Path(word).name if word == given.model else word for word in words]
    classes = scan_classes(given.data / "val")
    measured = sum(len(photos) - CALIBRATING for photos in classes.values())
    tail = ", ".join(map(str, counts_of(len(classes))))
    given.output.write_text(
        f"""# Uneven classes

`python benchmarks/long_tail.py {shlex.join(words)}`, commit {commit},
{datetime.now(UTC):%Y-%m-%d}, seeds 0 to {given.seeds - 1} (of the tail and of training),
{minutes:.0f} minutes on one thread of {machine()}.

{tail} photos of {len(classes)} classes of {given.data.name}. In percent, means over seeds,
on {measured} photos of its val, which chose nothing.

{table(found)}
""",
        encoding="utf-8",
    )
    print(given.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

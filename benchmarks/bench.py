"""Measure speed as ratios: contestants side by side, in turns, in one run. `make bench`.

    python benchmarks/bench.py                    every row of the table
    python benchmarks/bench.py --rows step data   some of them
    python benchmarks/bench.py --curves           cost and memory against one thing at a time
    python benchmarks/bench.py --rows training    whole runs: 10 epochs of 1,000 photos
    python benchmarks/bench.py --device cuda      on a GPU, in bfloat16; under ten minutes
    python benchmarks/bench.py --batch 256 --rows step-bf16           more photos in a step
    python benchmarks/bench.py --patch-size 16 --rows step-bf16 bound      197 tokens in place of 50
    python benchmarks/bench.py --against CHECKOUT --rows before       another commit beside this one

Each contestant runs in a process of its own (`contestants.py`) and waits while another works.
Results go to benchmarks/results/*.json; a table is printed. Nothing is downloaded: the model is
ViT-B/32's architecture with random weights, photos are drawn.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inputs import lay_out_training, prepare

HERE = Path(__file__).parent

# row: (what, our contestant, its rival, options, at least, aim); ratio = rival's time / our time.
# The precision is the rival's; ours is the best of the machine.
ROWS: dict[str, tuple[str, str, str, dict[str, str], float, float]] = {
    "step": ("training step, 10 classes, against PEFT in float32",
             "ours", "peft_loop", {"precision": "float32"}, 2.0, 2.8),
    "step-bf16": ("training step, 10 classes, against PEFT under bf16 autocast",
                  "ours", "peft_loop", {"precision": "bfloat16"}, 2.5, 3.5),
    "step-trainer": ("training step, 10 classes, against HF Trainer + PEFT",
                     "ours", "hf_trainer", {"precision": "best"}, 1.25, 1.6),
    "bound": ("the step's matrix products alone, as a share of our step",
              "ours", "products", {"precision": "best"}, 0.45, 0.65),
    "step-120": ("training step, 120 classes, both towers, against PEFT padded to 77",
                 "ours", "peft_loop",
                 {"classes": "120", "towers": "both", "precision": "float32"}, 3.0, 4.0),
    "predict": ("prediction over a folder (500×375 JPEG), against transformers' pipeline, float32",
                "our_prediction", "pipeline", {"precision": "float32"}, 3.0, 5.0),
    "predict-bf16": ("the same, the pipeline in bf16",
                     "our_prediction", "pipeline", {"precision": "bfloat16"}, 1.5, 2.0),
    "predict-forwards": ("its forwards alone, as a share of it",
                         "our_prediction", "forwards", {"precision": "best"}, 0.8, 0.95),
    "predict-decoding": ("its decoding alone, as a share of it",
                         "our_prediction", "decoding", {"precision": "best"}, 0.0, 0.0),
    "data": ("data alone, epoch 2 onward, against PIL + CLIPImageProcessor",
             "our_loader", "processor_loader", {}, 5.0, 10.0),
}  # fmt: skip
# what changes: (who works, its values). "none" is the default step, for comparison.
CURVES = {
    "none": ("ours", ["default"]),
    "classes": ("ours", ["100", "1000"]),
    "rank": ("ours", ["4", "16", "64"]),
    "batch": ("ours", ["8", "16", "64"]),
    "resolution": ("ours", ["128", "160", "288"]),
    "last_layers": ("ours", ["2", "4", "8"]),
    "patch_dropout": ("ours", ["0.25", "0.5", "0.75"]),
    "photos": ("our_loader", ["64", "128", "256"]),
    "workers": ("our_loader", ["0", "1", "2", "4"]),
}
GPU_BATCHES = ["32", "256", "1024"]
# The tutorial's fifteen minutes on an RTX 3070, and a minute on a data-centre card.
TRAINING = {"cpu": (1_000, 900.0, 450.0), "cuda": (10_000, 60.0, 60.0)}


class Contestant:
    """A waiting process that does its work once when told."""

    def __init__(
        self, name: str, folder: Path, options: dict[str, str], *, source: Path | None = None
    ) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.items = 0
        command = [sys.executable, HERE / "contestants.py", name, folder]
        self.process = subprocess.Popen(
            [*command, *(f"{key}={value}" for key, value in options.items())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=None if source is None else os.environ | {"PYTHONPATH": str(source)},
        )  # fmt: skip

    def wait(self) -> None:
        """Until it has done its work once, unmeasured."""
        self._answer("ready")

    def repeat(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = json.loads(self._answer())
        self.seconds.append(answer["seconds"])
        self.items = answer["items"]

    def finish(self) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.close()
        peak = json.loads(self._answer())["peak_bytes"]
        self.process.wait()
        each = [seconds / self.items for seconds in self.seconds]
        return {
            "contestant": self.name,
            "items": self.items,
            "median_s": statistics.median(self.seconds),
            "min_s": min(self.seconds),
            "max_s": max(self.seconds),
            "items_per_second": 1 / statistics.median(each),
            "peak_mib": round(peak / 2**20),
        }

    def _answer(self, expected: str | None = None) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        if not line or (expected and line != expected):
            raise SystemExit(f"{self.name}: failed; run contestants.py {self.name} to see why")
        return line


def race(
    entries: list[tuple[str, dict[str, str]]],
    folder: Path,
    times: int,
    *,
    sources: Sequence[Path | None] | None = None,
) -> list[Any]:
    """Let contestants (name, options) work in turns, `times` each; their figures in that order.

    `sources`: for each where its `cliptune` lies; None, this checkout's.
    """
    contestants = [
        Contestant(name, folder, options, source=source)
        for (name, options), source in zip(entries, sources or [None] * len(entries), strict=True)
    ]
    for contestant in contestants:
        contestant.wait()
    for _ in range(times):
        for contestant in contestants:
            contestant.repeat()
    return [contestant.finish() for contestant in contestants]


def start_up(folder: Path, times: int) -> list[dict[str, Any]]:
    """`cliptune predict` of one photo, and loading the same weights by hand, process by process."""
    photo = next((folder / "photos").rglob("*.jpg"))
    by_hand = (
        "import sys, torch; from transformers import CLIPModel as M; M.from_pretrained(sys.argv[1])"
    )
    commands = {
        "cliptune predict": [sys.executable, "-m", "cliptune", "predict", "--checkpoint",
                             folder / "run", "--image", photo],
        "import and load": [sys.executable, "-c", by_hand, folder / "model"],
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(times + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    return [
        {"contestant": name, "items": 1, "median_s": statistics.median(values[1:]),
         "min_s": min(values[1:]), "max_s": max(values[1:])}
        for name, values in seconds.items()
    ]  # fmt: skip


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    names = ("torch", "transformers", "peft", "accelerate", "Pillow", "numpy")
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.processor(),
    )  # fmt: skip
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "precision": best_precision(device),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "python": platform.python_version(),
    } | {name: importlib.metadata.version(name) for name in names}


def best_precision(device: str) -> str:
    """What cliptune computes in on `device`, as torch names it."""
    import torch

    from cliptune.model.device import precision_for

    return {"bf16": "bfloat16", "fp16": "float16"}.get(
        precision_for(torch.device(device), "auto"), "float32"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*ROWS, *SHOWN_ALONE]
    parser.add_argument("--rows", nargs="*", choices=names)
    parser.add_argument("--curves", action="store_true", help="cost against one thing at a time")
    parser.add_argument("--times", type=int, default=5, help="repetitions of each contestant")
    parser.add_argument("--photos", type=int, default=256, help="photos in the folder")
    parser.add_argument("--batch", default="32", help="photos in a step of the rows of steps")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--patch-size", type=int, default=32, help="of the random ViT-B")
    parser.add_argument("--model", type=Path, help="a CLIP in the place of a random one")
    parser.add_argument("--against", type=Path, help="another checkout, for the row 'before'")
    parser.add_argument("--work-dir", type=Path, help="keep the inputs here between runs")
    parser.add_argument("--output-dir", type=Path, default=HERE / "results")
    given = parser.parse_args()
    if given.rows is None:
        on_gpu = ["step", "step-bf16", "step-120", "bound", "utilisation", "memory", "training"]
        given.rows = on_gpu if given.device == "cuda" else [*ROWS, "start"]

    about = machine(given.device)
    best = best_precision(given.device)
    results: dict[str, Any] = {
        "machine": about, "photos": given.photos, "batch": given.batch, "rows": {}, "curves": {},
    }  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.work_dir or Path(scratch)
        if not (folder / "run").is_dir():
            prepare(
                folder, photos=given.photos, patch_size=given.patch_size, given_model=given.model
            )
        print("| what | ours | other | ratio | at least | aim |\n|---|---|---|---|---|---|")
        for row in given.rows:
            if row == "before":
                if given.against is None:
                    parser.error("the row 'before' asks for --against CHECKOUT")
                results["rows"][row] = before(folder, best, given.against, given.times)
                continue
            if row in OTHER_ROWS:
                results["rows"][row] = OTHER_ROWS[row](folder, given.device, best)
                continue
            if row == "start":
                what, least, aim = (
                    "`predict` of one photo, share of importing and loading",
                    0.9,
                    0.7,
                )
                figures = start_up(folder, given.times)
                ratio = figures[0]["median_s"] / figures[1]["median_s"]  # lower is better
            else:
                what, us, them, options, least, aim = ROWS[row]
                if options.get("precision") == "bfloat16" and best == "float32":
                    print(f"| {what} | – | – | not measured: no faster here | {least} | {aim} |")
                    continue
                options = options | {"device": given.device, "batch": given.batch}
                theirs = options.get("precision", best).replace("best", best)
                entries = [(us, {"precision": best}), (them, {"precision": theirs})]
                entries = [(name, options | precision) for name, precision in entries]
                figures = race(entries, folder, given.times)
                per_item = [f["median_s"] / f["items"] for f in figures]
                ratio = per_item[1] / per_item[0]
            results["rows"][row] = {"what": what, "ratio": ratio, "figures": figures}
            cells = [f"{f['median_s']:.2f} s ({f['min_s']:.2f}–{f['max_s']:.2f})" for f in figures]
            print(
                f"| {what} | {cells[0]} | {cells[1]} | **{ratio:.2f}** | {least} | {aim} |",
                flush=True,
            )
        if given.curves:
            results["curves"] = curves(folder, given.device, best)
    given.output_dir.mkdir(parents=True, exist_ok=True)
    batch = "" if given.batch == "32" else f"-batch{given.batch}"
    path = given.output_dir / f"{about['date']}-{about['commit']}-{given.device}{batch}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")


def training(folder: Path, device: str, precision: str) -> dict[str, Any]:
    """Whole runs of ten epochs: in full, and with adapters in the last four layers alone."""
    photos, least, aim = TRAINING[device]
    lay_out_training(folder, photos)
    found = {}
    for name, more in {"all layers": {}, "last 4 layers, cached": {"last_layers": "4"}}.items():
        options = {"device": device, "batch": "256" if device == "cuda" else "32"} | more
        (figures,) = race([("our_training", options)], folder, 1)
        found[name] = figures
        seconds = figures["median_s"]
        print(
            f"| 10 epochs of {photos:,} photos, {name} | {seconds:.0f} s | {least:.0f} s | "
            f"**{least / seconds:.2f}** | 1.0 | {least / aim:.1f} |",
            flush=True,
        )
    return found


def memory(folder: Path, device: str, precision: str) -> dict[str, Any]:
    """Peak memory of a training step against the batch size."""
    found = {}
    for batch in GPU_BATCHES if device == "cuda" else ["8", "32", "128"]:
        options = {"device": device, "precision": precision, "batch": batch}
        (figures,) = race([("ours", options)], folder, 3)
        found[batch] = figures
        rate, peak = figures["items_per_second"], figures["peak_mib"]
        print(f"| a step of {batch} photos | {rate:.1f} photos/s | {peak} MiB | | | |", flush=True)
    return found


def utilisation(folder: Path, device: str, precision: str) -> dict[str, Any]:
    """Model FLOPs of a step at batch 256 (32 on a CPU) against a large product's rate."""
    options = {"device": device, "precision": precision}
    options["batch"] = "256" if device == "cuda" else "32"
    step, best = race([("ours", options), ("ceiling", options)], folder, 5)
    rate = step_flops(folder) * step["items_per_second"]
    share = rate / best["items_per_second"]
    print(
        f"| model FLOPs of a step | {rate / 1e12:.2f} TFLOP/s | "
        f"{best['items_per_second'] / 1e12:.2f} TFLOP/s | **{share:.2f}** | | |",
        flush=True,
    )
    return {"step": step, "ceiling": best, "utilisation": share}


def before(folder: Path, precision: str, checkout: Path, times: int) -> dict[str, Any]:
    """Our step beside that of another checkout, each in its own best precision of today."""
    entries = [("ours", {"precision": precision})] * 2
    figures = race(entries, folder, times, sources=[None, checkout.resolve() / "src"])
    ratio = figures[1]["median_s"] / figures[0]["median_s"]
    cells = [f"{f['median_s']:.2f} s ({f['min_s']:.2f}–{f['max_s']:.2f})" for f in figures]
    print(f"| training step, {checkout.name} | {cells[0]} | {cells[1]} | **{ratio:.2f}** | | |")
    return {"figures": figures, "ratio": ratio, "checkout": checkout.name}


SHOWN_ALONE = ("start", "before", "training", "memory", "utilisation")
OTHER_ROWS = {"training": training, "memory": memory, "utilisation": utilisation}


def step_flops(folder: Path) -> float:
    """Floating-point operations of the step's products for one photo, as `products` counts them."""
    config = json.loads((folder / "model" / "config.json").read_text())["vision_config"]
    width, inner = config.get("hidden_size", 768), config.get("intermediate_size", 3072)
    layers, patch = config.get("num_hidden_layers", 12), config.get("patch_size", 32)
    patches = (config.get("image_size", 224) // patch) ** 2
    tokens = patches + 1
    forward = 0.0
    backward = 0.0
    for layer in range(layers):
        last = layer == layers - 1
        rows = 1 if last else tokens
        past_attention = rows * (width * width + 2 * width * inner)
        heads = (2 * tokens + rows if last else 3 * tokens) * width * width
        attention = 2 * rows * tokens * width
        forward += heads + attention + past_attention
        backward += past_attention + 2 * attention + (heads if layer else 0)
    return 2 * (forward + backward + patches * 3 * patch**2 * width)


def curves(folder: Path, device: str, precision: str) -> dict[str, Any]:
    """Our step's cost and peak memory, one thing changed at a time."""
    found: dict[str, Any] = {}
    print("\n| changed | images/s | peak memory |\n|---|---|---|")
    for key, (who, values) in CURVES.items():
        for value in values:
            options = {"device": device, "precision": precision, key: value}
            (figures,) = race([(who, options)], folder, 3)
            found[f"{key}={value}"] = figures
            rate, peak = figures["items_per_second"], figures["peak_mib"]
            print(f"| {key} {value} | {rate:.1f} | {peak} MiB |", flush=True)
    return found


if __name__ == "__main__":
    main()

"""A training run of a second, many times over: forked from a process that has imported it all."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

SETTINGS: dict[str, Any] = {
    "training.num_epochs": 3,
    "training.min_updates": 0,
    "training.batch_size": 4,
    "training.gradient_accumulation_steps": 2,
    "training.early_stopping.enabled": False,
    "evaluation.save_steps": 2,
    "evaluation.eval_steps": 3,
    "evaluation.logging_steps": 1,
    "output.save_total_limit": 2,
    "data.num_workers": 0,
    "hardware.device": "cpu",
}


@dataclass(frozen=True)
class Outcome:
    """What one kind of torture found."""

    name: str
    tried: int
    faults: list[str] = field(default_factory=list)
    note: str = ""

    def line(self) -> str:
        """A row of the table."""
        passed = self.tried - len(self.faults)
        return f"| {self.name} | {passed} of {self.tried} | {self.note} |"


def with_shim(folder: Path) -> None:
    """Start this very program again with the shim loaded, unless it is."""
    library = folder / "shim.so"
    if os.environ.get("LD_PRELOAD") == str(library):
        return
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def import_all() -> None:
    """Import what a run imports, without computing: threads do not live through a fork."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import matplotlib.figure  # noqa: F401
    import peft  # noqa: F401
    import torch
    from torch.utils import tensorboard  # noqa: F401
    from transformers import (  # noqa: F401
        AutoImageProcessor,
        AutoModel,
        AutoTokenizer,
        CLIPImageProcessor,
        CLIPModel,
        PreTrainedTokenizerFast,
    )

    import cliptune.training.train  # noqa: F401
    from cliptune.commands.screen import quiet_libraries

    quiet_libraries(debug=False)
    torch.set_num_threads(1)


def make_inputs(folder: Path, *, counts: dict[str, int] | None = None) -> None:
    """`folder/model` and `folder/data`, `counts` photos a class, by a process of its own."""
    if not (folder / "data").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        script = (
            "import sys; from pathlib import Path; from conftest import make_model, make_photos\n"
            "make_model(Path(sys.argv[1], 'model'))\n"
            f"make_photos(Path(sys.argv[1], 'data'), counts={counts})"
        )
        path = {"PYTHONPATH": str(ROOT / "tests")}
        subprocess.run(
            [sys.executable, "-c", script, folder], env=os.environ | path, check=True,
            capture_output=True,
        )  # fmt: skip


class Run:
    """A run of `cliptune train` in `place`; what it says goes to `place/said.txt`."""

    def __init__(self, inputs: Path, place: Path, **more: Any) -> None:
        self.place = place
        self.output = place / "run"
        self.logs = place / "logs"
        place.mkdir(parents=True, exist_ok=True)
        settings = SETTINGS | {
            "model.name": str(inputs / "model"),
            "data.data_dir": str(inputs / "data"),
            "data.cache_dir": str(place / "cache"),
            "output.output_dir": str(self.output),
            "output.log_dir": str(self.logs),
        } | more  # fmt: skip
        self.arguments = ["train"]
        for key, value in settings.items():
            self.arguments += ["--set", f"{key}={json.dumps(value)}"]

    def start(self, *more: str, fault: tuple[int, str] | None = None) -> int:
        """Fork a run; returns its process id. `fault`: the shim's call number and what happens."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            with (self.place / "said.txt").open("ab", buffering=0) as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            if fault is not None:
                shim = ctypes.CDLL(None)
                shim.fault_arm(str(self.place).encode(), fault[0], fault[1].encode())
            from cliptune.cli import main

            main([*self.arguments, *more])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException as error:  # a traceback is a fault
            print(f"Traceback: {error!r}", file=sys.stderr)
        finally:
            if fault is not None and fault[1] == "count":
                (self.place / "count.txt").write_text(str(ctypes.CDLL(None).fault_count()))
            sys.stdout.flush()
            os._exit(code)

    def finish(self, *more: str, fault: tuple[int, str] | None = None) -> int:
        """Run to the end: the exit code, negative where a signal ended it."""
        return wait(self.start(*more, fault=fault))

    def resume(self, *, kill_after: float | None = None) -> bool:
        """Go on, or begin where nothing was saved; True once the run is complete."""
        for options in (["--resume"], ["--overwrite"]):
            self.forget()
            pid = self.start(*options)
            code = wait(pid, kill_after=kill_after)
            said = self.said()
            if code == 0 or "epochs of this run are done" in said:
                return True
            if "no checkpoint to resume from" not in said:
                break
        if code == -signal.SIGKILL and kill_after is not None:
            return False
        raise AssertionError(f"resuming ended with {code}: {said.strip()[-300:]}")

    def said(self) -> str:
        """What the last runs printed."""
        path = self.place / "said.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def forget(self) -> None:
        (self.place / "said.txt").unlink(missing_ok=True)

    def result(self) -> dict[str, Any]:
        """All that must be the same however often a run was stopped."""
        from cliptune.model.checkpoint import list_checkpoints

        last = list_checkpoints(self.output)[-1].path
        state = json.loads((last / "resume" / "state.json").read_text())
        history = [
            {key: value for key, value in row.items() if key != "images_per_second"}
            for row in state["progress"]["history"]
        ]
        return {
            "name": last.name,
            "adapter": (last / "adapter_model.safetensors").read_bytes(),
            "head": (last / "head.safetensors").read_bytes(),
            "moments and random states": (last / "resume/tensors.safetensors").read_bytes(),
            "metrics": json.loads((last / "cliptune.json").read_text())["metrics"],
            "history": history,
            "event points": event_points(self.logs),
            "picture of the curves": (self.output / "training_curves.png").read_bytes(),
            "checkpoints": sorted(path.name for path in self.output.glob("checkpoint-*")),
        }

    def newest_update(self) -> int:
        """The update of the newest whole checkpoint, 0 for none; no damaged one may be there."""
        from cliptune.model.checkpoint import read_run

        checkpoints, damaged = read_run(self.output)
        assert not damaged, f"unreadable: {damaged[0]}"
        return checkpoints[-1].record.update if checkpoints else 0


def wait(pid: int, *, kill_after: float | None = None) -> int:
    """The exit code of `pid`, which is killed after that many seconds if it still runs."""
    if kill_after is not None:
        end = time.monotonic() + kill_after
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def event_points(logs: Path) -> list[tuple[str, int, float]]:
    """Every (curve, update, value) below `logs`, but for those of speed."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return sorted(
        (value.tag, event.step, value.tensor.float_val[0])
        for path in logs.rglob("*tfevents*")
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tensor.float_val and "images_per_second" not in value.tag
    )


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Which parts of a result are not as expected."""
    return [key for key in expected if found[key] != expected[key]]


def leftovers(folder: Path) -> list[str]:
    """Names below `folder` that only an unfinished write or deletion has."""
    ending = re.compile(r"\.(partial|old|deleted|tmp|lock)$")
    return [str(path) for path in folder.rglob("*") if ending.search(path.name)]

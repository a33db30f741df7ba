"""Real processes on this machine, started by torchrun, exchanging by gloo."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from scale.processes import by_rank, training

from cliptune.cli import main
from cliptune.config import load_settings
from cliptune.errors import DeviceError, UserError
from cliptune.training.several.starting import (
    refuse_fewer_than_asked,
    refuse_too_few_devices,
    started,
)
from cliptune.training.train import train
from conftest import distance, make_model, make_photos, names, tensors

Overrides = dict[str, Any]
CPU = torch.device("cpu")
LAST = "checkpoint-epoch-2"
# 24 photos by 7: the last update has three, one photo or none for each process.
UNEVEN: Overrides = {"training.batch_size": 7, "evaluation.eval_steps": 3}


class Told:
    """What a run printed, and the codes its processes ended with."""

    def __init__(self, log: Path, code: int) -> None:
        self.text, self.code = log.read_text(encoding="utf-8"), code

    def lines(self, beginning: str) -> list[str]:
        """Those that begin so."""
        return [line for line in self.text.splitlines() if line.startswith(beginning)]

    @property
    def codes(self) -> set[int]:
        """As torchrun lists them."""
        return {int(code) for code in re.findall(r"exitcode\s+: (-?\d+)", self.text)}


def in_processes(
    overrides: Overrides,
    processes: int,
    *more: str,
    output: Path,
    kill: tuple[str, int | str, signal.Signals] | None = None,
    driver: str | None = None,
) -> Told:
    """Train in `output`. `kill`: once this is told, that rank (or "all", "torchrun") is signalled.

    `driver` is a program that may make something fail before it calls `main`.
    """
    overrides = overrides | {
        "output.output_dir": str(output), "output.log_dir": str(output) + "-logs",
    }  # fmt: skip
    settings = [x for k, v in overrides.items() for x in ("--set", f"{k}={json.dumps(v)}")]
    program = ["-m", "cliptune"]
    if driver is not None:
        path = output.with_name(f"{output.name}.py")
        path.write_text(driver, encoding="utf-8", newline="\n")
        program = [str(path)]
    log = output.with_name(f"{output.name}.log")
    log.unlink(missing_ok=True)
    with training([*program, "train", *settings, *more], processes=processes, log=log) as run:
        if kill is not None:
            when, who, number = kill
            wait_for(when, log, lambda: run.poll() is None)
            ranks = by_rank(run)
            victims = {"all": list(ranks.values()), "torchrun": [psutil.Process(run.pid)]}
            for victim in victims[who] if isinstance(who, str) else [ranks[who]]:
                victim.send_signal(number)
            run.wait(timeout=60)  # all are to end within a minute
            assert not psutil.wait_procs(list(ranks.values()), timeout=30)[1]
        code = run.wait(timeout=200)
    return Told(log, code)


def wait_for(pattern: str, log: Path, going_on: Any) -> None:
    until = time.monotonic() + 90
    while not re.search(pattern, log.read_text(encoding="utf-8", errors="replace")):
        assert going_on(), log.read_text(encoding="utf-8")
        assert time.monotonic() < until
        time.sleep(0.01)


def history(run: Path, name: str = LAST) -> list[dict[str, Any]]:
    state = json.loads((run / name / "resume" / "state.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = state["progress"]["history"]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def assert_alike(found: Path, expected: Path) -> None:
    """Losses to 1e-5, of val to 1e-6; counts exactly; weights to 1e-5 of their size."""
    assert distance(tensors(found / LAST), tensors(expected / LAST)) < 1e-5
    for ours, theirs in zip(history(found), history(expected), strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            exact = value is None or key.endswith("accuracy") or key in ("epoch", "update")
            near = pytest.approx(value, abs=1e-6 if key.startswith("val") else 1e-5)
            assert ours[key] == (value if exact else near), key


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the processes have: products of more threads are rounded otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def overrides(overrides: Overrides, tmp_path: Path) -> Overrides:
    """On photos that no colour tells apart: the loss stays, and gradients are above rounding."""
    data = make_photos(tmp_path / "alike", classes=("red", "green", "class"))
    # Two processes on the CPU: for a GPU each there may be too few.
    return overrides | {"data.data_dir": str(data), "hardware.device": "cpu"}


@pytest.mark.slow
def test_two_processes_train_as_one(overrides: Overrides, tmp_path: Path) -> None:
    overrides |= UNEVEN
    one = train(load_settings(overrides=overrides), progress=False).output_dir
    told = in_processes(overrides, 2, output=tmp_path / "two")
    assert told.code == 0, told.text
    assert_alike(tmp_path / "two", one)
    # Before the first update nothing is summed over processes: to the bit.
    assert history(tmp_path / "two")[0] == history(one)[0]
    for line in ("zero-shot baseline on val", "training finished", "epoch 2/2"):
        assert len(told.lines(line)) == 1


CHOICES: dict[str, Overrides] = {
    "plain": {"training.recipe": "plain", "model.patch_dropout": 0.25},
    "accumulated": {"training.batch_size": 3, "training.gradient_accumulation_steps": 3},
    "balanced": {"training.sampling": "balanced"},
    "weighed": {"training.class_weights": {"red": 2.0}, "training.recipe": "plain"},
    "few in a batch": {"training.batch_size": 2, "training.learning_rate": 1e-4},
    "both towers": {"lora.towers": "both"},
}


@pytest.mark.scale
@pytest.mark.parametrize("choice", CHOICES)
def test_four_processes_train_as_one(overrides: Overrides, tmp_path: Path, choice: str) -> None:
    overrides |= UNEVEN | CHOICES[choice]
    one = train(load_settings(overrides=overrides), progress=False).output_dir
    told = in_processes(overrides, 4, output=tmp_path / "four")
    assert told.code == 0, told.text
    assert_alike(tmp_path / "four", one)


@pytest.mark.scale
@pytest.mark.parametrize("recipe", ["head_first", "plain"])
def test_siglip_trains_both_towers_in_two_processes(
    overrides: Overrides, tmp_path: Path, recipe: str
) -> None:
    """Its logit bias takes no part in the loss: torch's own way would wait for its gradient."""
    model = make_model(tmp_path / "siglip", "siglip")
    overrides |= UNEVEN | {"model.name": str(model), "lora.towers": "both"}
    overrides |= {"training.recipe": recipe}
    one = train(load_settings(overrides=overrides), progress=False).output_dir
    told = in_processes(overrides, 2, output=tmp_path / "two")
    assert told.code == 0, told.text
    assert_alike(tmp_path / "two", one)


OUT_OF_MEMORY = """
import os
from cliptune.cli import main
from cliptune.model.classifier import Classifier

forward = Classifier.forward

def failing(self, pixels, *args, **kwargs):
    if self.training and os.environ["RANK"] == "1" and len(pixels) > 2:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    return forward(self, pixels, *args, **kwargs)

Classifier.forward = failing
main()
"""


@pytest.mark.scale
def test_one_process_alone_halves_its_micro_batches(overrides: Overrides, tmp_path: Path) -> None:
    one = train(load_settings(overrides=overrides), progress=False).output_dir
    told = in_processes(overrides, 2, output=tmp_path / "two", driver=OUT_OF_MEMORY)
    assert told.code == 0, told.text
    assert len(told.lines("warning: out of memory")) == 1
    assert_alike(tmp_path / "two", one)


@pytest.mark.scale
@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 4), (2, 1), (1, 2)])
def test_a_stopped_run_goes_on_in_another_number_of_processes(
    overrides: Overrides, tmp_path: Path, before: int, after: int
) -> None:
    overrides |= {"training.batch_size": 2, "training.num_epochs": 2}
    undisturbed = tmp_path / "undisturbed"
    assert in_processes(overrides, before, output=undisturbed).code == 0
    run = tmp_path / "run"
    who = "torchrun"  # or the only process
    stopped = in_processes(overrides, before, output=run, kill=("epoch 0/2", who, signal.SIGTERM))
    assert len(stopped.lines("stopped after update")) == 1, stopped.text
    assert not stopped.lines("error:")
    assert LAST not in names(run)
    done = in_processes(overrides, after, "--resume", output=run)
    assert done.code == 0, done.text
    assert_alike(run, undisturbed)
    if before == after:
        assert distance(tensors(run / LAST), tensors(undisturbed / LAST)) == 0


ENDLESS: Overrides = {
    "training.num_epochs": 400, "training.early_stopping.enabled": False,
    "training.batch_size": 2,
}  # fmt: skip


@pytest.mark.scale
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("when", ["trainable parameters", "zero-shot baseline", "epoch 3/"])
def test_a_killed_process_ends_all_with_one_message(
    overrides: Overrides, tmp_path: Path, processes: int, who: int, when: str
) -> None:
    told = in_processes(
        overrides | ENDLESS, processes, output=tmp_path / "run", kill=(when, who, signal.SIGKILL)
    )
    (message,) = told.lines("error:")
    assert f"process {who} (pid" in message
    assert f"of the {processes} of this run ended without a word" in message
    assert ("--resume" in message) == bool(names(tmp_path / "run"))
    assert told.codes == {-9, 1}


@pytest.mark.scale
def test_after_a_kill_the_run_ends_as_the_undisturbed_one(
    overrides: Overrides, tmp_path: Path
) -> None:
    overrides |= {"training.batch_size": 2, "evaluation.save_steps": 2}
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    assert in_processes(overrides, 2, output=undisturbed).code == 0
    in_processes(overrides, 2, output=run, kill=("epoch 1/2", 1, signal.SIGKILL))
    assert LAST not in names(run)
    assert in_processes(overrides, 2, "--resume", output=run).code == 0
    assert distance(tensors(run / LAST), tensors(undisturbed / LAST)) == 0
    assert history(run) == history(undisturbed)


@pytest.mark.scale
@pytest.mark.parametrize("who", [0, 1, "all", "torchrun"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_and_saves_once(
    overrides: Overrides, tmp_path: Path, who: int | str, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    told = in_processes(overrides | ENDLESS, 2, output=run, kill=("epoch 1/", who, number))
    (message,) = told.lines("stopped after update")
    assert not told.lines("error:")
    update = int(re.findall(r"update (\d+)", message)[0])
    state = json.loads((run / names(run)[-1] / "resume" / "state.json").read_text(encoding="utf-8"))
    assert state["progress"]["update"] == update
    if who != "torchrun":  # which lists no codes then
        assert told.codes == {75}


@pytest.mark.scale
def test_where_torchrun_is_killed_its_processes_end(overrides: Overrides, tmp_path: Path) -> None:
    told = in_processes(
        overrides | ENDLESS, 2, output=tmp_path / "run",
        kill=("epoch 1/", "torchrun", signal.SIGKILL),
    )  # fmt: skip
    (message,) = told.lines("error:")
    assert message.startswith("error: torchrun ended without a word")


SLOW_HEAD = """
import os, time
from cliptune.cli import main
from cliptune.training.head import stage
from cliptune.training.several import fate

fate.SILENT = 6.0
fit_head = stage.fit_head

def slowly(*args, **kwargs):
    assert os.environ["RANK"] == "0", "one fits for all"
    print("fitting", flush=True)
    time.sleep(SECONDS)
    return fit_head(*args, **kwargs)

stage.fit_head = slowly
main()
"""


@pytest.mark.scale
def test_a_process_that_works_long_is_not_taken_for_dead(
    overrides: Overrides, tmp_path: Path
) -> None:
    """Three times as long as one that gives no sign of life."""
    driver = SLOW_HEAD.replace("SECONDS", "18")
    told = in_processes(overrides, 2, output=tmp_path / "run", driver=driver)
    assert told.code == 0, told.text


@pytest.mark.scale
@pytest.mark.parametrize("who", [0, 1])
def test_a_process_killed_while_the_first_fits_the_head_ends_all(
    overrides: Overrides, tmp_path: Path, who: int
) -> None:
    driver = SLOW_HEAD.replace("SECONDS", "300")
    told = in_processes(
        overrides, 2, output=tmp_path / "run", driver=driver, kill=("fitting", who, signal.SIGKILL)
    )
    (message,) = told.lines("error:")
    assert f"process {who} (pid" in message


@pytest.mark.scale
def test_a_photo_lost_to_one_process_is_told_once(overrides: Overrides, tmp_path: Path) -> None:
    data = Path(overrides["data.data_dir"])
    overrides |= ENDLESS | {"data.cache": False}
    output = tmp_path / "run"
    log = output.with_name("run.log")
    settings = overrides | {"output.output_dir": str(output), "output.log_dir": f"{output}-logs"}
    given = [x for k, v in settings.items() for x in ("--set", f"{k}={json.dumps(v)}")]
    with training(["-m", "cliptune", "train", *given], processes=2, log=log) as run:
        wait_for("epoch 1/", log, lambda: run.poll() is None)
        lost = next((data / "train" / "green").iterdir())
        lost.unlink()
        code = run.wait(timeout=60)
    told = Told(log, code)
    (message,) = told.lines("error:")
    assert "unreadable images met during training" in message
    assert str(lost) in told.text
    assert told.codes <= {2, -15}


@pytest.mark.scale
def test_a_fault_that_all_see_is_told_once(overrides: Overrides, tmp_path: Path) -> None:
    for fault in ({"lora.r": 0}, {"data.data_dir": "/no/such/folder"}):
        told = in_processes(overrides | fault, 3, output=tmp_path / "run")
        assert len(told.lines("error:")) == 1, told.text
        assert not (tmp_path / "run").exists()


@pytest.mark.scale
def test_a_run_without_a_photo_of_val_fits_its_head_in_two_processes(
    overrides: Overrides, tmp_path: Path
) -> None:
    """One photo of each class: one process has a batch, the other none."""
    data = make_photos(tmp_path / "few", counts={"train": 1})
    overrides |= {"data.data_dir": str(data)}
    one = train(load_settings(overrides=overrides), progress=False).output_dir
    told = in_processes(overrides, 2, output=tmp_path / "two")
    assert told.code == 0, told.text
    assert len(told.lines("warning: no photo is left for val")) == 1
    found, expected = (tensors(run / "checkpoint-epoch-0") for run in (tmp_path / "two", one))
    assert distance(found, expected) == 0


LONE = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
OF_TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One without the words of those who start processes."""
    for name in (*LONE, *OF_TORCHRUN):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def given(environment: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        environment.setenv(name, value)


def test_a_process_knows_its_place_by_the_words_of_torchrun(
    environment: pytest.MonkeyPatch,
) -> None:
    assert started() == (0, 1, 0, 1)
    given(environment, OF_TORCHRUN)
    assert started() == (3, 4, 1, 2)
    assert started().several


def test_one_process_where_several_were_asked_for_is_refused(
    environment: pytest.MonkeyPatch,
) -> None:
    refuse_fewer_than_asked(CPU)
    given(environment, LONE)
    with pytest.raises(UserError, match=r"started this one alone.*torchrun --nproc_per_node 2"):
        refuse_fewer_than_asked(CPU)
    environment.setenv("OMPI_COMM_WORLD_SIZE", "2")  # started by MPI, after all
    refuse_fewer_than_asked(CPU)


def test_processes_without_a_gpu_of_their_own_are_refused(environment: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    given(environment, {"WORLD_SIZE": "2", "RANK": "0"})
    with pytest.raises(UserError, match="LOCAL_RANK, which says which cuda device"):
        refuse_fewer_than_asked(gpu)
    given(environment, OF_TORCHRUN)
    refuse_fewer_than_asked(gpu)
    there = torch.cuda.device_count()
    environment.setenv("LOCAL_WORLD_SIZE", str(there + 1))
    with pytest.raises(DeviceError, match=f"there are {there}"):
        refuse_too_few_devices(gpu)
    refuse_too_few_devices(CPU)


def test_other_verbs_than_train_refuse_several_processes(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given(environment, OF_TORCHRUN | {"LOCAL_RANK": "0"})
    for verb in ("evaluate", "predict", "prepare"):
        with pytest.raises(SystemExit) as end:
            main([verb, "--checkpoint", "x"])
        assert end.value.code == 2
        assert f"{verb}: started as 4 processes" in capsys.readouterr().err


def test_how_several_are_started_needs_no_torch() -> None:
    import subprocess

    code = "import sys, cliptune.training.several.starting; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

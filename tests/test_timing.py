from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cliptune.config import load_settings
from cliptune.timing import measured, section
from cliptune.training.train import train


def test_sections_of_all_threads_are_counted_and_none_without_a_watch(tmp_path: Path) -> None:
    def sleep() -> None:
        with section("sleeping"):
            time.sleep(0.05)

    sleep()
    with measured(tmp_path / "trace.json") as watch:
        threads = [threading.Thread(target=sleep) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sleep()
    assert watch is not None
    assert list(watch.seconds) == ["sleeping"]
    assert watch.seconds["sleeping"] >= 3 * 0.05
    assert watch.total >= 0.05
    with measured(None) as nothing:
        sleep()
    assert nothing is None


def test_a_profiled_run_names_where_the_time_went_and_changes_no_weight(
    overrides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(overrides=overrides)
    plain = train(settings, progress=False)
    assert plain.profile is None
    other = load_settings(
        overrides=overrides | {"output.output_dir": str(tmp_path / "profiled"), "data.cache": False}
    )
    profiled = train(other, progress=False, profile=True)
    assert profiled.history[-1]["train_loss"] == plain.history[-1]["train_loss"]
    assert profiled.profile is not None
    sections = ("decode", "augment", "copy", "forward", "backward", "optimizer")
    for name in (*sections, "validation", "checkpoint", "in all"):
        assert f"\n{name}" in profiled.profile, name
    table = [line for line in profiled.profile.splitlines() if not line.startswith("Trace")]
    assert max(map(len, table)) <= 80
    trace = json.loads((tmp_path / "profiled" / "trace.json").read_text())
    assert {"forward", "backward"} <= {event.get("name") for event in trace["traceEvents"]}


def test_a_section_inside_another_is_counted_once_and_old_traces_are_not_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "trace.json").write_text("of another run")
    with measured(tmp_path / "trace.json") as watch, section("outer"):
        time.sleep(0.02)
        with section("inner"):
            time.sleep(0.1)
    assert watch is not None
    assert watch.seconds["inner"] >= 0.1
    assert 0.02 <= watch.seconds["outer"] <= watch.total - watch.seconds["inner"]
    assert "Trace" not in watch.table()
    assert (tmp_path / "trace.json").read_text() == "of another run"

"""What MLflow is told of a run, read back by its own client from its own stores."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cliptune.config import load_settings
from cliptune.errors import Interrupted, TrainingError
from cliptune.training.start import told_settings
from cliptune.training.train import train

mlflow = pytest.importorskip("mlflow")
pytestmark = [
    pytest.mark.scale,  # it brings a database
    pytest.mark.filterwarnings("default"),  # MLflow's own
]

Overrides = dict[str, Any]


@pytest.fixture(params=["sqlite", "file"])
def told(
    request: pytest.FixtureRequest,
    overrides: Overrides,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Overrides]:
    monkeypatch.chdir(tmp_path)  # where its artifacts go
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    # Since 3.7 it keeps no new files in folders unless told to.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    at = f"sqlite:///{tmp_path / 'mlflow.db'}" if request.param == "sqlite" else "mlruns"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(at if request.param == "sqlite" else (tmp_path / at).as_uri())
    yield overrides | {
        "output.trackers": ["mlflow"], "evaluation.logging_steps": 1, "training.batch_size": 4,
        "evaluation.save_steps": 4,
    }  # fmt: skip
    mlflow.set_tracking_uri(before)


def the_run() -> Any:
    """The only run there is, by the name of the output folder, in the log folder's experiment."""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("logs")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def steps(run: Any, key: str) -> list[int]:
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, key)
    return [point.step for point in sorted(history, key=lambda x: x.step)]


def test_it_holds_settings_curves_and_what_came_of_the_run(told: Overrides) -> None:
    prompts = [f"a photo of a {{}}, type {number}." for number in range(30)]
    settings = load_settings(overrides=told | {"model.prompts": prompts})
    result = train(settings, progress=False)
    run = the_run()
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    expected = {key: str(value)[:500] for key, value in told_settings(settings).items()}
    assert run.data.params == expected
    assert steps(run, "train/loss") == list(range(1, result.updates + 1))
    client = mlflow.MlflowClient()
    rows = client.get_metric_history(run.info.run_id, "epoch/val_accuracy")
    figures = [row["val_accuracy"] for row in result.history if row["epoch"]]
    assert [row.value for row in rows] == pytest.approx(figures)
    assert result.best is not None
    assert run.data.metrics["best/val_accuracy"] == pytest.approx(result.best.val_accuracy)
    assert max(map(len, run.data.params.values())) == 500  # the prompts are longer


def test_its_artifacts_are_pictures_a_report_and_the_card_of_the_best_checkpoint(
    told: Overrides, tmp_path: Path, clip_folder: Path
) -> None:
    result = train(load_settings(overrides=told), progress=False)
    folder = Path(mlflow.artifacts.download_artifacts(
        run_id=the_run().info.run_id, artifact_path="", dst_path=str(tmp_path / "fetched")
    ))  # fmt: skip
    for name in ("photos/train.png", "val/confusion_matrix.png", "training_curves.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    report = (folder / "val_report.txt").read_text(encoding="utf-8")
    assert all(name in report for name in ("amber", "blue", "cyan", "accuracy"))
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert result.best is not None
    own = (result.best.path / "README.md").read_text(encoding="utf-8")
    assert str(clip_folder) in own
    assert str(clip_folder) not in card
    assert card == own.replace(str(clip_folder), clip_folder.name)


@pytest.mark.parametrize(
    ("error", "status"), [(TrainingError("a loss"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_its_status_tells_what_became_of_the_run(
    told: Overrides, error: BaseException, status: str
) -> None:
    def end(row: Mapping[str, float | None]) -> None:
        raise error

    with pytest.raises(type(error)):
        train(load_settings(overrides=told), progress=False, after_epoch=end)
    assert the_run().info.status == status


def test_a_run_that_was_stopped_goes_on_as_the_same_run_and_tells_no_step_twice(
    told: Overrides,
) -> None:
    settings = load_settings(overrides=told)

    def stop(row: Mapping[str, float | None]) -> None:
        if row["epoch"] == 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(settings, progress=False, after_epoch=stop)
    first = the_run()
    assert first.info.status == "KILLED"
    train(settings, progress=False, resume=True)
    run = the_run()
    assert run.info.run_id == first.info.run_id
    assert run.info.status == "FINISHED"
    for key in ("train/loss", "epoch/val_loss"):
        assert len(set(steps(run, key))) == len(steps(run, key))
    assert steps(run, "train/loss") == list(range(1, 13))


def test_updates_that_are_repeated_after_a_kill_are_not_told_again(told: Overrides) -> None:
    settings = load_settings(overrides=told)

    class Killed(BaseException):
        pass

    def die(row: Mapping[str, float | None]) -> None:
        raise Killed

    with pytest.raises(Killed):
        train(settings, progress=False, after_epoch=die)
    # As if the kill had come before the checkpoint of the epoch: it goes on from update 4.
    shutil.rmtree(settings.output.output_dir / "checkpoint-epoch-1")
    train(settings, progress=False, resume=True)
    assert steps(the_run(), "train/loss") == list(range(1, 13))


def test_a_store_that_does_not_answer_ends_no_run(
    told: Overrides, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")  # nobody listens there
    assert train(load_settings(overrides=told), progress=False).epochs == 2
    said = [x.getMessage() for x in caplog.records if "goes on without it" in x.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("mlflow: ")

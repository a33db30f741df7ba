"""A checkpoint that was put on the hub, against a server that speaks its protocol."""

from __future__ import annotations

import base64
import getpass
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from cliptune import Predictor
from cliptune.errors import CheckpointError, UserError
from cliptune.evaluation.statistics.intervals import wilson_interval
from cliptune.files import SUMS
from cliptune.model.checkpoint import read_checkpoint, resolve_checkpoint
from cliptune.sharing.push import push
from conftest import make_model, make_photos, trained
from hub_server import Hub, a_hub

TELLING = "secret_user_name"


class Shared(NamedTuple):
    """A hub that a run, of a base model that is there, was pushed to from below `home`."""

    hub: Hub
    home: Path
    run: Path
    printed: str
    sent: list[bytes]


def cliptune(*words: str | Path, env: dict[str, str], code: int = 0, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cliptune", *map(str, words)], env=env, cwd=cwd, text=True,
        capture_output=True, encoding="utf-8", timeout=400,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    home = tmp_path_factory.mktemp("machine") / TELLING
    photos = make_photos(home / "photos_of_mine")
    model = make_model(home / "base_here")
    with a_hub() as hub:
        hub.put("acme/tiny-clip", model)
        env = hub.environment(home / "cache")
        settings = {
            "model.name": "acme/tiny-clip", "model.cache_dir": home / "models_of_mine",
            "data.data_dir": photos, "data.num_workers": 0, "training.num_epochs": 2,
            "training.min_updates": 0, "training.batch_size": 8, "training.learning_rate": 0.01,
            "output.output_dir": home / "run", "output.log_dir": home / "logs",
            "hardware.mixed_precision": "false",
        }  # fmt: skip
        options = [word for key, x in settings.items() for word in ("--set", f"{key}={x}")]
        cliptune("train", *options, env=env, cwd=home)
        (resolve_checkpoint(home / "run").path / "holiday.jpg").write_bytes(b"a photo of somebody")
        hub.sent.clear()
        printed = cliptune("push", home / "run", "someone/dogs", "--private", "--license", "mit",
                           "--message", "The first one", env=env, cwd=home)  # fmt: skip
        yield Shared(hub, home, home / "run", printed, list(hub.sent))


@pytest.mark.slow
def test_a_pushed_checkpoint_answers_elsewhere_to_the_bit(shared: Shared, tmp_path: Path) -> None:
    photo = shared.home / "photos_of_mine" / "val" / "blue" / "blue_0.png"
    code = (
        "import sys; from cliptune import Predictor\n"
        "found = Predictor(sys.argv[1], device='cpu').predict(sys.argv[2])\n"
        "print(repr(found.probabilities if hasattr(found, 'probabilities') else found))"
    )
    env = shared.hub.environment(tmp_path)
    told = [
        subprocess.run([sys.executable, "-c", code, str(name), str(photo)], env=env, cwd=tmp_path,
                       capture_output=True, text=True, encoding="utf-8", check=True).stdout
        for name in (shared.run, "hf:someone/dogs")
    ]  # fmt: skip
    assert told[0] == told[1] != ""


def test_no_byte_that_the_hub_got_tells_of_the_machine_or_its_user(shared: Shared) -> None:
    got = b"\n".join(shared.sent)
    for text in re.findall(rb'"(?:content|sample)": ?"([A-Za-z0-9+/=]+)"', got):
        got += base64.b64decode(text)
    files = shared.hub.repositories["someone/dogs"].files()
    got += b"\n".join(files.values())
    assert b"class_names" in got  # it does look into what was sent
    telling = {TELLING, "photos_of_mine", "models_of_mine", "holiday.jpg", "a photo of somebody",
               "/logs", str(shared.home), str(Path.home()) + "/", socket.gethostname()}  # fmt: skip
    if getpass.getuser() != "root":  # a word like any other
        telling.add(getpass.getuser())
    assert [word for word in sorted(telling) if word.encode() in got] == []
    expected = {p.name for p in resolve_checkpoint(shared.run).path.iterdir()}
    assert files.keys() == expected - {"resume", "holiday.jpg"}


def test_it_is_one_commit_of_a_private_model_and_the_line_that_uses_it_is_printed(
    shared: Shared,
) -> None:
    repository = shared.hub.repositories["someone/dogs"]
    assert repository.messages[0] == "The first one"
    assert repository.private
    assert sum(b"/commit/" in each.split(b"\n")[0] for each in shared.sent) == 1
    assert f"Pushed:  {shared.hub.address}/someone/dogs" in shared.printed
    assert "--checkpoint hf:someone/dogs --image photo.jpg" in shared.printed


def test_its_card_holds_what_the_hub_reads_and_the_figures_of_the_record(shared: Shared) -> None:
    text = shared.hub.repositories["someone/dogs"].files()["README.md"].decode()
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    card = yaml.safe_load(front)
    assert card["base_model"] == "acme/tiny-clip"
    assert card["license"] == "mit"
    assert card["library_name"] == "peft"
    metrics = resolve_checkpoint(shared.run).record.metrics
    (told,) = [each for each in card["model-index"][0]["results"][0]["metrics"]
               if each["type"] == "accuracy"]  # fmt: skip
    share, count = float(metrics["val_accuracy"] or 0), float(metrics["val_images"] or 0)
    low, high = wilson_interval(share, count)
    assert told["value"] == round(share, 4)
    assert told["name"] == (
        f"top-1 on {count:.0f} validation photos, 95 % interval {low:.3f} to {high:.3f}"
    )
    assert "THIS_FOLDER" not in body
    from huggingface_hub import ModelCard

    data = ModelCard(text).data  # as the hub's own library reads it
    assert data.eval_results is not None
    assert "accuracy" in {result.metric_type for result in data.eval_results}


@pytest.mark.slow
@pytest.mark.parametrize("head", ["fitted", "text", "linear"])
def test_the_cards_code_for_plain_peft_runs_and_finds_the_same_classes(
    head: str, clip_folder: Path, photos: Path, tmp_path: Path
) -> None:
    changes = {} if head == "fitted" else {
        "training.recipe": "plain", "model.head": head}  # fmt: skip
    run = trained(tmp_path, clip_folder, photos, **changes)
    assert resolve_checkpoint(run).record.head == head
    with a_hub() as hub:
        env = hub.environment(tmp_path)
        cliptune("push", run, "someone/dogs", env=env, cwd=tmp_path)
        text = hub.repositories["someone/dogs"].files()["README.md"].decode()
        (code,) = [x for x in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "peft" in x]
        (tmp_path / clip_folder.name).symlink_to(clip_folder)  # the base model's name, said so
        photo = photos / "val" / "cyan" / "cyan_1.png"
        shutil.copy(photo, tmp_path / "photo.jpg")
        done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, text=True,
                              capture_output=True, encoding="utf-8", timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == Predictor(run, device="cpu").predict(photo).label


def test_a_second_push_takes_away_what_the_first_had_and_leaves_what_others_put_there(
    shared: Shared, tmp_path: Path
) -> None:
    hub, env = shared.hub, shared.hub.environment(tmp_path)
    cliptune("push", shared.run, "someone/twice", env=env, cwd=tmp_path)
    repository = hub.repositories["someone/twice"]
    repository.commit("main", repository.files() | {"picture.png": b"of the owner"})
    lesser = Path(shutil.copytree(resolve_checkpoint(shared.run).path, tmp_path / "lesser"))
    (lesser / "photos.safetensors").unlink()
    sums = (lesser / SUMS).read_text(encoding="utf-8").splitlines(keepends=True)
    kept = "".join(line for line in sums if "photos.safetensors" not in line)
    (lesser / SUMS).write_text(kept, encoding="utf-8", newline="\n")
    printed = cliptune("push", lesser, "someone/twice", "--revision", "later", env=env,
                       cwd=tmp_path)  # fmt: skip
    assert "hf:someone/twice@later" in printed
    assert repository.files()["picture.png"] == b"of the owner"
    assert "photos.safetensors" in repository.files()
    after = repository.files("later")
    assert after.keys() == repository.files().keys() - {"photos.safetensors"}


@pytest.mark.slow
def test_each_refusal_of_the_hub_is_one_clear_message(shared: Shared, tmp_path: Path) -> None:
    wrong = shared.hub.environment(tmp_path, token="hf_wrong")
    said = cliptune("push", shared.run, "someone/new", env=wrong, code=2, cwd=tmp_path)
    assert "error: hf:someone/new: the hub refused (401). Log in with 'hf auth login'" in said
    none = shared.hub.environment(tmp_path, token=None)
    said = cliptune("push", shared.run, "someone/new", env=none, code=2, cwd=tmp_path)
    assert "Log in with 'hf auth login'" in said
    gone = none | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    said = cliptune("push", shared.run, "someone/new", env=gone, code=1, cwd=tmp_path)
    assert "the hub at http://127.0.0.1:9 cannot be reached" in said
    assert "Traceback" not in said
    assert "someone/new" not in shared.hub.repositories


@pytest.mark.parametrize("name", ["dogs", "a/b/c", "https://huggingface.co/a/b", "a/b@main", ""])
def test_what_is_no_owner_and_name_is_refused_before_anything_is_read(name: str) -> None:
    with pytest.raises(CheckpointError, match="Expected owner/name"):
        push("no such folder", name)


def test_a_dry_run_lists_files_and_what_is_replaced_and_asks_nothing_of_a_hub(
    tiny_run: Path, clip_folder: Path
) -> None:
    done = push(tiny_run, "someone/dogs", dry_run=True)
    assert (done.url, done.commit) == (None, None)
    sizes = dict(done.files)
    found = resolve_checkpoint(tiny_run)
    weights = "adapter_model.safetensors"
    assert sizes[weights] == (found.path / weights).stat().st_size
    assert not [name for name in sizes if name.startswith("resume")]
    replaced = {(each.file, each.key): (each.before, each.after) for each in done.replaced}
    before = str(clip_folder.resolve())
    assert replaced["cliptune.json", "base_model.name"] == (before, clip_folder.name)
    assert ("config.yaml", "data.data_dir") in replaced
    assert done.needs_base


def test_a_dry_run_reaches_for_no_network(shared: Shared, tmp_path: Path) -> None:
    shared.hub.lines.clear()
    printed = cliptune("push", shared.run, "someone/new", "--dry-run", cwd=tmp_path,
                       env=shared.hub.environment(tmp_path))  # fmt: skip
    assert shared.hub.lines == []
    assert "Nothing was pushed." in printed
    assert "data.data_dir" in printed


def test_a_base_model_that_lay_in_a_folder_may_be_given_its_name_on_the_hub(
    tiny_run: Path,
) -> None:
    done = push(tiny_run, "someone/dogs", base_model="acme/tiny-clip", dry_run=True)
    assert done.base_model == "acme/tiny-clip"
    assert not done.needs_base


def test_an_owners_words_in_the_card_are_kept_and_a_folder_named_in_them_is_refused(
    tiny_run: Path, tmp_path: Path
) -> None:
    found = Path(shutil.copytree(resolve_checkpoint(tiny_run).path, tmp_path / "own"))
    card = "---\nlanguage: de\ntags: [hunde]\n---\n\n# Hunde\n\n## Limits and data\n\nMeine.\n"
    (found / "README.md").write_text(card, encoding="utf-8")
    with a_hub() as hub:
        env = hub.environment(tmp_path)
        cliptune("push", found, "someone/dogs", env=env, cwd=tmp_path)
        text = hub.repositories["someone/dogs"].files()["README.md"].decode()
    front = yaml.safe_load(text.split("---")[1])
    assert (front["language"], front["tags"]) == ("de", ["hunde"])
    assert "base_model" not in front  # it is on no hub that is known
    assert "# Hunde\n\n## Limits and data\n\nMeine.\n" in text
    assert text.count("## Limits and data") == 1

    (found / "README.md").write_text(f"{card}\nSee {found}/notes.\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"README.md: line \d+ names a folder of this machine"):
        push(found, "someone/dogs", dry_run=True)
    assert read_checkpoint(found).path == found


def test_what_was_pushed_can_be_pushed_on(shared: Shared, tmp_path: Path) -> None:
    env = shared.hub.environment(tmp_path)
    cliptune("push", "hf:someone/dogs", "other/dogs", env=env, cwd=tmp_path)
    first, second = (shared.hub.repositories[f"{owner}/dogs"].files() for owner in
                     ("someone", "other"))  # fmt: skip
    assert {k: x for k, x in first.items() if k != "README.md"} == {
        k: x for k, x in second.items() if k != "README.md"
    }
    assert json.loads(second["cliptune.json"])["base_model"]["name"] == "acme/tiny-clip"


@pytest.mark.slow
def test_an_exported_folder_is_pushed_with_its_graph_and_needs_no_base_model(
    tiny_run: Path, photos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from cliptune.inference.export.export import export

    exported = export(tiny_run, output=tmp_path / "exported", data=photos, progress=False).folder
    with a_hub() as hub:
        env = hub.environment(tmp_path)
        said = cliptune("push", exported, "someone/graph", env=env, cwd=tmp_path)
        assert "--base-model" not in said
        csv = tmp_path / "answers.csv"
        photo = photos / "val" / "cyan" / "cyan_1.png"
        cliptune("predict", "--checkpoint", "hf:someone/graph", "--image", photo, "--output", csv,
                 env=env, cwd=tmp_path)  # fmt: skip
        front = yaml.safe_load(
            hub.repositories["someone/graph"].files()["README.md"].decode().split("---")[1]
        )
    assert front["library_name"] == "onnx"
    assert Predictor(exported, device="cpu").predict(photo).label in csv.read_text("utf-8")


def test_of_several_labels_the_card_gives_mean_average_precision_and_no_accuracy(
    label_run: Path, tmp_path: Path
) -> None:
    found = resolve_checkpoint(label_run)
    with a_hub() as hub:
        env = hub.environment(tmp_path)
        cliptune("push", label_run, "someone/halves", env=env, cwd=tmp_path)
        text = hub.repositories["someone/halves"].files()["README.md"].decode()
    card = yaml.safe_load(text.removeprefix("---\n").split("\n---\n")[0])
    (told,) = card["model-index"][0]["results"][0]["metrics"]
    assert told["type"] == "mean_average_precision"
    assert told["value"] == round(float(found.record.metrics["val_mean_ap"] or 0), 4)
    assert "threshold it reaches, or none" in text

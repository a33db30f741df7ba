"""A base model is used only with the tokenizer and the image processor it was trained with."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cliptune import Predictor
from cliptune.config import Settings, load_settings
from cliptune.editing.change import add_class
from cliptune.errors import CheckpointError, ModelError
from cliptune.evaluation.comparison.compare import compare
from cliptune.evaluation.evaluate import evaluate
from cliptune.files import write_sums
from cliptune.model.backbone import Backbone, load_backbone
from cliptune.model.checkpoint import Checkpoint, read_checkpoint, write_tensors
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.model.prompts import zero_shot_weights
from cliptune.model.restore import read_tensors
from cliptune.training.train import train
from conftest import make_model, make_photos

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def settings_of(run: Path, model: Path, photos: Path, **more: Any) -> Settings:
    """Settings of a run of one epoch that takes a second."""
    given = {
        "model.name": str(model),
        "data.data_dir": str(photos),
        "data.num_workers": 0,
        "training.batch_size": 8,
        "training.num_epochs": 1,
        "training.min_updates": 0,
        "output.output_dir": str(run),
        "output.log_dir": str(run.parent / "logs"),
        "hardware.device": "cpu",
        "hardware.mixed_precision": False,
    }
    return load_settings(None, overrides=given | more)


def change_record(checkpoint: Path, **changes: Any) -> Checkpoint:
    """`checkpoint` with other values in its record; None takes a key away."""
    record = json.loads((checkpoint / "cliptune.json").read_text()) | changes
    kept = {key: value for key, value in record.items() if value is not None}
    (checkpoint / "cliptune.json").write_text(json.dumps(kept))
    write_sums(checkpoint, leave_out=frozenset({"README.md"}))
    return read_checkpoint(checkpoint)


@pytest.fixture
def folder(clip_folder: Path, tmp_path: Path) -> Path:
    """A copy of the small CLIP, to spoil."""
    return Path(shutil.copytree(clip_folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path, photos: Path) -> Path:
    """A checkpoint, and beside it a base model without its tokenizer."""
    place = tmp_path_factory.mktemp("trained")
    train(settings_of(place / "run", clip_folder, photos), progress=False)
    shutil.copytree(clip_folder, place / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    return place


# --- A folder without its tokenizer -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "siglip", "chinese_clip"])
def test_folder_without_tokenizer_is_refused_with_the_files_to_fetch(
    kind: str, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", kind)
    for name in TOKENIZER:
        (model / name).unlink()
    with pytest.raises(ModelError, match=r"(?s)no tokenizer.*model\.safetensors.*Fetch") as caught:
        load_backbone(str(model))
    assert str(model) in str(caught.value)
    assert "tokenizer.json" in str(caught.value)


def test_vocabulary_without_its_merges_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(ModelError, match=r"merges\.txt is missing beside vocab\.json"):
        load_backbone(str(folder))


@pytest.mark.parametrize("kind", ["clip", "chinese_clip"])
def test_vocabulary_of_special_tokens_alone_is_refused(kind: str, tmp_path: Path) -> None:
    """As `transformers` makes one up: no word of it, whatever stands in the folder."""
    from transformers import BertTokenizer, CLIPTokenizer

    model = make_model(tmp_path / "model", kind)
    made_up = {"clip": CLIPTokenizer, "chinese_clip": BertTokenizer}[kind]()
    made_up.save_pretrained(model)
    with pytest.raises(ModelError, match=rf"knows {len(made_up)} tokens.*made for 64"):
        load_backbone(str(model))


def test_vocabulary_of_another_size_than_the_towers_is_refused(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    model = make_model(tmp_path / "model")
    config = CLIPConfig.from_pretrained(model)
    config.text_config.vocab_size = 5000
    CLIPModel(config).save_pretrained(model)
    with pytest.raises(ModelError, match=r"knows 17 tokens.*made for 5,000"):
        load_backbone(str(model))


def test_tokens_the_text_tower_does_not_know_are_refused(folder: Path) -> None:
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["vocab"]["pug"] = 64  # it knows 0 to 63
    (folder / "tokenizer.json").write_text(json.dumps(described))
    backbone = load_backbone(str(folder))
    assert len(backbone.tokenize(["a photo of a dog"])["input_ids"]) == 1
    with pytest.raises(ModelError, match=r"token 64.*below 64"):
        backbone.tokenize(["a photo of a pug"])


def test_prompts_without_the_end_token_of_the_tower_are_refused(folder: Path) -> None:
    """CLIP takes its feature there; without it, every prompt has the feature of its start."""
    described = json.loads((folder / "tokenizer.json").read_text())
    described["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match=r"lack the end token.*\(1\)"):
        load_backbone(str(folder)).tokenize(["a photo of a dog"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("version https://git-lfs.github.com/spec/v1\nsize 12\n", r"only a pointer.*git lfs pull"),
        ('{"version": "1.0", "mod', "no whole JSON"),
    ],
)
def test_broken_tokenizer_file_is_named(folder: Path, content: str, said: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=rf"tokenizer\.json is {said}"):
        load_backbone(str(folder))


# --- Class names in tokens --------------------------------------------------------------------


def weights(folder: Path, *class_names: str) -> torch.Tensor:
    return zero_shot_weights(load_backbone(str(folder)), class_names, ["a photo of a {}."])


def test_different_names_that_are_the_same_tokens_are_refused(folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, normalizers

    blind = Tokenizer.from_file(str(folder / "tokenizer.json"))
    blind.normalizer = normalizers.Replace(Regex("[0-9]"), "")
    blind.save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelError, match="'dog_1' and 'dog_2' are the same tokens"):
        weights(folder, "dog_1", "amber", "dog_2")


@pytest.mark.parametrize("names", [("金毛", "哈士奇"), ("巴哥", "red", "金 毛")])
def test_names_of_unknown_words_are_refused(clip_folder: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=rf"does not know the words of 2 of {len(names)}.*prompts"):
        weights(clip_folder, *names)


def test_a_single_unknown_name_is_warned_of(
    clip_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights(clip_folder, "red", "金毛", "blue")
    assert "knows little of the names of 金毛" in caplog.text


def test_names_that_differ_in_case_alone_are_warned_of_not_refused(
    clip_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no fault of the tokenizer, and training can tell such classes by their photos."""
    assert len(weights(clip_folder, "red_dog", "Red-Dog", "blue")) == 3
    assert "'red_dog' and 'Red-Dog' read alike" in caplog.text


# --- Checkpoints ------------------------------------------------------------------------------


def test_training_on_a_model_without_tokenizer_writes_nothing(
    trained: Path, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no tokenizer"):
        train(settings_of(tmp_path / "run", trained / "bare", photos), progress=False)
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_zero_shot_is_not_measured_without_the_tokenizer(trained: Path, photos: Path) -> None:
    run, bare = trained / "run", str(trained / "bare")
    options: dict[str, Any] = {"output_dir": None, "base_model": bare, "progress": False}
    with pytest.raises(ModelError, match=r"(?s)no tokenizer.*--no-baseline"):
        evaluate(run, **options)
    assert evaluate(run, baseline=False, **options).baseline is None
    with pytest.raises(ModelError, match="no tokenizer"):
        add_class(run, "red", base_model=bare, output=trained / "plus", progress=False)
    assert not (trained / "plus").exists()


def test_prediction_needs_no_tokenizer(trained: Path, photos: Path) -> None:
    """Text features stand in the checkpoint: nothing is made up, and nothing changes."""
    photo = next((photos / "test" / "blue").iterdir())
    before = Predictor(trained / "run").predict(photo)
    assert Predictor(trained / "run", base_model=str(trained / "bare")).predict(photo) == before
    copy = shutil.copytree(trained / "run" / "checkpoint-epoch-1", trained / "checkpoint-epoch-7")
    found = compare(
        [trained / "run", copy], base_model=str(trained / "bare"), output_dir=None, progress=False
    )
    assert not found.differences[0].paired.gained


def test_checkpoint_trained_without_a_tokenizer_says_so(
    trained: Path, tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As earlier versions made them: the text features of all classes are one and the same."""
    broken = shutil.copytree(
        trained / "run" / "checkpoint-epoch-1", tmp_path / "checkpoint-epoch-1"
    )
    head = read_tensors(broken / "head.safetensors")
    head["features"] = head["features"][:1].expand_as(head["features"])
    write_tensors(broken / "head.safetensors", head)
    write_sums(broken, leave_out=frozenset({"README.md"}))
    Predictor(broken)
    assert "text features of its 3 classes are all the same" in caplog.text
    with pytest.raises(CheckpointError, match="text features of this checkpoint's classes"):
        add_class(broken, "red", progress=False)


# --- Image processors -------------------------------------------------------------------------


def test_missing_image_processor_is_named_with_its_file(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"image processor cannot be loaded.*Expected prepro") as e:
        load_backbone(str(folder))
    assert str(e.value).endswith(".")  # no sentence is cut


def test_image_processor_that_says_nothing_is_refused(folder: Path) -> None:
    """`transformers` would fill in the defaults of its class."""
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "CLIPImageProcessor"}'
    )
    with pytest.raises(ModelError, match="says nothing of how photos are prepared"):
        load_backbone(str(folder))


def test_image_processor_of_another_size_than_the_tower_is_refused(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    other = {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}
    path.write_text(json.dumps(json.loads(path.read_text()) | other))
    with pytest.raises(ModelError, match=r"makes photos of 48×48.*trained on 32×32"):
        load_backbone(str(folder))


# --- The case of prompts ----------------------------------------------------------------------

LETTERS = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.éÉ", "▁"]
VOCABULARY = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4}
VOCABULARY |= {letter: 5 + i for i, letter in enumerate(LETTERS)}


@pytest.fixture(scope="module")
def siglip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as those of SigLIP 2 on the hub: it declares Gemma's tokenizer."""
    from transformers import GemmaTokenizer

    model = make_model(tmp_path_factory.mktemp("siglip2") / "model", "siglip")
    (model / "tokenizer.json").unlink()
    GemmaTokenizer(vocab=VOCABULARY, merges=[]).save_pretrained(model)
    assert json.loads((model / "tokenizer_config.json").read_text())["tokenizer_class"] == (
        "GemmaTokenizer"
    )
    return model


def test_prompts_of_siglip2_are_those_of_its_own_tokenizer(siglip2: Path) -> None:
    from transformers import Siglip2Tokenizer

    own = Siglip2Tokenizer(vocab=VOCABULARY, merges=[])
    backbone = load_backbone(str(siglip2))
    for prompt in ("A Collie.", "a collie.", "ÉPAGNEUL", "épagneul"):
        ours = backbone.tokenize([prompt])["input_ids"][0].tolist()
        assert [x for x in ours if x] == [x for x in own(prompt)["input_ids"] if x]


@pytest.mark.parametrize("other", ["collie", "COLLIE", "Collie"])
def test_equal_names_have_equal_text_features_on_siglip(siglip2: Path, other: str) -> None:
    assert torch.equal(weights(siglip2, "Collie", "Pug")[0], weights(siglip2, other, "Pug")[0])


@pytest.mark.parametrize("kind", ["clip", "chinese_clip"])
def test_other_models_take_prompts_as_they_are_written(kind: str, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", kind)
    described = json.loads((model / "tokenizer.json").read_text())
    described["normalizer"] = None
    described["model"]["vocab"]["Dog"] = 40
    (model / "tokenizer.json").write_text(json.dumps(described))
    upper, lower = load_backbone(str(model)).tokenize(["a Dog", "a dog"])["input_ids"].tolist()
    assert upper != lower


@pytest.fixture
def capitals(tmp_path: Path) -> Path:
    data = make_photos(
        tmp_path / "photos", classes=("Collie", "Pug"), counts={"train": 4, "val": 2}
    )
    return data


def text_features(backbone: Backbone, names: tuple[str, ...]) -> torch.Tensor:
    return zero_shot_weights(backbone, names, ["a photo of a {}."])


def test_checkpoint_of_before_keeps_the_case_of_its_prompts(
    siglip2: Path, capitals: Path, tmp_path: Path
) -> None:
    """What it answers, its zero-shot figures and new classes stand on prompts as written."""
    run = tmp_path / "run"
    train(settings_of(run, siglip2, capitals), progress=False)
    checkpoint, names = run / "checkpoint-epoch-1", ("Collie", "Pug")
    now = LoadedCheckpoint(read_checkpoint(checkpoint)).zero_shot()
    assert torch.allclose(
        now.head.weights(), text_features(load_backbone(str(siglip2)), names), atol=1e-6
    )
    before = LoadedCheckpoint(change_record(checkpoint, lower_case=None)).zero_shot()
    cased = text_features(load_backbone(str(siglip2), lower_case=False), names)
    assert torch.allclose(before.head.weights(), cased, atol=1e-6)
    assert not torch.allclose(now.head.weights(), cased, atol=1e-4)
    added = add_class(checkpoint, "Chow", progress=False).checkpoint
    written = load_backbone(str(siglip2), lower_case=False)
    row = read_tensors(added.path / "head.safetensors")["features"][-1]
    assert torch.allclose(row, text_features(written, ("Chow",))[0], atol=1e-6)


def test_resumed_run_keeps_the_case_of_its_prompts(
    siglip2: Path, capitals: Path, tmp_path: Path
) -> None:
    run, text = tmp_path / "run", {"lora.towers": "both"}
    train(settings_of(run, siglip2, capitals, **text), progress=False)
    assert change_record(run / "checkpoint-epoch-1", lower_case=None).record.lower_case is False
    more = settings_of(run, siglip2, capitals, **text | {"training.num_epochs": 2})
    train(more, resume=True, progress=False)
    assert read_checkpoint(run / "checkpoint-epoch-2").record.lower_case is False


# --- SigLIP's own tokenizer -------------------------------------------------------------------


def declare_siglip(folder: Path) -> Path:
    """A folder as those of SigLIP on the hub, but for the sentencepiece file's content."""
    make_model(folder, "siglip")
    for name in TOKENIZER:
        (folder / name).unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}')
    (folder / "spiece.model").write_bytes(b"")
    return folder


def test_siglip_prompts_are_those_of_its_own_tokenizer(tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece")
    from transformers import SiglipTokenizer

    folder, content = declare_siglip(tmp_path / "siglip"), io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(["a photo of a collie dog", "a pug in the snow"] * 20),
        model_writer=content, vocab_size=60, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(content.getvalue())
    backbone = load_backbone(str(folder))
    own = SiglipTokenizer.from_pretrained(str(folder))
    for prompt in ("A photo of a Collie!", "a photo of a collie"):
        ours = backbone.tokenize([prompt])["input_ids"]
        theirs = own([prompt], padding="max_length", max_length=32, return_tensors="pt")
        assert torch.equal(ours, theirs["input_ids"])
    assert torch.equal(weights(folder, "Collie", "pug")[0], weights(folder, "collie", "pug")[0])


def test_missing_package_is_named_with_the_line_that_installs_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['sentencepiece'] = None\n"
        "from cliptune.model.backbone import load_backbone; load_backbone(sys.argv[1])"
    )
    folder = declare_siglip(tmp_path / "siglip")
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert f"{folder}: its tokenizer cannot be loaded: it needs sentencepiece" in last
    assert last.endswith("Install with: pip install sentencepiece")


def test_reason_of_a_foreign_error_is_whole_sentences() -> None:
    from cliptune.errors import reason

    text = "Cannot be read. " + "It was not found in the\nfolder. " * 30
    said = reason(OSError(text), limit=100)
    assert said.endswith("folder.")
    assert len(said) <= 100
    assert "\n" not in said

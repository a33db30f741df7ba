from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cliptune.config import Settings, load_settings
from cliptune.config_source import parse_override
from cliptune.errors import SettingsError

CONTRACT_CONFIG = Path(__file__).parents[1] / "code/02-fine-tuning/lora/config.yaml"


def faults(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    return str(caught.value)


def test_contract_config_holds_every_key_at_its_default() -> None:
    written = load_settings(CONTRACT_CONFIG).to_dict()
    defaults = Settings().to_dict()
    written["model"]["prompts"] = defaults["model"]["prompts"]  # the tutorial is about dogs
    assert written == defaults
    assert yaml.safe_load(CONTRACT_CONFIG.read_text(encoding="utf-8")).keys() == defaults.keys()


def test_all_faults_are_reported_together_with_line_and_nearest_name(tmp_path: Path) -> None:
    message = faults(
        tmp_path,
        "lora:\n  rank: 4\n  lora_dropout: 1.5\n"
        "training:\n  num_epochs: ten\n  lr_scheduler: {type: cosin}\n"
        "hardwar: {}\n",
    )
    assert "config.yaml:2: unknown key 'lora.rank'. Did you mean 'lora.r'?" in message
    assert "config.yaml:3: lora.lora_dropout: found 1.5; expected less than 1" in message
    assert "config.yaml:5: training.num_epochs: found 'ten'; expected a whole number" in message
    assert "expected one of: 'cosine', 'linear' or 'constant'" in message
    assert "Did you mean 'hardware'?" in message
    assert "5 faults" in message


def test_two_batch_sizes_are_an_error_that_names_both(tmp_path: Path) -> None:
    message = faults(tmp_path, "data: {batch_size: 16}\ntraining: {batch_size: 32}\nseed: -1\n")
    assert "data.batch_size is 16" in message
    assert "training.batch_size is 32" in message
    assert "seed: found -1" in message


@pytest.mark.parametrize("section", ["data", "training"])
def test_one_batch_size_counts_for_both_places(tmp_path: Path, section: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{section}: {{batch_size: 16}}\n")
    settings = load_settings(path)
    assert settings.data.batch_size == settings.training.batch_size == 16


def test_an_overridden_batch_size_counts_for_both_places() -> None:
    settings = load_settings(CONTRACT_CONFIG, overrides={"training.batch_size": 16})
    assert settings.data.batch_size == settings.training.batch_size == 16


def test_a_number_in_exponent_form_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("training: {learning_rate: 1e-4}\n")
    assert load_settings(path).training.learning_rate == 1e-4
    assert parse_override("training.learning_rate=3e-4") == ("training.learning_rate", 3e-4)


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    assert "'seed' (lines 1 and 2)" in faults(tmp_path, "seed: 1\nseed: 2\n")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"model.head": "linear", "lora.towers": "both"}, "does not use the text tower"),
        ({"model.prompts": ["a photo"]}, "exactly one {}"),
        ({"model.prompts": ["{} and {}"]}, "exactly one {}"),
        ({"training.lr_scheduler": {"type": "linear", "num_cycles": 2.0}}, "has no cycles"),
        ({"data.augmentation.crop_scale": [0.9, 0.2]}, "the lower first"),
        ({"lora": 3}, "expected keys with values"),
        ({"training.learning_rate": float("nan")}, "finite"),
        ({"lora.target_modules": "q_proj"}, "expected a list"),
        ({"training.num_epochs": True}, "expected a whole number"),
    ],
)
def test_contradictions_and_wrong_types_are_refused(
    overrides: dict[str, object], words: str
) -> None:
    with pytest.raises(SettingsError, match="(?s).*" + words.replace("{}", r"\{\}")):
        load_settings(overrides=overrides)


def test_a_rule_that_an_override_breaks_is_not_blamed_on_the_file() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(CONTRACT_CONFIG, overrides={"model.prompts": ["no place"]})
    assert "config.yaml" not in str(caught.value)
    assert "command line" in str(caught.value)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such configuration file"):
        load_settings(tmp_path / "none.yaml")
    assert "config.yaml:3: not valid YAML" in faults(tmp_path, "a:\n  - b\n c: d\n")
    assert "expected sections" in faults(tmp_path, "- 1\n")


def test_settings_survive_being_written_and_read(tmp_path: Path) -> None:
    settings = load_settings(overrides={"lora.r": 4, "data.augmentation.flip": 0.25})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings.to_dict()))
    assert load_settings(path) == settings


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab:{}é\n", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["r", "model", "type", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
some_keys = st.sampled_from(
    ["model", "lora.r", "data.augmentation", "training.lr_scheduler.type", "seed", "no.such.key"]
)


@given(st.dictionaries(some_keys, yaml_values, max_size=4))
def test_any_values_are_accepted_or_refused_in_words(values: dict[str, object]) -> None:
    try:
        settings = load_settings(overrides=values)
    except SettingsError as error:
        outcome: object = str(error)
    else:
        outcome = settings.to_dict()
    assert outcome


@pytest.mark.parametrize(
    "text",
    [
        "lora: &x\n  r: *x\n",
        "a: &a {p: 1, q: 2}\n"
        + "".join(
            f"{y}: &{y} {{{', '.join(f'{k}: *{x}' for k in 'stuvw')}}}\n"
            for x, y in zip("abcdefgh", "bcdefghi", strict=True)
        ),
    ],
)
def test_aliases_that_stand_for_endlessly_much_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="stand for too many keys, or for themselves"):
        load_settings(path)


def test_what_was_found_is_shown_in_short(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"lora: {{r: {[1] * 20_000}}}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert len(str(caught.value)) < 500

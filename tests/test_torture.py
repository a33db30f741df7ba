"""A sample of `make torture`, and laws that hold for any input."""

from __future__ import annotations

import io
import shutil
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cliptune.commands.messages import for_terminal
from cliptune.config import Settings, load_settings
from cliptune.data.folder import scan_classes
from cliptune.data.naming import clean_name
from cliptune.data.reading import Unreadable
from cliptune.errors import DataError, SettingsError
from cliptune.files import check_sums, write_sums
from cliptune.inference.output import open_output
from cliptune.inference.predictor import ClassScore, Prediction
from cliptune.text import columns, fit, no_markup, one_line, shorten

TORTURE = Path(__file__).parents[1] / "benchmarks" / "torture" / "run.py"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
section_names = st.sampled_from(sorted(Settings.model_fields))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="the failing disk is made by gcc")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="by LD_PRELOAD")
def test_a_sample_of_the_torture_finds_nothing() -> None:
    done = subprocess.run(
        [sys.executable, TORTURE, "--sample"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("\n|") >= 6


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        section_names | st.text(max_size=6),
        values
        | st.dictionaries(
            st.sampled_from(["r", "lora_alpha", "data_dir", "batch_size", "augmentation"]), values
        ),
        max_size=4,
    )
)
def test_any_settings_are_taken_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    refusal = ""
    try:
        taken = load_settings(path)
        assert Settings.model_validate(taken.to_dict()) == taken  # it says itself again
    except SettingsError as error:
        refusal = str(error)
    assert not refusal or str(path) in refusal


@given(st.text())
def test_no_name_acts_on_a_terminal_or_as_markup(name: str) -> None:
    assert one_line(name).isprintable()
    assert for_terminal(name).replace("\n", "").isprintable()
    assert columns(fit(name, 12)) == 12
    assert columns(shorten(name, 5)) <= 5
    escaped = no_markup(name)
    assert "\n" not in escaped
    assert not any(f" {mark}" in f" {escaped}" for mark in ("<", "|", "#", "`", "["))


@settings(deadline=None)
@given(st.text(min_size=1, max_size=30), st.text(max_size=30))
def test_a_csv_gives_back_each_name_and_no_formula(
    tmp_path_factory: pytest.TempPathFactory, label: str, reason: str
) -> None:
    import csv

    path = tmp_path_factory.mktemp("csv") / "out.csv"
    label, reason = (text.encode("utf-8", "replace").decode() for text in (label, reason))
    with open_output(path, top_k=1) as write:
        write(Prediction((ClassScore(label, 0.5, label),), "photo.jpg"))
        write(Unreadable(Path("photo.jpg"), reason))
    text = path.read_bytes().decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    for cell, meant in ((rows[1][1], label), (rows[2][-1], reason)):
        assert cell in (meant, f"'{meant}")
        if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
            float(cell)  # a number with a sign


names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=50, deadline=None)
@given(st.sets(names, min_size=1, max_size=4))
def test_any_folder_name_is_a_class_or_hidden(
    tmp_path_factory: pytest.TempPathFactory, folders: set[str]
) -> None:
    root = tmp_path_factory.mktemp("classes")
    for name in folders:
        (root / name).mkdir()
        (root / name / "a.jpg").write_bytes(b"x")
    classes = {clean_name(name) for name in folders if not name.startswith(".")}
    if "" in classes:
        with pytest.raises(DataError, match="of which nothing can be seen"):
            scan_classes(root)
        return
    found = scan_classes(root)
    assert set(found) == classes
    shown = sum(not name.startswith(".") for name in folders)
    assert sum(map(len, found.values())) == shown  # no folder's photos are lost


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(string.ascii_letters + " é", min_size=1, max_size=8), st.binary(), max_size=3
    ),
    st.data(),
)
def test_sums_notice_any_change(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_sums(folder)
    assert check_sums(folder) == []
    for name, content in files.items():
        other = data.draw(st.binary())
        (folder / name).write_bytes(other)
        assert (check_sums(folder) == []) == (other == content)
        (folder / name).write_bytes(content)

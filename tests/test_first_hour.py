"""The transcript in docs/first-hour.md is what a newcomer sees."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from transcript import ROOT, Step, differences, ran, steps_of, with_outputs

ENGLISH, CHINESE = (ROOT / "docs" / f"first-hour{x}.md" for x in ("", ".zh-CN"))
SHOWN = Step(
    "cliptune train",
    (
        "data/mine: 4 classes, 280 training photos",
        "/home/you/model, bf16 on cpu",
        "zero-shot baseline on val: loss 0.642, top-1 60.0 %",
        "epoch 1/10  train 0.233 92.0%  val 0.322 86.7%  58 img/s",
        "epoch 2/10  train 0.188 92.9%  val 0.304 86.7%  61 img/s",
        "",
        "training finished",
        "  epochs         8 of 10, stopped early: val no longer improved",
        "  time           1:15 training, 59.8 images/s, 144 updates",
        "  best           outputs/mine/checkpoint-epoch-0",
        "  last           outputs/mine/checkpoint-epoch-8",
        "",
        "Right only with this model: 23 photos; only zero-shot: 2 (McNemar's test,",
        "chi-square: p < 0.001).",
    ),
)


def replaced(*pairs: tuple[str, str]) -> Step:
    text = "\n".join(SHOWN.output)
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    return Step(SHOWN.command, tuple(text.splitlines()))


def test_what_another_machine_prints_is_no_difference() -> None:
    other = replaced(
        ("bf16", "float32"), ("0.642, top-1 60.0", "0.639, top-1 61.7"),
        ("epoch 2/10  train 0.188 92.9%  val 0.304 86.7%  61 img/s\n", ""),
        ("8 of 10, stopped early: val no longer improved", "10 of 10"),
        ("1:15 training, 59.8", "0:09 training, 1,203.5"), ("144 updates", "180 updates"),
        ("epoch-0\n  last           outputs/mine/checkpoint-epoch-8\n", "epoch-8\n"),
        ("23 photos; only zero-shot: 2 (McNemar's test,\nchi-square: p < 0.001",
         "22 photos; only zero-shot: 1 (McNemar's test, exact\nbinomial: p = 0.004"),
    )  # fmt: skip
    assert differences([SHOWN], [other]) == []
    assert differences([other], [SHOWN]) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("4 classes", "5 classes"),
        ("280 training photos", "281 training photos"),
        ("zero-shot baseline", "zero-shot figures"),
        ("60.0 %", "20.0 %"),
        ("loss 0.642", "loss 1.642"),
        ("\ntraining finished", ""),
        ("training finished", "training finished\nWarning: something is deprecated"),
        ("outputs/mine/checkpoint-epoch-0", "outputs/other/checkpoint-epoch-0"),
    ],
)
def test_what_the_program_says_otherwise_is_told_with_both_lines(before: str, after: str) -> None:
    (told,) = differences([SHOWN], [replaced((before, after))])
    assert told.startswith("$ cliptune train\n  shown: ")
    assert "\n  found: " in told


def test_a_transcript_written_anew_holds_what_was_printed_and_all_else_as_it_was() -> None:
    text = "# Title\n\n```console\n$ one\nold\n$ two \\\n> three\n```\n\n```bash\n$ no\n```\nEnd.\n"
    found = [Step("one", ("new", "", "lines")), Step("two \\\nthree", ())]
    again = with_outputs(text, found)
    assert steps_of(again) == found
    assert again == text.replace("old\n", "new\n\nlines\n")


def test_both_languages_show_the_same_commands_and_output() -> None:
    english, chinese = (steps_of(path.read_text(encoding="utf-8")) for path in (ENGLISH, CHINESE))
    assert english == chinese
    verbs = {word for step in english for word in step.command.split()[:2]}
    assert {"pip", "demo", "prepare", "check", "train", "evaluate", "predict", "serve", "curl",
            "push"} <= verbs  # fmt: skip


@pytest.mark.slow
def test_a_newcomers_first_hour_goes_as_the_transcript_says(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the wheel is built by it: pip install '.[dev]'")
    if missing := [tool for tool in ("bash", "curl") if shutil.which(tool) is None]:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    shown = steps_of(ENGLISH.read_text(encoding="utf-8"))
    found = ran([step.command for step in shown], tmp_path)
    assert differences(shown, found) == []

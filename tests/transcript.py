"""The transcripts in docs/: their commands run again, in an empty folder, as a newcomer would.

    python tests/transcript.py docs/first-hour.md                                   compares
    python tests/transcript.py --update docs/first-hour.md docs/first-hour.zh-CN.md    writes anew

A transcript is Markdown; in its blocks of ```console a line after "$ " is a command (one after "> "
goes on with it), and the lines that follow are what it printed. All blocks of a file are one shell.
Its Python is this one's base, so that `pip install` finds nothing of this checkout: a wheel is
built, pip is told where it lies, and all that it needs is had from this environment. The hub is
`hub_server`. Of what differs from one machine to another, `VARIES` says how far it may.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from hub_server import a_hub

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
HOME = "/home/you/first-hour"  # what the folder is called that all of it happens in
PORT = "8000"  # of the server; the test takes a free one
MARK = "\x1e"  # between the outputs of commands
SECONDS = 1800  # on a machine that does much else; three minutes on two cores
WRAPPED = 60  # characters; a line of a paragraph is longer, but for its last


@dataclass(frozen=True)
class Step:
    """A command and the lines that it printed."""

    command: str
    output: tuple[str, ...]


def _any(_: str, __: str) -> bool:
    return True


def _points(most: float) -> Callable[[str, str], bool]:
    def near(a: str, b: str) -> bool:
        one, other = (float(x.replace("−", "-")) for x in (a, b))
        return abs(one - other) <= most

    return near


def _share(most: float) -> Callable[[str, str], bool]:
    def near(a: str, b: str) -> bool:
        one, other = (float(x.replace(",", "")) for x in (a, b))
        return abs(one - other) <= most * max(one, other)

    return near


# What is found in a line, first that fits, and when two of them are alike. All else of a line must
# be the same, but for the spaces between words: columns are as wide as their figures.
VARIES: dict[str, tuple[str, Callable[[str, str], bool]]] = {
    "version": (r"(?<=^cliptune )\d+\.\d+\.\d+\S*|(?<=/lib/python)3\.\d+", _any),
    "commit": (r"\b[0-9a-f]{40}\b|(?<=@)[0-9a-f]{12}\b", _any),
    "store": (r"(?<=/photos-)[0-9a-f]+", _any),
    "time": (r"\b\d+:\d\d(?::\d\d)?\b|\b[\d.]+(?= s\b)", _any),
    "rate": (r"(?:\b[\d.,]+|–)(?= (?:img|images)/s)", _any),
    "memory": (r"\b[\d.]+(?= GiB\b)", _any),
    "size": (r"\b[\d,]+(?= bytes\b)", _share(0.2)),
    "number format": (r"\b(?:bf16|float32|fp16)(?= on \w+)", _any),
    "epoch": (r"(?<=checkpoint-epoch-)\d+|\b\d+(?= updates?\b)", _any),
    "stop": (r"\b\d+ of \d+(?:, stopped early: val no longer improved)?$", _any),
    "test": (r"\b(?:chi-square|exact binomial): p [=<] ?[\d.]+", _any),
    "photos": (r"\b\d+(?= photos;| \(McNemar's)", _points(20)),
    "bar": (r"[█▉▊▋▌▍▎▏]+", _any),
    "percent": (r"[+−-]?\b\d+\.\d\b", _points(12)),
    "share": (r"[+−-]?\b\d+\.\d\d+\b", _points(0.25)),
}
FOUND = re.compile("|".join(f"({pattern})" for pattern, _ in VARIES.values()))
# Lines of which a few photos decide how many there are; one after another they count as one.
SEVERAL = {
    "progress": re.compile(r"epoch \d+/\d+  train |update \d+(/\d+)?  (val )?loss "),
    "confused": re.compile(r"  .+ taken for .+: \d+ of \d+$"),
    "lesser answer": re.compile(r"  .+ [01]\.\d %  "),
}
# And of which they decide whether they are there at all.
PERHAPS = re.compile(r"  last  |The fitted head stays the best: |be chance\. More val photos ")


def steps_of(text: str) -> list[Step]:
    """The commands of a transcript, in their order, with what it says that they print."""
    return [step for block in BLOCK.findall(text) for step in _steps_of_block(block)]


def _steps_of_block(block: str) -> Iterator[Step]:
    command, output = "", list[str]()
    for line in block.splitlines():
        if line.startswith("$ "):
            if command:
                yield Step(command, tuple(output))
            command, output = line[2:], []
        elif line.startswith("> ") and not output:
            command += "\n" + line[2:]
        else:
            assert command, f"a block begins with what no command printed: {line}"
            output.append(line)
    yield Step(command, tuple(output))


def with_outputs(text: str, found: Sequence[Step]) -> str:
    """The transcript with what its commands printed now."""
    left = iter(found)

    def block(match: re.Match[str]) -> str:
        lines = list[str]()
        for _ in _steps_of_block(match[0]):
            step = next(left)
            lines += ["$ " + step.command.replace("\n", "\n> "), *step.output]
        return "\n".join(lines) + "\n"

    return BLOCK.sub(block, text)


def differences(shown: Sequence[Step], found: Sequence[Step]) -> list[str]:
    """Where what was printed is not what the transcript shows; empty where all is alike."""
    assert [step.command for step in shown] == [step.command for step in found]
    told = []
    for before, now in zip(shown, found, strict=True):
        pairs = zip_longest(_compared(before.output), _compared(now.output), fillvalue="(nothing)")
        unlike = [f"  shown: {a}\n  found: {b}" for a, b in pairs if not alike(a, b)]
        if unlike:
            told.append(f"$ {before.command}\n{unlike[0]}")  # those after it are moved, perhaps
    return told


def alike(shown: str, found: str) -> bool:
    """Whether two lines are the same, but for what may vary by as much as it may."""
    a, b = (FOUND.split(line) for line in (shown, found))
    step = len(VARIES) + 1  # what lies between two findings, and one place for each kind
    if [" ".join(x.split()) for x in a[::step]] != [" ".join(x.split()) for x in b[::step]]:
        return False
    kinds = list(VARIES.values())
    for i, (one, other) in enumerate(zip(a, b, strict=True)):
        if i % step and (one is None) != (other is None):
            return False
        if i % step and one is not None and not kinds[i % step - 1][1](one, other):
            return False
    return True


def _compared(lines: Sequence[str]) -> list[str]:
    """Lines to compare: paragraphs as one, lines of `SEVERAL` as one, without those `PERHAPS`."""
    kept = [""]
    for line in lines:
        if PERHAPS.match(line):
            continue
        kind = next((name for name, form in SEVERAL.items() if form.match(line)), None)
        if kind:
            if kept[-1] != f"({kind})":
                kept.append(f"({kind})")
        elif len(kept[-1]) > WRAPPED and line[:1].strip() and kept[-1][:1].strip():
            kept[-1] += " " + line  # figures of another width wrap a paragraph elsewhere
        elif line or kept[-1]:
            kept.append(line)
    return kept[1:]


def ran(commands: Sequence[str], scratch: Path) -> list[Step]:
    """What `commands` print, one after another in one shell, in an empty folder below `scratch`.

    Raises `AssertionError` where one of them fails.
    """
    folder = scratch / Path(HOME).relative_to("/")
    folder.mkdir(parents=True)
    with a_hub() as hub, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        words = {
            str(folder): HOME, str(scratch / "cliptune"): "/home/you/.cache/cliptune",
            str(scratch / "hf"): "/home/you/.cache/huggingface",
            hub.address: "$HF_ENDPOINT", f":{port}": f":{PORT}",
        }  # fmt: skip
        script = ["set -e"]
        for command in commands:
            script += [command.replace(f":{PORT}", f":{port}").replace(
                f"--port {PORT}", f"--port {port}"), f"printf '{MARK}'"]  # fmt: skip
        # Its words into a file: what goes on behind it would hold a pipe open.
        printed = scratch / "printed"
        environment = hub.environment(scratch) | _environment(scratch)
        with printed.open("wb") as stream:
            ended = subprocess.run(
                ["bash", "-c", "\n".join(script)], cwd=folder, env=environment, check=False,
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, timeout=SECONDS,
            )  # fmt: skip
    text = printed.read_text(encoding="utf-8")
    for here, there in words.items():
        text = text.replace(here, there)
    outputs = text.split(MARK)
    if ended.returncode:
        raise AssertionError(f"$ {commands[len(outputs) - 1]}\n{outputs[-1]}")
    return [Step(command, tuple(line.rstrip() for line in output.strip("\n").splitlines()))
            for command, output in zip(commands, outputs[:-1], strict=True)]  # fmt: skip


def _environment(scratch: Path) -> dict[str, str]:
    """Of a fresh shell: this base Python, and a pip that knows of our wheel alone."""
    wheels, shelf = scratch / "wheels", scratch / "shelf"
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", wheels, ROOT], check=True, cwd=scratch)
    shelf.mkdir()
    for path in map(Path, (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))):
        for each in path.iterdir():
            ours = re.match(r"(?i)(__editable__.*)?_*cliptune|pip\b|setuptools\b", each.name)
            if not ours and not (shelf / each.name).exists():
                (shelf / each.name).symlink_to(each)
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    tools = scratch / "tools"
    tools.mkdir()
    (tools / "python3").symlink_to(base)
    return {
        "PATH": os.pathsep.join([str(tools), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str((scratch / Path(HOME).relative_to("/")).parent),
        "PYTHONPATH": str(shelf), "LC_ALL": "C.UTF-8", "COLUMNS": "80", "CLIPTUNE_LANG": "en",
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_NO_DEPS": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write what was printed")
    parser.add_argument("files", nargs="+", type=Path, help="of the same commands")
    given = parser.parse_args()
    texts = {path: path.read_text(encoding="utf-8") for path in given.files}
    first, *others = ([step.command for step in steps_of(text)] for text in texts.values())
    if any(commands != first for commands in others):
        raise SystemExit("these files do not show the same commands")
    with tempfile.TemporaryDirectory() as scratch:
        found = ran(first, Path(scratch).resolve())
    for path, text in texts.items():
        if given.update:
            path.write_text(with_outputs(text, found), encoding="utf-8", newline="\n")
        elif told := differences(steps_of(text), found):
            raise SystemExit(f"{path}:\n" + "\n".join(told))


if __name__ == "__main__":
    main()

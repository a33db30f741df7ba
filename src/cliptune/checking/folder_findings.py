"""What is wrong with the folders themselves: splits, classes, their names and sizes."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from cliptune.checking.findings import Finding
from cliptune.checking.inspection import Inspected
from cliptune.data.classes_file import read_names
from cliptune.data.counts import Counts
from cliptune.data.image_files import IMAGE_SUFFIXES, is_picture, passed_over
from cliptune.data.manifest import Manifest
from cliptune.data.splits import SPLIT_NAMES, unknown_folders
from cliptune.errors import DataError, named
from cliptune.language import counting, joined, marked, said
from cliptune.text import command

FEW_PHOTOS = 10
IMBALANCE = 5  # times as many photos in the largest class as in the smallest
_ODD = re.compile(
    r"(new.?folder|untitled|unnamed|images?|photos?|pictures?|train(ing)?|val(idation)?|test(ing)?"
    r"|misc|unknown|others?|temp|tmp|unsorted|default|copy|\d+)([ _-]*\(?\d+\)?)?",
    re.IGNORECASE,
)


def tree_findings(data_dir: Path, counts: Counts, folders: Mapping[str, Path]) -> list[Finding]:
    """Splits and classes that are missing, empty, or unknown to train/.

    `folders` are those of the splits, as `split_folders` finds them.
    """
    if not any(sum(classes.values()) for classes in counts.values()):
        text = said(
            "no photos yet; expected {folder}/train/<class>/ with photos ({endings}), the same for "
            "val/ and test/",
            folder=data_dir, endings=", ".join(sorted(IMAGE_SUFFIXES)),
        )  # fmt: skip
        others = sorted(
            p.name for p in data_dir.iterdir() if p.is_dir() and p.name.lower() not in SPLIT_NAMES
        )
        remedy = f"'{command('cliptune', 'prepare', '--source', data_dir)} --output-dir NEW_FOLDER'"
        if others := [name for name in others if not name.startswith(".")]:
            text = said(
                "{fault}; it holds {names}: if those are classes, split them with {remedy}",
                fault=text, names=named(others), remedy=remedy,
            )  # fmt: skip
        packed = [p.name for p in data_dir.iterdir() if "\\" in p.name and p.is_file()]
        if packed:
            text = said(
                "{fault}; the names of {files} hold backslashes ('{name}'), as archives packed on "
                "Windows leave them. Taken apart into folders by {remedy}",
                fault=text, files=counting(len(packed), "file"), name=min(packed), remedy=remedy,
            )  # fmt: skip
        return [Finding("no_photos", text)]
    findings = []
    train = counts.get("train")
    if train is None:
        findings.append(
            Finding(
                "no_train",
                said("{folder} holds the photos to learn from", folder=data_dir / "train"),
            )
        )
        train = {}
    elif len(train) < 2:
        findings.append(
            Finding(
                "too_few_classes",
                said(
                    "{folders}; expected at least two", folders=counting(len(train), "class folder")
                ),
            )
        )
    empty = [
        said("{folder}/{name}: no photo", folder=folders["train"].name, name=name)
        for name, number in train.items()
        if number == 0
    ]
    findings += [Finding("empty_class", fault) for fault in empty]
    for split in ("val", "test"):
        if split not in counts:
            findings.append(
                Finding(f"no_{split}", said("{folder}: no such folder", folder=data_dir / split))
            )
        else:
            findings += _later_split(split, folders[split].name, counts[split], train)
    return findings


def _later_split(
    split: str, folder: str, classes: Mapping[str, int], train: Mapping[str, int]
) -> list[Finding]:
    if not any(classes.values()):
        kind = "empty_split" if split == "val" else "no_test"
        return [Finding(kind, said("{folder}/ holds no photos", folder=folder))]
    findings = []
    if missing := [name for name in train if not classes.get(name)]:
        findings.append(
            Finding(
                "class_missing",
                said("{folder}/ has no photos of {names}", folder=folder, names=", ".join(missing)),
            )
        )
    kind = "unknown_class" if split == "val" else "class_left_out"
    for name in classes:
        if name not in train:
            near = difflib.get_close_matches(_letters(name), map(_letters, train), n=1, cutoff=0.8)
            meant = [own for own in train if near and _letters(own) == near[0]]
            detail = f"{folder}/{name}"
            if meant:
                detail = said("{name}; did you mean '{other}'?", name=detail, other=meant[0])
            findings.append(Finding(kind, detail))
    return findings


def size_findings(counts: Counts, manifest: Manifest | None) -> list[Finding]:
    """Classes with few photos to learn from, or many fewer than others."""
    train = {name: number for name, number in counts.get("train", {}).items() if number}
    if not train or (manifest is not None and manifest.options.shots):
        return []  # few photos were asked for
    findings = []
    if few := [f"{name}: {number}" for name, number in train.items() if number < FEW_PHOTOS]:
        some = ", ".join(few[:8]) + (", …" if len(few) > 8 else "")
        findings.append(
            Finding(
                "few_photos",
                said(
                    "{classes} with fewer than {limit}: {names}",
                    classes=counting(len(few), "class"),
                    limit=FEW_PHOTOS,
                    names=some,
                ),
            )
        )
    small, large = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    if train[large] >= IMBALANCE * train[small]:
        detail = said(
            "train/ holds {most:,} of {large}, {least:,} of {small}",
            most=train[large], large=large, least=train[small], small=small,
        )  # fmt: skip
        findings.append(Finding("imbalance", detail))
    return findings


def names_file_findings(data_dir: Path, train: Mapping[str, int]) -> tuple[list[Finding], set[str]]:
    """(what is wrong with `classes.yaml`, the classes for which it names what prompts say)."""
    try:
        return [], set(read_names(data_dir, list(train)).prompts)
    except DataError as error:
        return [Finding("names_file", fault.strip()) for fault in str(error).split("\n")], set()


def name_findings(names: Iterable[str], *, prompted: Container[str] = ()) -> list[Finding]:
    """Class names that look alike but for spelling, and names no prompt can be made of.

    Those `prompted` have other names for prompts.
    """
    names = sorted(set(names))
    same: dict[str, list[str]] = defaultdict(list)
    for name in names:
        same[_letters(name)].append(name)
    groups = [group for group in same.values() if len(group) > 1]
    groups += [[*same[a], *same[b]] for a, b in _one_slip_apart(same)]
    findings = [Finding("similar_names", joined(group, " and ")) for group in groups]
    if odd := [name for name in names if _ODD.fullmatch(name) and name not in prompted]:
        some = ", ".join(odd[:8]) + (", …" if len(odd) > 8 else "")
        findings.append(Finding("odd_names", some))
    return findings


def _letters(name: str) -> str:
    """A name without what people spell differently: case, separators, WordNet id, plural."""
    name = re.sub(r"^n\d{8}[-_]", "", name.strip().casefold())
    return re.sub(r"[\s_.-]+", "", name).removesuffix("s")


def _one_slip_apart(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of `names` a slip of the pen apart: both become the same by leaving a letter out."""
    by_rest: dict[str, set[str]] = defaultdict(set)
    for name in names:
        for rest in {name, *(name[:i] + name[i + 1 :] for i in range(len(name)))}:
            by_rest[rest].add(name)
    pairs = {pair for group in by_rest.values() for pair in combinations(sorted(group), 2)}
    return sorted(pair for pair in pairs if _one_slip(*pair))


def _one_slip(a: str, b: str) -> bool:
    """Whether `a` becomes `b` by one letter more, less, or other; or two exchanged."""
    if abs(len(a) - len(b)) > 1 or min(len(a), len(b)) < 6:
        return False
    head = _common(a, b)
    tail = _common(a[head:][::-1], b[head:][::-1])
    x, y = a[head : len(a) - tail], b[head : len(b) - tail]
    if any(c.isdigit() for c in x + y):  # class1 and class2 are meant to differ
        return False
    return max(len(x), len(y)) == 1 or (len(x) == 2 and x == y[::-1])


def _common(a: str, b: str) -> int:
    """How many letters `a` and `b` begin with in common."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def nested_findings(names: Sequence[str]) -> list[Finding]:
    """Class folders whose photos lie in several folders below; `names`: split/class/…/file."""
    below: dict[str, set[str]] = defaultdict(set)
    direct = set()
    for name in names:
        parts = name.split("/")
        if len(parts) > 3:
            below["/".join(parts[:2])].add(parts[2])
        else:
            direct.add("/".join(parts[:2]))
    return [
        Finding(
            "nested",
            said("{folder}/ holds {names}", folder=folder, names=", ".join(sorted(inner)[:6])),
        )
        for folder, inner in sorted(below.items())
        if len(inner) > 1 and folder not in direct
    ]


def other_files(data_dir: Path, folders: Mapping[str, Path]) -> list[Finding]:
    """Files in the `folders` of the splits that are no photo of a class, by their endings."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for folder in folders.values():
        for what, paths in passed_over(folder).items():
            kind = "unused_images" if is_picture(what) else "other_files"
            found[kind, what] += [path.relative_to(data_dir).as_posix() for path in paths]
    return [
        Finding(
            kind,
            said("{count} × {what}", count=len(files), what=what),
            tuple(sorted(files)),
        )
        for (kind, what), files in sorted(found.items())
    ]


def unknown_folder_findings(data_dir: Path) -> list[Finding]:
    """Folders of photos beside the splits, which nothing reads."""
    known = ", ".join(SPLIT_NAMES)
    return [
        Finding(
            "unknown_folder",
            said("{name}/ holds photos and is none of {known}", name=name, known=known),
        )
        for name in unknown_folders(data_dir)
    ]


def changed_findings(
    manifest: Manifest | None, files: Mapping[str, Inspected], set_aside: Iterable[str]
) -> list[Finding]:
    """What became of the files that dataset.json names; those `set_aside` by --fix are known."""
    if manifest is None:
        return []
    set_aside = set(set_aside)
    # Copied by way of a Mac, say, names come back with their letters in another Unicode form.
    spelt = {unicodedata.normalize("NFC", name): name for name in (*files, *set_aside)}
    digests = {
        spelt.get(unicodedata.normalize("NFC", name), name): digest
        for name, digest in manifest.files.items()
    }
    gone = set(digests) - set(files) - set_aside
    new = set(files) - set(digests)
    other = {
        name
        for name, digest in digests.items()
        if name in files and files[name].sha256 and files[name].sha256 != digest
    }
    changes = (
        (gone, marked("{count:,} is gone"), marked("{count:,} are gone")),
        (new, marked("{count:,} is new"), marked("{count:,} are new")),
        (other, marked("{count:,} has other content"), marked("{count:,} have other content")),
    )
    return [
        Finding(
            "changed",
            said(one if len(names) == 1 else many, count=len(names)),
            tuple(sorted(names)),
        )
        for names, one, many in changes
        if names
    ]

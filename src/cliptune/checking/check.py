"""Is a folder of photos fit to learn from and to measure on? Read every file once and say."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cliptune.checking.duplicates import find_duplicates
from cliptune.checking.findings import KINDS, SEVERITIES, Finding, Severity
from cliptune.checking.folder_findings import (
    changed_findings,
    name_findings,
    names_file_findings,
    nested_findings,
    other_files,
    size_findings,
    tree_findings,
    unknown_folder_findings,
)
from cliptune.checking.groups import group_findings
from cliptune.checking.inspection import Inspected, Inspector, inspect_all
from cliptune.checking.label_findings import read_all_labels, together_findings
from cliptune.checking.quarantine import set_aside
from cliptune.checking.suspects import Suspects
from cliptune.data.counts import Counts
from cliptune.data.folder import scan_classes
from cliptune.data.image_files import IMAGE_FORMATS
from cliptune.data.manifest import read_manifest
from cliptune.data.multilabel import is_multilabel
from cliptune.data.splits import split_folders
from cliptune.errors import DataError
from cliptune.foreign_errors import disk_errors
from cliptune.hints import not_there
from cliptune.language import counting, joined, said
from cliptune.storage import local_folder
from cliptune.text import command

TINY = 64  # pixels of the shorter edge
HUGE = 50_000_000  # pixels
EXTREME_SHAPE = 6  # times as long as wide


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What `check` found, the gravest first. Without `errors`, the folder can be trained on.

    `suspects` are labels that the photos contradict, where a model was asked.
    """

    data_dir: Path
    counts: Counts
    num_bytes: int
    seconds: float
    findings: tuple[Finding, ...]
    suspects: Suspects | None = None
    num_several: int | None = None  # photos, where each has any number of labels

    def with_suspects(self, suspects: Suspects) -> CheckResult:
        """The same with a finding for each of `suspects`, in their order."""
        places = {kind: place for place, kind in enumerate(KINDS)}
        findings = sorted(  # stable: within a kind the order stays
            (*self.findings, *suspects.findings()),
            key=lambda f: (SEVERITIES.index(f.severity), places[f.kind]),
        )
        return replace(self, findings=tuple(findings), suspects=suspects)

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of that severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What stops a training run, or makes its figures worthless."""
        return self.of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What wants a look."""
        return self.of("warning")

    @property
    def num_photos(self) -> int:
        """Image files in class folders, or listed with their labels."""
        if self.num_several is not None:
            return self.num_several
        return sum(sum(classes.values()) for classes in self.counts.values())

    @property
    def offenders(self) -> dict[str, str]:
        """File -> kind of the finding for which `--fix` would move it."""
        moved: dict[str, str] = {}
        for finding in self.findings:
            for name in finding.offenders:
                moved.setdefault(name, finding.kind)  # the gravest comes first
        return dict(sorted(moved.items()))

    def exit_code(self, *, strict: bool = False) -> int:
        """2 with errors; with `strict`, 3 with warnings; else 0."""
        if self.errors:
            return 2
        return 3 if strict and self.warnings else 0

    def to_dict(self) -> dict[str, Any]:
        """What `check.json` holds."""
        suspects = {} if self.suspects is None else {"suspects": self.suspects.to_dict()}
        return {
            "data_dir": str(self.data_dir),
            "num_photos": self.num_photos,
            "num_bytes": self.num_bytes,
            "counts": self.counts,
            "num_errors": len(self.errors),
            "num_warnings": len(self.warnings),
            "findings": [
                {
                    "kind": finding.kind,
                    "severity": finding.severity,
                    "detail": finding.detail,
                    "files": list(finding.files),
                    "offenders": list(finding.offenders),
                }
                for finding in self.findings
            ],
            "kinds": {kind: KINDS[kind]._asdict() for kind in KINDS if kind in self._kinds_found},
            **suspects,
        }

    @property
    def _kinds_found(self) -> set[str]:
        return {finding.kind for finding in self.findings}


def check(
    data_dir: Path, *, progress: bool = True, inspector: Inspector = inspect_all
) -> CheckResult:
    """Read every file of `data_dir/{train,val,test}/<class>/` once, and look at folders and names.

    As many processes as there are cores read: a script of one's own calls this below
    `if __name__ == "__main__":`, where the system starts processes afresh (Windows, macOS). Another
    `inspector` may read elsewhere, as `cliptune.distributed.check` does.

    Raises `DataError` when `data_dir` is not a folder, two folders of it are the same split, or
    its `dataset.json` is damaged;
    `ResourceError` when a reading process was ended.
    """
    data_dir = local_folder(data_dir)
    if not data_dir.is_dir():
        what = "this is a file." if data_dir.exists() else not_there(data_dir, "no such folder")
        raise DataError(
            f"{data_dir}: {what} Expected a folder that holds train/<class name>/*.jpg. "
            f"Make one with: {command('cliptune', 'prepare', '--output-dir', data_dir)}"
        )
    started = time.perf_counter()
    with disk_errors(data_dir):
        folders = split_folders(data_dir)
        if is_multilabel(data_dir):
            return _of_several(data_dir, folders, started, progress=progress, inspector=inspector)
        splits = {split: scan_classes(folder) for split, folder in folders.items()}
        others = [*other_files(data_dir, folders), *unknown_folder_findings(data_dir)]
    manifest = read_manifest(data_dir)
    counts = {
        split: {name: len(paths) for name, paths in classes.items()}
        for split, classes in splits.items()
    }
    paths = [path for classes in splits.values() for photos in classes.values() for path in photos]
    files = {
        found.path.relative_to(data_dir).as_posix(): found
        for found in inspector(paths, progress=progress)
    }
    names = {name for classes in splits.values() for name in classes}
    names_faults, prompted = names_file_findings(data_dir, counts.get("train", {}))
    findings = [
        *tree_findings(data_dir, counts, folders),
        *size_findings(counts, manifest),
        *names_faults,
        *name_findings(names, prompted=prompted),
        *nested_findings(list(files)),
        *others,
        *changed_findings(manifest, files, set_aside(data_dir)),
        *file_findings(files),
        *find_duplicates(files),
        *group_findings(manifest, files),
    ]
    return CheckResult(
        data_dir=data_dir,
        counts=counts,
        num_bytes=sum(found.num_bytes for found in files.values()),
        seconds=time.perf_counter() - started,
        findings=tuple(_in_order(findings)),
    )


def _of_several(
    data_dir: Path, folders: Mapping[str, Path], started: float, *, progress: bool,
    inspector: Inspector,
) -> CheckResult:  # fmt: skip
    """The same where photos have any number of labels. Nothing is for `--fix` to set aside there:
    `LABELS_FILE` would go on naming it."""
    listed = read_all_labels(data_dir, folders)
    files = {
        found.path.relative_to(data_dir).as_posix(): found
        for found in inspector([data_dir / name for name in listed.labels], progress=progress)
    }
    manifest, counts = read_manifest(data_dir), listed.counts
    names = {name for classes in counts.values() for name in classes}
    names_faults, prompted = names_file_findings(data_dir, counts.get("train", {}))
    findings = [
        *listed.findings,
        *tree_findings(data_dir, counts, folders),
        *size_findings(counts, None),
        *names_faults,
        *name_findings(names, prompted=prompted),
        *unknown_folder_findings(data_dir),
        *changed_findings(manifest, files, ()),
        *file_findings(files),
        *find_duplicates(files, classes=listed.joined),
        *together_findings(listed.of_train),
    ]
    return CheckResult(
        data_dir=data_dir,
        counts=counts,
        num_bytes=sum(found.num_bytes for found in files.values()),
        seconds=time.perf_counter() - started,
        findings=tuple(_in_order([replace(finding, offenders=()) for finding in findings])),
        num_several=len(listed.labels),
    )


def file_findings(files: dict[str, Inspected]) -> list[Finding]:
    """What is wrong with, or worth knowing of, each file by itself."""
    findings = []
    for name, found in files.items():
        if found.fault:
            findings.append(Finding(found.fault, found.reason, (name,), (name,)))
            continue
        findings += [Finding(kind, detail, (name,)) for kind, detail in _oddities(found)]
    return findings


def _oddities(found: Inspected) -> list[tuple[str, str]]:
    """(kind, detail) of what is odd about a photo that can be read."""
    width, height = found.width, found.height
    size = f"{width} × {height}"
    expected = IMAGE_FORMATS[found.path.suffix.lower()]
    odd: list[tuple[str, str]] = []
    if found.format not in expected:
        odd.append(
            (
                "wrong_ending",
                said("a {found}, not a {expected}", found=found.format, expected=expected[0]),
            )
        )
    if found.frames > 1:
        odd.append(("animated", counting(found.frames, "picture")))
    if min(width, height) < TINY:
        odd.append(("tiny", size))
    if width * height > HUGE:
        odd.append(("huge", size))
    if max(width, height) >= EXTREME_SHAPE * min(width, height):
        odd.append(("extreme_shape", size))
    if found.blank:
        odd.append(("blank", size))
    if found.grey and not found.blank:
        odd.append(("grey", found.mode))
    if found.mode in ("CMYK", "YCCK"):
        odd.append(("cmyk", found.mode))
    if found.sixteen_bit:
        levels = joined(found.levels.split(" to "), " to ")
        taken = said("{mode}, {levels} taken as black to white", mode=found.mode, levels=levels)
        odd.append(("sixteen_bit", taken if found.levels else found.mode))
    if found.orientation != 1:
        odd.append(("rotated", said("orientation {number}", number=found.orientation)))
    if found.transparent:
        odd.append(("transparent", found.mode))
    return odd


def _in_order(findings: Sequence[Finding]) -> list[Finding]:
    order = list(KINDS)
    return sorted(
        findings,
        key=lambda f: (SEVERITIES.index(f.severity), order.index(f.kind), f.files, f.detail),
    )

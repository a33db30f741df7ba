"""What `check` found, as text for a terminal, as JSON, and as a page with pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from cliptune.checking.check import CheckResult
from cliptune.checking.findings import KINDS, SEVERITIES, Finding, Severity
from cliptune.checking.fingerprints import HASH_BITS
from cliptune.checking.near_duplicates import MAX_DISTANCE
from cliptune.checking.suspects import KIND as SUSPECT
from cliptune.checking.suspects import Suspects
from cliptune.data.counts import counts_table
from cliptune.data.reading import read_reduced
from cliptune.errors import ImageError, named
from cliptune.files import whole_file
from cliptune.html import picture, render
from cliptune.language import amount, marked
from cliptune.language import translated as _
from cliptune.text import shorten, wrap

SHOWN = 4  # findings of a kind in the text
GROUPS = 60  # of a kind on the page
PHOTOS = 8  # of a group on the page
PICTURES = 24  # of a kind that is about single photos
LINES = 200  # of a kind on the page
# Kinds about single photos that can be shown.
SEEN = (
    "wrong_ending", "animated", "tiny", "huge", "extreme_shape", "blank", "grey", "cmyk",
    "sixteen_bit", "rotated", "transparent",
)  # fmt: skip
_SEVERITIES = (
    marked("{number:,} error"), marked("{number:,} warning"), marked("{number:,} note")
)  # fmt: skip
_EDGE = 180  # pixels of a picture on the page


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A photo on the page; `picture` is a data URI, "" where there is none."""

    file: str
    split: str
    class_name: str  # "" where it lies in the folder of the split itself
    rest: str  # of its path, below the class
    picture: str
    moved: bool  # whether --fix would set it aside
    detail: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Photos side by side, and how many more there are."""

    detail: str
    photos: Sequence[Photo]
    more: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """A finding without a picture; `file` is "" where it is about none."""

    file: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """All findings of a kind, `total` of them, of which `more` are not on the page."""

    kind: str
    severity: Severity
    title: str
    remedy: str
    total: int
    groups: Sequence[Group]
    lines: Sequence[Line]
    more: int


def check_text(result: CheckResult) -> str:
    """Plain text for a terminal of 80 columns, the gravest last, where it is read first."""
    parts = [counts_table(result.counts)]
    for severity in reversed(SEVERITIES):
        kinds = _by_kind(result.of(severity))
        if kinds:
            number = amount(len(result.of(severity)), severity)
            parts.append(_("{findings}:").format(findings=number))
            parts += [_kind_text(kind, findings) for kind, findings in kinds.items()]
    verdict = _("{folder}: {photos} read; {errors}, {warnings}.").format(
        folder=result.data_dir,
        photos=amount(result.num_photos, "photo"),
        errors=amount(len(result.errors), "error"),
        warnings=amount(len(result.warnings), "warning"),
    )
    if not result.errors:
        verdict += " " + _("It can be trained on.")
    if result.suspects is not None:
        parts.append(wrap(_judged(result.suspects)))
    return "\n\n".join([*parts, wrap(verdict)])


def _judged(suspects: Suspects) -> str:
    """What the ranking of labels rests on."""
    text = _(
        "{labels} judged by {model}, each by the labels of other photos: {agreeing:.0%} agree, "
        "{contradicted:,} are contradicted. Where the model knows classes badly, it contradicts "
        "right labels, too: the order tells more than the number."
    ).format(
        labels=amount(suspects.num_judged, "label"),
        model=suspects.model,
        agreeing=suspects.agreeing,
        contradicted=len(suspects.photos),
    )
    if suspects.unjudged:
        text += " " + _("Too few photos to judge labels of: {names}.").format(
            names=named(suspects.unjudged)
        )
    return text


def _kind_text(kind: str, findings: Sequence[Finding]) -> str:
    lines = [f"  {_(KINDS[kind].title)} ({len(findings):,})"]
    for finding in findings[:SHOWN]:
        text = "\n".join(wrap(line, indent="    ") for line in _lines(finding))
        lines += [shorten(line, 80) for line in text.split("\n")]
    if len(findings) > SHOWN:
        lines.append("    " + _("… and {count:,} more").format(count=len(findings) - SHOWN))
    return "\n".join([*lines, wrap(f"→ {_(KINDS[kind].remedy)}", indent="    ")])


def _lines(finding: Finding) -> list[str]:
    detail = _(finding.detail)
    if not finding.files:
        return [detail]
    if len(finding.files) == 1:
        return [f"{finding.files[0]}: {detail}"]
    shown = [f"= {name}" for name in finding.files[:3]]
    if len(finding.files) > 3:
        shown.append(_("… {count} more").format(count=len(finding.files) - 3))
    return [_("{findings}:").format(findings=detail), *shown]


def write_check(result: CheckResult, output_dir: Path, command: str | None = None) -> list[Path]:
    """Write `check.json` and `check.html` to `output_dir`, each moved into place whole.

    `command` is the line that checks the same again, for whoever reads the page.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    paths = [output_dir / "check.json", output_dir / "check.html"]
    text = json.dumps(result.to_dict(), indent=1, ensure_ascii=False)
    for path, content in zip(paths, (text + "\n", check_page(result, command)), strict=True):
        with whole_file(path) as partial:
            # Names that are no valid Unicode (Linux allows such files) as JSON's escapes.
            partial.write_text(content, encoding="utf-8", errors="backslashreplace", newline="\n")
    return paths


def check_page(result: CheckResult, command: str | None = None) -> str:
    """The page, self-contained: text and pictures in one file, and `command`, if there is one."""
    from cliptune._version import __version__

    sections = [
        _section(result, kind, findings) for kind, findings in _by_kind(result.findings).items()
    ]
    return render(
        "check.html",
        result=result,
        severities=[{"name": s, "count": len(result.of(s))} for s in SEVERITIES],
        sections=sections,
        class_names=sorted({name for split in result.counts.values() for name in split}),
        megabytes=f"{result.num_bytes / 1e6:,.1f}",
        version=__version__,
        command=command,
        judged="" if result.suspects is None else _judged(result.suspects),
        bits=HASH_BITS,
        distance=MAX_DISTANCE,
    )


def _section(result: CheckResult, kind: str, findings: Sequence[Finding]) -> Section:
    """A kind of finding: groups of copies, or photos side by side, or lines of text."""
    groups: list[Group] = []
    lines: list[Line] = []
    more = 0
    if kind.startswith(("copies", "near", "groups")):
        groups = [
            _group(result.data_dir, f.files, _(f.detail), f.offenders) for f in findings[:GROUPS]
        ]
        more = len(findings) - GROUPS
    elif kind == SUSPECT and result.suspects is not None:
        groups = [
            _beside_typical(result.data_dir, result.suspects, place, _(f.detail))
            for place, f in enumerate(findings[:GROUPS])
        ]
        more = len(findings) - GROUPS
    elif kind in SEEN:
        names = [f.files[0] for f in findings]
        details = {f.files[0]: _(f.detail) for f in findings}
        groups = [_group(result.data_dir, names, "", (), limit=PICTURES, details=details)]
    else:
        lines = [
            Line(file=name, detail=_(finding.detail))
            for finding in findings[:LINES]
            for name in (finding.files[:PHOTOS] or [""])
        ]
        more = len(findings) - LINES
    return Section(
        kind=kind,
        severity=KINDS[kind].severity,
        title=_(KINDS[kind].title),
        remedy=_(KINDS[kind].remedy),
        total=len(findings),
        groups=groups,
        lines=lines,
        more=max(0, more),
    )


def _group(
    data_dir: Path,
    files: Sequence[str],
    detail: str,
    offenders: Sequence[str],
    *,
    limit: int = PHOTOS,
    details: Mapping[str, str] = MappingProxyType({}),
) -> Group:
    """Photos side by side, at most `limit` of them."""
    names = files[:limit]
    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(lambda name: _picture(data_dir / name), names))
    photos = []
    for name, data in zip(names, pictures, strict=True):
        split, *folder, rest = name.split("/", 2)  # of several labels none is a folder
        photos.append(
            Photo(
                file=name, split=split, class_name="".join(folder), rest=rest, picture=data,
                moved=name in offenders, detail=details.get(name, ""),
            )
        )  # fmt: skip
    return Group(detail=detail, photos=photos, more=len(files) - len(names))


def _beside_typical(data_dir: Path, suspects: Suspects, place: int, detail: str) -> Group:
    """A photo whose label is contradicted, and what is typical of both names."""
    found = suspects.photos[place]
    details = {found.file: _("contradicted")}
    for name in (found.label, found.suggested):
        typical = suspects.typical.get(name, ())
        said = _("typical of {name}").format(name=name)
        details |= {file: said for file in typical if file != found.file}
    return _group(data_dir, list(details), f"{place + 1}. {detail}", (), details=details)


def _picture(path: Path) -> str:
    try:
        pixels = read_reduced(path, edge=_EDGE, resample=Image.Resampling.BILINEAR)
    except ImageError:
        return ""  # gone or broken since it was checked
    return picture(Image.fromarray(pixels), edge=_EDGE)


def _by_kind(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.kind, []).append(finding)
    return found

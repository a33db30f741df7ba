"""What `prepare` did, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cliptune.data.counts import Counts, counts_table
from cliptune.data.image_files import IMAGE_SUFFIXES
from cliptune.data.splits import SPLITS
from cliptune.language import counting, joined, said
from cliptune.language import translated as _
from cliptune.preparing.choosing import Choice
from cliptune.preparing.download import STANFORD_DOGS
from cliptune.preparing.sources.archive import PhotoStore
from cliptune.preparing.sources.layouts import ClassLayout
from cliptune.preparing.sources.opening import Source
from cliptune.preparing.sources.stanford import ARCHIVE_NAME
from cliptune.preparing.splitting import Shares
from cliptune.text import command, wrap


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """What `prepare` did. `notes` are paragraphs for the user, after the first line.

    What follows a line break in a note is a command to copy: it is never broken. Headline and notes
    are English, and translated where they are shown.
    """

    output_dir: Path
    class_names: tuple[str, ...]
    counts: Counts
    kind: Literal["made", "empty_tree", "already_there"]
    headline: str
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Plain text for a terminal of 80 columns."""
        table = [] if self.kind == "empty_tree" else [counts_table(self.counts)]
        notes = [_(note).partition("\n") for note in self.notes]
        shown = [f"{wrap(words)}{line_break}{line}" for words, line_break, line in notes]
        return "\n\n".join([wrap(_(self.headline)), *table, *shown])


def already_there(output_dir: Path, counts: Counts) -> PrepareResult:
    """That `output_dir` holds photos, as many as `counts` says, and was left as it is."""
    num_photos = sum(sum(classes.values()) for classes in counts.values())
    return PrepareResult(
        output_dir=output_dir,
        class_names=tuple(counts.get("train", {})),
        counts=counts,
        kind="already_there",
        headline=said(
            "{folder} already holds {photos}; nothing was changed.",
            folder=output_dir,
            photos=counting(num_photos, "photo"),
        ),
        notes=(
            said(
                "To start afresh, choose another --output-dir or delete this folder first. "
                "To check it:\n  {command}",
                command=check_command(output_dir),
            ),
        ),
    )


def empty_tree_made(output_dir: Path, breeds: Sequence[str], reason: str) -> PrepareResult:
    """That empty folders were made, why, and what the user can do now."""
    return PrepareResult(
        output_dir=output_dir,
        class_names=tuple(sorted(breeds)),
        counts={split: dict.fromkeys(sorted(breeds), 0) for split in SPLITS},
        kind="empty_tree",
        headline=said(
            "{folder}: made empty folders for {count} classes, without photos.",
            folder=output_dir,
            count=len(breeds),
        ),
        notes=(
            said("There is no archive to take photos from: {reason}.", reason=reason),
            said(
                "What to do now, either: put photos into {folder}/train/<class>/ (about 100 a "
                "class), and about 20 a class into val/<class>/ and test/<class>/; remove the "
                "classes you do not fill. Then check them:\n  {command}",
                folder=output_dir,
                command=check_command(output_dir),
            ),
            said(
                "Or: fetch {url} elsewhere, save it as {path}, and run this command again.",
                url=STANFORD_DOGS.url,
                path=output_dir.parent / ARCHIVE_NAME,
            ),
            said(
                "Or: give photos of your own with --source: a folder with one folder for each "
                "class, a list (.csv), or other forms; 'cliptune prepare --help' names them."
            ),
            said("The classes: {names}.", names=", ".join(sorted(breeds))),
        ),
    )


def check_command(output_dir: Path) -> str:
    """What to type to check the photos in `output_dir`."""
    return command("cliptune", "check", output_dir)


def notes_on(source: Source, choice: Choice, *, shares: Shares) -> tuple[str, ...]:
    """What to tell of a source that was made into a folder, a paragraph each."""
    layout: ClassLayout = source.layout
    store: PhotoStore = source.store
    notes = list(layout.notes)
    num_left = len(layout.classes) - len(choice.taken) - len(choice.left_out)
    if layout.splits:
        lacking = [split for split in SPLITS if split not in set(layout.splits.values())]
        notes.append(
            said(
                "The splits are the source's own. {splits} were taken from its train.",
                splits=joined(lacking, " and "),
            )
            if lacking
            else said("The splits are the source's own.")
        )
    if shares.shots is not None and not layout.groups:
        notes.append(
            said(
                "train/ holds {photos} a class (--shots); val/ and test/ all.",
                photos=counting(shares.shots, "photo"),
            )
        )
    notes += _left_out(choice)
    if num_left:
        notes.append(
            said(
                "{classes} left out; --num-classes or --classes takes them.",
                classes=counting(num_left, "more class"),
            )
        )
    if layout.num_loose:
        in_folders = layout.kind in ("folders", "splits")
        notes.append(
            said(
                "{count} photo lies in no {where}; left out."
                if layout.num_loose == 1
                else "{count} photos lie in no {where}; left out.",
                count=layout.num_loose,
                where=said("class folder") if in_folders else said("list"),
            )
        )
    if store.num_others:
        notes.append(
            said(
                "{count} file is not {endings}; left out."
                if store.num_others == 1
                else "{count} files are not {endings}; left out.",
                count=store.num_others,
                endings=", ".join(sorted(IMAGE_SUFFIXES)),
            )
        )
    if layout.is_stanford_dogs:
        notes.append(
            said(
                "Stanford Dogs (Khosla et al., 2011) is for research, not for commerce. Its photos "
                "come from ImageNet: a base model that learned from ImageNet has seen them."
            )
        )
    return tuple(notes)


def _left_out(choice: Choice) -> list[str]:
    """The classes that were left out on request, by name."""
    if not choice.left_out:
        return []
    reasons = [
        said("{name} ({why})", name=name, why=why) for name, why in sorted(choice.left_out.items())
    ]
    return [
        said(
            "{classes} left out: {reasons}.",
            classes=counting(len(choice.left_out), "class"),
            reasons=joined(reasons, "; "),
        )
    ]

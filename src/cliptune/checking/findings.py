"""What can be wrong with a folder of photos: every kind, how grave it is, and its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cliptune.data.image_files import IMAGE_SUFFIXES

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Kind(NamedTuple):
    """A kind of finding: how grave, its title, what to do; both translated where shown."""

    severity: Severity
    title: str
    remedy: str


_FIX = "'--fix' sets them aside"

# In the order in which they are reported. An error stops a training run, or makes its figures
# worthless; a warning wants a look; a note is what training handles by itself.
KINDS: dict[str, Kind] = {
    "no_photos": Kind("error", "no photos", "Put photos into train/<class>/."),
    "no_train": Kind("error", "no train/", "Make it with 'cliptune prepare'."),
    "too_few_classes": Kind("error", "too few classes", "Add class folders to train/."),
    "empty_class": Kind("error", "classes without training photos", "Add photos, or remove them."),
    "empty_split": Kind("error", "val/ without photos", "Fill it, or remove the folder."),
    "unknown_class": Kind(
        "error", "classes of val/ that train/ lacks", "Rename the folder, or add it to train/."
    ),
    "names_file": Kind("error", "faults of classes.yaml", "Mend them; training would stop there."),
    "labels_file": Kind(
        "error", "lists of labels that cannot be read", "Mend them; training would stop there."
    ),
    "unreadable": Kind("error", "files that cannot be read", f"Fetch them again; {_FIX}."),
    "truncated": Kind("error", "photos cut short", f"Fetch them again; {_FIX}."),
    "empty_file": Kind("error", "files without content", f"Fetch them again; {_FIX}."),
    "bomb": Kind(
        "error", "pictures too large to decode safely", f"Scale them down elsewhere; {_FIX}."
    ),
    "file_too_large": Kind("error", "files too large for photos", f"Look at them; {_FIX}."),
    "copies_across_classes": Kind(
        "error",
        "label conflicts: the same file in several classes",
        f"Keep the right one. Nobody but you knows which; {_FIX}, all of them.",
    ),
    "copies_across_splits": Kind(
        "error",
        "leakage: the same file in several splits",
        "A test on photos learned from tests nothing. "
        f"{_FIX}, out of train first, then out of val.",
    ),
    "groups_across_splits": Kind(
        "error",
        "leakage: photos of one group in several splits",
        f"Groups of dataset.json are to stay in one split; {_FIX}, out of train first, then out "
        "of val.",
    ),
    "near_across_classes": Kind(
        "warning",
        "label conflicts: nearly the same photo in several classes",
        "Look at them on the page and keep the right ones.",
    ),
    "near_across_splits": Kind(
        "warning",
        "leakage: nearly the same photo in several splits",
        f"Look at them on the page; {_FIX}, out of train first, then out of val.",
    ),
    "suspect_label": Kind(
        "warning",
        "labels that the photos contradict",
        "Look at the page, the most contradicted first. '--export-suspects FILE.csv' lists them: "
        "write relabel or drop where you agree, and 'cliptune prepare --relabel FILE.csv' does it.",
    ),
    "copies_in_class": Kind(
        "warning", "the same file several times in a class", f"One is enough; {_FIX}."
    ),
    "near_in_class": Kind(
        "warning",
        "nearly the same photo several times in a class",
        "Harmless in train/ when they are few; in test/ they count more than once.",
    ),
    "no_val": Kind("warning", "no val/", "Training then takes a part of train/; better make one."),
    "no_test": Kind("warning", "no test/", "Only val/, which chose the model, is left to measure."),
    "class_missing": Kind("warning", "classes missing from a split", "Add photos of them."),
    "class_left_out": Kind(
        "warning",
        "classes of test/ that train/ lacks",
        "They are left out. Rename the folder, or add it to train/.",
    ),
    "few_photos": Kind(
        "warning", "few training photos", "Ten or more of each class make results steadier."
    ),
    "imbalance": Kind(
        "warning",
        "classes of very different size",
        "Add photos to the small ones; read recall class by class.",
    ),
    "similar_names": Kind(
        "warning", "class names that look like one class", "Merge or rename these folders."
    ),
    "odd_names": Kind(
        "warning",
        "class names that say nothing",
        "Prompts are made of them. Rename the folders, or name the classes in classes.yaml.",
    ),
    "always_together": Kind(
        "warning",
        "labels that never come alone",
        "The one says nothing that the other does not. Add photos of it alone, or merge the two.",
    ),
    "never_together": Kind(
        "warning",
        "labels that never come together",
        "If both may be on a photo, some labels may be missing.",
    ),
    "not_listed": Kind(
        "warning", "photos that labels.csv does not list", "They are not used. List them there."
    ),
    "nested": Kind(
        "warning",
        "class folders that hold several folders",
        "If those are the classes, move them up by one.",
    ),
    "wrong_ending": Kind(
        "warning", "endings that do not fit the content", "Rename them; they can be read."
    ),
    "animated": Kind("warning", "animations", "Only the first picture is used."),
    "tiny": Kind("warning", "tiny photos", "They are enlarged and blurred; use larger ones."),
    "huge": Kind("warning", "huge photos", "'cliptune prepare --resize 512' makes them faster."),
    "extreme_shape": Kind(
        "warning", "very long or wide photos", "All but the middle is cut off; crop them yourself."
    ),
    "blank": Kind("warning", "pictures of one colour", "Often a placeholder; look at them."),
    "unused_images": Kind(
        "warning",
        "pictures that are not used",
        f"Training takes {', '.join(sorted(IMAGE_SUFFIXES))} in class folders; convert or move "
        "them.",
    ),
    "unknown_folder": Kind(
        "warning",
        "folders of photos that are no split",
        "They are not used. Rename them, or move them elsewhere.",
    ),
    "changed": Kind(
        "warning",
        "files that differ from dataset.json",
        "Fine if you did this; else prepare the folder again.",
    ),
    "no_label": Kind(
        "note", "photos without a label", "Taken as showing none of the classes. Is that so?"
    ),
    "other_files": Kind("note", "other files", "They are not used."),
    "grey": Kind("note", "photos without colour", "Taken as they are; colour helps where it is."),
    "cmyk": Kind(
        "note", "photos in print colours (CMYK)", "Converted; colours may shift a little."
    ),
    "sixteen_bit": Kind("note", "photos of 16 bits a channel", "Scaled to 8 bits."),
    "rotated": Kind("note", "photos turned by their EXIF data", "Turned upright when read."),
    "transparent": Kind("note", "photos with transparent parts", "Laid on white."),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found: a file, a group of files that belong together, or a class.

    `files` are relative to the data folder; `offenders` are those of them that `--fix` moves.
    """

    kind: str
    detail: str
    files: tuple[str, ...] = ()
    offenders: tuple[str, ...] = ()

    @property
    def severity(self) -> Severity:
        """How grave it is."""
        return KINDS[self.kind].severity

"""What is odd about labels where a photo may have any number of them.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cliptune.checking.findings import Finding
from cliptune.data.image_files import find_images
from cliptune.data.multilabel import SEPARATOR, read_labels
from cliptune.errors import DataError
from cliptune.language import counting, said

ENOUGH = 5  # photos of a class, before anything is said of what comes with it
EXPECTED = 10  # photos with both of two classes, if they came by chance, before none is odd


@dataclass
class Listed:
    """What the splits list: `labels` of each photo, by its path from the data folder."""

    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    of_train: dict[str, tuple[str, ...]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def joined(self) -> dict[str, str]:
        """The labels of each photo as one name: copies of it must have the same."""
        return {name: SEPARATOR.join(sorted(own)) for name, own in self.labels.items()}


def read_all_labels(data_dir: Path, folders: Mapping[str, Path]) -> Listed:
    """The labels of all splits; a list that cannot be read, and photos on none, are findings."""
    listed = Listed()
    for split, folder in folders.items():
        try:
            photos = read_labels(folder)
        except DataError as error:
            listed.findings.append(Finding("labels_file", str(error)))
            continue
        own = {path.relative_to(data_dir).as_posix(): names for path, names in photos.items()}
        listed.labels |= own
        listed.counts[split] = dict(Counter(name for names in own.values() for name in names))
        if split == "train":
            listed.of_train = own
        if others := tuple(
            path.relative_to(data_dir).as_posix()
            for path in find_images(folder) if path not in photos
        ):  # fmt: skip
            listed.findings.append(Finding("not_listed", counting(len(others), "photo"), others))
    return listed


def together_findings(labels: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Classes that always or never come together in train, and photos without any.

    `labels` are those of each photo, by its path. Two classes never come together where chance
    alone, by how frequent each is, would have shown both on `EXPECTED` photos.
    """
    names = sorted({name for own in labels.values() for name in own})
    shown_NC = np.array([[name in own for name in names] for own in labels.values()], dtype=int)
    shown_NC = shown_NC.reshape(len(labels), len(names))
    both_CC, counts_C = shown_NC.T @ shown_NC, shown_NC.sum(axis=0)
    findings = []
    for first, name in enumerate(names):
        for second, other in enumerate(names):
            both, count = both_CC[first, second], counts_C[first]
            if first != second and both == count >= ENOUGH:
                detail = said(
                    "all {count} photos of {name} show {other} as well",
                    count=count, name=name, other=other,
                )  # fmt: skip
                findings.append(Finding("always_together", detail))
            expected = count * counts_C[second] / len(labels)
            if first < second and not both and expected >= EXPECTED:
                detail = said(
                    "{name} and {other}: on no photo; about {expected:.0f} by chance",
                    name=name, other=other, expected=expected,
                )  # fmt: skip
                findings.append(Finding("never_together", detail))
    if without := tuple(photo for photo, own in labels.items() if not own):
        findings.append(
            Finding(
                "no_label",
                said("{count} of {total}", count=len(without), total=len(labels)),
                without,
            )
        )
    return findings

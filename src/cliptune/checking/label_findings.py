"""What is odd about labels where a photo may have any number of them.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cliptune.checking.findings import Finding

ENOUGH = 5  # photos of a class, before anything is said of what comes with it
EXPECTED = 10  # photos with both of two classes, if they came by chance, before none is odd


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
                findings.append(
                    Finding("always_together", f"all {count} photos of {name} show {other} as well")
                )
            expected = count * counts_C[second] / len(labels)
            if first < second and not both and expected >= EXPECTED:
                detail = f"{name} and {other}: on no photo; about {expected:.0f} by chance"
                findings.append(Finding("never_together", detail))
    if without := tuple(photo for photo, own in labels.items() if not own):
        findings.append(Finding("no_label", f"{len(without)} of {len(labels)}", without))
    return findings

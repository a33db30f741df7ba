"""Groups of `dataset.json` that lie in more than one split: a leak, as copies are."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping

from cliptune.checking.duplicates import leak, split_of
from cliptune.checking.findings import Finding
from cliptune.checking.inspection import Inspected
from cliptune.data.manifest import Manifest
from cliptune.data.splits import SPLITS
from cliptune.language import joined, said


def group_findings(manifest: Manifest | None, files: Mapping[str, Inspected]) -> list[Finding]:
    """A finding for each group whose photos lie in several splits.

    A file is known by its path, or else by its content: one that was moved keeps its group.
    """
    if manifest is None or not manifest.groups:
        return []
    by_path = {unicodedata.normalize("NFC", name): g for name, g in manifest.groups.items()}
    by_content = {manifest.files[name]: g for name, g in manifest.groups.items()}
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(files):
        group = by_path.get(unicodedata.normalize("NFC", name))
        group = group or by_content.get(files[name].sha256 or "")
        if group is not None:
            members[group].append(name)
    findings = []
    for group, names in sorted(members.items()):
        count = Counter(map(split_of, names))
        parts = [
            said("{count} in {split}", count=count[split], split=split)
            for split in SPLITS if count[split]
        ]  # fmt: skip
        detail = said("group '{name}': {parts}", name=group, parts=joined(parts, ", "))
        findings += leak("groups_across_splits", names, detail)
    return findings

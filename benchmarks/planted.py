"""Plant faults in a copy of a clean data folder and see which of them `check` finds.

    python benchmarks/planted.py --data DATA [--seeds 3] [--each 5]

DATA holds train/, val/ and test/ with photos; it is only read. Prints a table in Markdown: each
kind of fault, the finding expected for it, how many were planted and found, and what was reported
beyond them and beyond what the untouched copy has.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from faults import FAULTS, Garden, plant_in_folders

from cliptune.checking.check import CheckResult, check
from cliptune.checking.findings import Finding

# White pictures are copies of one another as well.
SIDE_EFFECTS = ("copies_across_classes", "copies_in_class")


def found(result: CheckResult, kind: str, files: list[str]) -> bool:
    """Whether a finding of this kind names all of `files`."""
    return any(f.kind == kind and set(files) <= set(f.files) for f in result.findings)


def one_seed(data: Path, *, seed: int, each: int) -> tuple[dict[str, list[bool]], list[Finding]]:
    """(fault -> was each planted one found, findings that nothing planted explains)."""
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder, "data")
        shutil.copytree(data, clean)
        before = {(f.kind, f.files) for f in check(clean, progress=False).findings}
        # Photos that are copies of others already would make a fault of another kind.
        used = {
            name for kind, names in before if kind.startswith(("near", "cop")) for name in names
        }
        garden = Garden(clean, np.random.default_rng(seed))
        for split, photos in garden.free.items():
            garden.free[split] = [p for p in photos if garden.name(p) not in used]
        planted = {
            fault: [plant(garden) for _ in range(each)] for fault, (_, plant) in FAULTS.items()
        }
        in_folders = list(plant_in_folders(garden))
        result = check(clean, progress=False)
        hits = {
            fault: [found(result, FAULTS[fault][0], files) for files in groups]
            for fault, groups in planted.items()
        }
        for fault, kind, words in in_folders:
            texts = [" ".join([f.detail, *f.files]) for f in result.findings if f.kind == kind]
            hits[fault] = [any(words in text for text in texts)]
        expected: dict[str, set[str]] = {}  # file -> kinds of findings that may name it
        for fault, groups in planted.items():
            for name in (name for group in groups for name in group):
                expected.setdefault(name, set()).update((FAULTS[fault][0], *SIDE_EFFECTS))
        alarms = [
            f
            for f in result.findings
            if f.severity != "note"
            and f.files
            and (f.kind, f.files) not in before
            and f.kind not in ("unused_images",)
            and any(f.kind not in expected.get(name, ()) for name in f.files)
        ]
        return hits, alarms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--each", type=int, default=5, help="how many of each fault")
    options = parser.parse_args()
    totals: dict[str, list[bool]] = {}
    alarms: list[Finding] = []
    for seed in range(options.seeds):
        hits, more = one_seed(options.data, seed=seed, each=options.each)
        for fault, results in hits.items():
            totals.setdefault(fault, []).extend(results)
        alarms += more
    print("| planted | finding | found |\n|---|---|---|")
    for fault, results in totals.items():
        kind = FAULTS[fault][0] if fault in FAULTS else "(folders)"
        print(f"| {fault} | {kind} | {sum(results)} of {len(results)} |")
    print(f"\n{len(totals)} kinds; findings that nothing planted explains: {len(alarms)}")
    for finding in alarms:
        print(f"- {finding.kind}: {finding.detail}: {', '.join(finding.files)}")
    return 0 if all(all(results) for results in totals.values()) and not alarms else 1


if __name__ == "__main__":
    sys.exit(main())

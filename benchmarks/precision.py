"""What a precision changes in the answers of checkpoints, against float32, and how fast it is.

    python benchmarks/precision.py --data dogs10 --unknown OTHERS outputs/dogs --precision bf16

For each checkpoint (or run folder): top-1 on test in float32 and in the precision, labels and
probabilities that differ, the threshold's share kept, AUROC of known against unknown photos, and
images a second of `Predictor`, decoding included, in turns. Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from cliptune import Prediction, Predictor
from cliptune.data.folder import load_split
from cliptune.data.image_files import IMAGE_SUFFIXES


def answers(predictor: Predictor, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, float]:
    """(N, C) probabilities, (N,) known-scores, and the seconds it took."""
    names = list(predictor.class_names)
    probabilities_NC, scores_N = np.zeros((len(paths), len(names))), np.zeros(len(paths))
    started = time.perf_counter()
    for i, found in enumerate(predictor.stream(paths, top_k=len(names))):
        assert isinstance(found, Prediction), found
        for score in found.scores:
            probabilities_NC[i, names.index(score.label)] = score.probability
        scores_N[i] = np.nan if found.known_score is None else found.known_score
    return probabilities_NC, scores_N, time.perf_counter() - started


def row(
    checkpoint: Path, folder: Path, unknown: Sequence[Path], *, precision: str, times: int
) -> str:
    """A line of the table."""
    exact, other = (Predictor(checkpoint, precision=each) for each in ("float32", precision))
    test = load_split(folder, "test", class_names=list(exact.class_names))
    paths, labels_N = [s.path for s in test.samples], np.array([s.label for s in test.samples])
    seconds: dict[Predictor, list[float]] = {exact: [], other: []}
    for _ in range(times):
        for predictor, spent in seconds.items():
            spent.append(answers(predictor, paths)[2])
    known, strangers = (
        [answers(predictor, photos)[:2] for predictor in (exact, other)]
        for photos in (paths, unknown)
    )
    top1 = [100 * float((p_NC.argmax(axis=1) == labels_N).mean()) for p_NC, _ in known]
    change_NC = np.abs(known[0][0] - known[1][0])
    flipped = int((known[0][0].argmax(axis=1) != known[1][0].argmax(axis=1)).sum())
    assert exact.answers is not None
    kept = [100 * float((scores_N >= exact.answers.threshold).mean()) for _, scores_N in known]
    areas = [
        roc_auc_score(np.repeat([1, 0], [len(paths), len(unknown)]), np.concatenate([own_N, of_N]))
        if len(unknown)
        else np.nan
        for (_, own_N), (_, of_N) in zip(known, strangers, strict=True)
    ]
    rates = [len(paths) / min(spent) for spent in seconds.values()]
    return (
        f"| {folder.name} | {len(paths)} | {top1[0]:.1f} → {top1[1]:.1f} | {flipped} "
        f"| {change_NC.max():.4f}; {np.quantile(change_NC.max(axis=1), 0.95):.4f} "
        f"| {kept[0]:.1f} → {kept[1]:.1f} | {areas[0]:.4f} → {areas[1]:.4f} "
        f"| {rates[0]:.0f} → {rates[1]:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="one for each")
    parser.add_argument(
        "--unknown", nargs="*", type=Path, default=[], help="of none of the classes"
    )
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    strangers = [
        path for folder in given.unknown for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]  # fmt: skip
    print(
        f"| data | photos | top-1, % | other labels | probability: largest change; 95 % below "
        f"| known kept, % | AUROC, {len(strangers)} strangers | images/s |\n{'|---' * 8}|"
    )
    for checkpoint, folder in zip(given.checkpoints, given.data, strict=True):
        print(row(checkpoint, folder, strangers, precision=given.precision, times=given.times))


if __name__ == "__main__":
    main()

"""Hostile input: mutated photos, checkpoints, settings and archives get an answer in words.

    python benchmarks/torture/fuzz.py --images 10000 --others 2000

Each case runs in a forked process that may neither crash nor hang nor write outside its folder.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mutations import archive, checkpoint, config, photo, photo_seeds
from tiny import Outcome, Run, import_all, make_inputs

SECONDS = 10  # for one case
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")

# Works on a case in a folder; True where the input was taken, False where it was refused in words.
Case = Callable[[int, Path], bool]


class Fault(AssertionError):
    """What may not happen."""


def images(count: int, folder: Path, *, seed: int = 0, photos: Path | None = None) -> Outcome:
    """Mutated photos through prediction's reader and training's loader."""
    import numpy as np
    from PIL import Image, ImageFile, ImageOps

    from cliptune.data.augment import Augmentation
    from cliptune.data.folder import Sample
    from cliptune.data.images import Preprocess
    from cliptune.data.loading import PhotoDataset
    from cliptune.data.reading import Unreadable, read_image
    from cliptune.errors import ImageError

    seeds = photo_seeds(photos)
    preprocess = Preprocess(
        resize=32, crop=(32, 32), resample=3, rescale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
    )

    def case(number: int, place: Path) -> bool:
        path = place / "case.jpg"
        path.write_bytes(photo(random.Random(f"image {number}"), seeds))
        assert not ImageFile.LOAD_TRUNCATED_IMAGES
        try:
            image = read_image(path)
        except ImageError as error:
            _in_words(error)
            image = None
        data = PhotoDataset([Sample(path, 7)], preprocess, augmentation=Augmentation(), seed=0)
        loaded = data[0]
        if isinstance(loaded, Unreadable):
            _in_words(loaded.reason)
        elif loaded[1:] != (7, 0, 0) or loaded[0].shape != (3, 32, 32):
            raise Fault(f"the loader gave {loaded[1:]}, {loaded[0].shape}")
        if image is None:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                opened.load()  # raises where the file is cut short: then nothing was to be taken
                whole = ImageOps.exif_transpose(opened)
        if whole.mode in ("RGB", "L") and "transparency" not in whole.info:
            expected = np.asarray(whole.convert("RGB"))
            if not np.array_equal(np.asarray(image), expected):
                raise Fault("other pixels than Pillow's")
        if image.mode != "RGB" or not np.asarray(image).size:
            raise Fault(f"read as {image.mode} {image.size}")
        return True

    return _fuzz("mutated photos", case, count, folder, seed=seed)


def checkpoints(count: int, folder: Path, *, seed: int = 0) -> Outcome:
    """Mutated checkpoints through `Predictor`; the sums are made anew, as an attacker would."""
    import numpy as np

    from cliptune import Predictor
    from cliptune.errors import CliptuneError
    from cliptune.files import SUMS, write_sums

    make_inputs(folder)
    run = Run(folder, folder / "checkpoints", **{"training.num_epochs": 1})
    run.finish()
    original = run.output / "checkpoint-epoch-1"
    pixels = np.full((32, 32, 3), 90, np.uint8)

    def case(number: int, place: Path) -> bool:
        rng = random.Random(f"checkpoint {number}")
        copy = place / "checkpoint-epoch-1"
        shutil.copytree(original, copy)
        checkpoint(rng, copy)
        whole = not (copy / SUMS).is_dir() and all(
            path.is_file() or path.is_dir() for path in copy.rglob("*")
        )
        if whole and rng.random() < 0.9:
            write_sums(copy)
        try:
            prediction = Predictor(copy, device="cpu").predict(pixels, top_k=2)
        except CliptuneError as error:
            _in_words(error)
            return False
        if not all(0 <= score.probability <= 1 for score in prediction.scores):
            raise Fault(f"predicted {prediction}")
        return True

    return _fuzz("mutated checkpoints", case, count, folder, seed=seed)


def configs(count: int, folder: Path, *, seed: int = 0) -> Outcome:
    """Mutated YAML through `load_settings`."""
    from cliptune import load_settings
    from cliptune.errors import SettingsError

    def case(number: int, place: Path) -> bool:
        path = place / "config.yaml"
        path.write_bytes(config(random.Random(f"config {number}")))
        try:
            load_settings(path)
        except SettingsError as error:
            _in_words(error)
            return False
        return True

    return _fuzz("mutated settings", case, count, folder, seed=seed)


def archives(count: int, folder: Path, *, seed: int = 0) -> Outcome:
    """Hostile and mutated tar archives through `prepare`."""
    from cliptune.errors import CliptuneError
    from cliptune.preparing.prepare import prepare

    def case(number: int, place: Path) -> bool:
        path = place / "photos.tar"
        path.write_bytes(archive(random.Random(f"archive {number}")))
        try:
            made = prepare(place / "made", source=path, progress=False)
        except CliptuneError as error:
            _in_words(error)
            if (place / "made").exists():
                raise Fault("refused, and something was made all the same") from None
            return False
        if not all(path.is_file() for path in (place / "made").rglob("*.*")):
            raise Fault(f"made {made.counts}")
        return True

    return _fuzz("mutated archives", case, count, folder, seed=seed)


def _in_words(error: Any) -> None:
    """An answer has something to say, and nothing that acts on a terminal."""
    from cliptune.commands.messages import for_terminal

    text = for_terminal(str(error))
    if not text.strip() or any(not c.isprintable() and c != "\n" for c in text):
        raise Fault(f"an answer of {text[:80]!r}")


def _fuzz(
    name: str, case: Case, count: int, folder: Path, *, seed: int, chunk: int = 100
) -> Outcome:
    """Work on the cases in forked processes; a crash or a hang ends one case, not the fuzzer."""
    faults: list[str] = []
    taken, number = 0, seed
    while number < seed + count:
        report = folder / "report.txt"
        report.write_text("")
        last = min(number + chunk, seed + count)
        pid = os.fork()
        if not pid:
            _work(case, range(number, last), folder, report)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        lines = report.read_text(errors="replace").splitlines()
        taken += lines.count("taken")
        faults += [line for line in lines if line.startswith("case ")]
        done = sum(line == "done" for line in lines)
        number += done
        if status:  # the case after the last that was done
            what = "hangs" if status == -signal.SIGALRM else f"ends the process with {status}"
            faults.append(f"case {number} {what}")
            number += 1
    note = f"{taken:,} taken, {count - taken - len(faults):,} refused in words"
    return Outcome(name, count, faults, note)


def _work(case: Case, numbers: range, folder: Path, report: Path) -> None:
    import resource

    memory = 6 << 30
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with report.open("a", buffering=1) as said:
        outside: list[str] = []
        place = Path(tempfile.mkdtemp(prefix="case-", dir=folder))
        allowed = (f"{place}/", "/dev/null/")
        sys.addaudithook(lambda event, args: _note_write(event, args, allowed, outside))
        for number in numbers:
            signal.alarm(SECONDS)  # its default action ends the process
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    warnings.filterwarnings("ignore", module="PIL")  # as the command does
                    warnings.filterwarnings("ignore", category=FutureWarning)
                    took = case(number, place)
                if outside:
                    raise Fault(f"wrote outside: {outside[:2]}")
                print("taken" if took else "refused", file=said)
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                text = str(error).splitlines()[:1]
                print(f"case {number}: {type(error).__name__} {text} at {where}", file=said)
            outside.clear()
            signal.alarm(0)
            for path in place.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            print("done", file=said)
    os._exit(0)


def _note_write(event: str, args: Any, allowed: tuple[str, ...], outside: list[str]) -> None:
    if event == "open" and isinstance(args[2], int):
        writes = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if not writes or isinstance(args[0], int):
            return
    elif event not in WRITES:
        return
    if event in ("os.mkdir", "os.remove", "os.rmdir") and args[-1] not in (-1, None):
        return  # relative to a folder's handle, as shutil.rmtree works
    path = os.fsdecode(args[1] if event in ("os.link", "os.symlink") else args[0])
    # The folder itself or what is below it; not a neighbour whose name begins like it.
    whole = f"{os.path.abspath(path)}/"  # noqa: PTH100
    if not whole.startswith(allowed) and "__pycache__" not in path:
        outside.append(f"{event} {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--others", type=int, default=0, help="of each of the other kinds")
    parser.add_argument("--photos", type=Path, help="real photos to start from, beside drawn ones")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    import_all()
    with tempfile.TemporaryDirectory() as scratch:
        folder, outcomes = Path(scratch), []
        if given.images:
            outcomes.append(images(given.images, folder, seed=given.seed, photos=given.photos))
        for kind in (checkpoints, configs, archives) if given.others else ():
            outcomes.append(kind(given.others, folder, seed=given.seed))
    for outcome in outcomes:
        print(outcome.line())
        print("".join(f"  {fault}\n" for fault in outcome.faults[:20]), end="")
    raise SystemExit(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    main()

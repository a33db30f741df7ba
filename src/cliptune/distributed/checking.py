"""`check` with its photos read on all nodes of a cluster; what they mean is told here."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cliptune.checking.check import CheckResult
from cliptune.checking.check import check as check_by
from cliptune.checking.inspection import CHUNK, Inspected, inspect_some
from cliptune.distributed.engine import import_ray, ray_running
from cliptune.errors import ResourceError
from cliptune.language import translated as _

_AHEAD = 4  # chunks for each core, so that none waits for the next


def check(
    data_dir: str | Path,
    *,
    ray_address: str | None = None,
    progress: bool = True,
    debug: bool = False,
) -> CheckResult:
    """What `cliptune.check` finds in `data_dir`, which every node reaches by the same path.

    `ray_address` is that of `cliptune.distributed.predict`. Whoever calls keeps what is known of
    each photo, about a kilobyte, and pairs them. Raises as `cliptune.check` does.
    """
    import_ray()
    with ray_running(ray_address, quiet=not debug) as ray:

        def inspect_on_nodes(paths: Sequence[Path], *, progress: bool) -> list[Inspected]:
            return _inspect(ray, paths, progress=progress)

        return check_by(Path(data_dir).absolute(), progress=progress, inspector=inspect_on_nodes)


def _inspect(ray: Any, paths: Sequence[Path], *, progress: bool) -> list[Inspected]:
    remote = ray.remote(max_retries=2)(inspect_some)
    waiting: deque[tuple[Any, Sequence[Path]]] = deque()
    results: list[Inspected] = []
    hidden = None if progress else True  # None: shown on a terminal only
    ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    with tqdm(total=len(paths), desc=_("checking"), unit="img", leave=False, disable=hidden) as bar:
        for start in [*range(0, len(paths), CHUNK), *[None] * ahead]:
            if start is not None:
                chunk = paths[start : start + CHUNK]
                waiting.append((remote.remote(chunk), chunk))
            if waiting and (start is None or len(waiting) >= ahead):
                some = _taken(ray, *waiting.popleft())
                results += some
                bar.update(len(some))
    return results


def _taken(ray: Any, reference: Any, chunk: Sequence[Path]) -> list[Inspected]:
    try:
        found: list[Inspected] = ray.get(reference)
    except ray.exceptions.WorkerCrashedError as error:
        raise ResourceError(
            "a process that reads photos was ended three times: memory ran out, or a file made a "
            f"decoder crash. It was at {chunk[0]} or the {len(chunk) - 1} after it. Move them away "
            "and check again."
        ) from error
    return found

"""Answers for a manifest of photos by Ray Data: shard by shard, each written once and whole."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cliptune._version import __version__
from cliptune.distributed.engine import import_ray, ray_running
from cliptune.distributed.manifests import import_pyarrow, refuse_missing
from cliptune.distributed.places import absolute, parent
from cliptune.errors import DataError, DeviceError, UserError
from cliptune.files import SUMS
from cliptune.language import translated as _
from cliptune.locks import Lock
from cliptune.model.checkpoint import resolve_checkpoint
from cliptune.model.prior import Prior
from cliptune.model.restore import load_label_answers, load_preprocess
from cliptune.storage import hub_place, is_address, local_folder

if TYPE_CHECKING:
    from cliptune.distributed.shards import Asked

log = logging.getLogger(__name__)

DECODING = ("auto", "beside", "apart")
THREADS = 16  # that read photos of a node's process: most of the time they wait for storage
_LINE_S = 60  # between two lines of progress, where there is no terminal
_SMALL_BLOCK = 2**20  # bytes: answers are handed on as they come; of each block Ray keeps 2 KB
_LARGE_BLOCK = 2**27  # bytes: crops go from node to node by the batch


@dataclass(frozen=True)
class Answered:
    """What `predict` did: `rows` in all, `before` of them answered by earlier runs of the command,
    `errors` rows of photos that could not be read, in `seconds` of this run."""

    output: str
    rows: int
    before: int
    errors: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows a second, of this run."""
        return (self.rows - self.before) / self.seconds if self.seconds else 0.0


def predict(
    checkpoint: str | Path,
    images: str | Path,
    output: str | Path,
    *,
    top_k: int = 5,
    batch_size: int = 32,
    device: str = "auto",
    precision: str | None = None,
    prior: Prior | None = None,
    base_model: str | None = None,
    reduced_decoding: bool = False,
    ray_address: str | None = None,
    decoding: str = "auto",
    cpus_per_actor: float = 1,
    shard_rows: int | None = None,
    progress: bool = True,
    debug: bool = False,
) -> Answered:
    """Answer for every photo of the manifest `images` (`cliptune.distributed.manifest` makes one).

    `output` is a folder, or the address of one, that every node reaches: Parquet files with a row
    for each row of the manifest (`id`, `path`, `label`, `name`, `probability`, `labels` and
    `probabilities` of the `top_k` best, `known`, `known_score`, `error`, and those of
    `Prediction.further` that the checkpoint tells, such as `shown` of several labels). A photo that
    cannot be read is a row with its `error`. Killed at any moment, the same call goes on: what is
    written is not computed again, and each id is there once.

    `checkpoint` and a base model in a folder are read on every node, by the same path or address.
    `device` is that of the actors that answer: "auto" takes the cluster's GPUs, one to an actor,
    or else its CPUs, `cpus_per_actor` each. `decoding` "beside" reads photos where they are
    answered, "apart" in tasks of their own on all CPUs; "auto": apart for GPUs. `batch_size` is
    how many photos a forward takes; `shard_rows` how many rows a file has (None: by the number of
    rows). `ray_address` is as `ray.init` has it; None: RAY_ADDRESS, a cluster running here, or one
    started for this call.

    Raises `UserError` before anything is begun, `DataError` for a manifest with faults, and
    `ResourceError` where the cluster is lost.
    """
    import_ray()
    import_pyarrow()
    from cliptune.distributed.shards import asked_before, cut, finish, has_rows, unanswered

    if decoding not in DECODING:
        raise UserError(f"decoding {decoding!r}: expected one of {', '.join(DECODING)}.")
    if top_k < 1 or batch_size < 1:
        raise UserError(f"top_k {top_k}, batch_size {batch_size}: expected 1 or more.")
    folder, manifest = absolute(output), absolute(images)
    refuse_missing(manifest)
    started = time.monotonic()
    with _alone(folder):
        asked = _asked(
            manifest, checkpoint, before=asked_before(folder), folder=folder, top_k=top_k,
            batch_size=batch_size, precision=precision, prior=prior, shard_rows=shard_rows,
            reduced_decoding=reduced_decoding,
        )  # fmt: skip
        missing = unanswered(folder, asked)
        before = asked.rows - sum(map(asked.rows_of, missing))
        if before:
            log.info("%s: %s of %s rows are there.", folder, f"{before:,}", f"{asked.rows:,}")
        if missing and not has_rows(folder, missing[0]):  # dropped when all was answered once
            cut(folder, asked)
        if missing:
            options = {
                "device": device, "precision": precision, "prior": prior, "base_model": base_model,
                "reduced_decoding": reduced_decoding, "batch_size": batch_size,
            }  # fmt: skip
            with ray_running(ray_address, quiet=not debug) as ray:
                pipeline = _Pipeline(
                    ray, asked, folder, options, decoding=decoding, cpus=cpus_per_actor
                )
                _answer(pipeline, missing, before=before, progress=progress)
        errors = finish(folder, asked)
    return Answered(folder, asked.rows, before, errors, time.monotonic() - started)


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Keep a second process off a folder of this machine's disks.

    At an address there is no lock: two that answer the same write the same.
    """
    if is_address(folder):
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = Lock(Path(folder, ".lock"))
    if not lock.take():
        raise UserError(f"--output {folder}: another process writes here. Wait for it.")
    try:
        yield
    finally:
        lock.free()


def _asked(
    manifest: str, checkpoint: str | Path, *, before: Asked | None, folder: str,
    shard_rows: int | None, batch_size: int, **settings: Any,
) -> Asked:  # fmt: skip
    """What is asked now; written with the rows of each shard, where nothing was `before`."""
    from cliptune.distributed.shards import (
        Asked,
        cut,
        digest_of,
        number_of_rows,
        refuse_another,
        rows_in_shard,
    )

    found = resolve_checkpoint(local_folder(checkpoint))
    load_label_answers(found, prior=settings["prior"])  # refuses a prior of several labels
    sums = found.path / SUMS
    if not sums.is_file():
        raise DataError(f"{found.path}: it has no {SUMS}; expected a checkpoint of this version.")
    rows = before.rows if before else number_of_rows(manifest)
    everywhere = is_address(checkpoint) or hub_place(checkpoint) is not None
    asked = Asked(
        manifest=manifest, manifest_sha256=digest_of(manifest), rows=rows,
        shard_rows=shard_rows
        or (before.shard_rows if before else rows_in_shard(rows, batch_size=batch_size)),
        checkpoint=str(checkpoint if everywhere else found.path.absolute()),
        checkpoint_sha256=hashlib.sha256(sums.read_bytes()).hexdigest(), batch_size=batch_size,
        **settings,
    )  # fmt: skip
    if before is None:
        log.info("%s: %s photos, cut into %s shards.", manifest, f"{rows:,}", f"{asked.shards:,}")
        cut(folder, asked)
    else:
        refuse_another(folder, before, asked)
    return asked


class _Pipeline:
    """The stages of Ray Data from numbers of shards to answers."""

    def __init__(
        self, ray: Any, asked: Asked, folder: str, options: dict[str, Any], *, decoding: str,
        cpus: float,
    ) -> None:  # fmt: skip
        self.ray, self.asked, self.folder, self.options = ray, asked, folder, options
        resources = ray.cluster_resources()
        self.cpus = min(cpus, resources.get("CPU", 1))
        self.gpus = resources.get("GPU", 0) if options["device"] in ("auto", "cuda") else 0
        self.apart = decoding == "apart" or (decoding == "auto" and self.gpus > 0)
        if options["device"] == "auto":
            options["device"] = "cuda" if self.gpus else "cpu"
        elif options["device"] == "cuda" and not self.gpus:
            raise DeviceError("--device cuda: the cluster has no GPU.")

    def tables(self, shards: list[int]) -> Iterator[Any]:
        """The answers for `shards`, as they come: tables with `shard` and `row`."""
        from cliptune.distributed.stages import Answering

        data = self.ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = _LARGE_BLOCK if self.apart else _SMALL_BLOCK
        rows = data.from_blocks([self._block(shard) for shard in shards])
        if self.apart:
            rows = self._read(rows)
        where = {
            "checkpoint": self.asked.checkpoint, "folder": self.folder, "version": __version__,
            "base": parent(self.asked.manifest), "top_k": self.asked.top_k, "threads": THREADS,
        }  # fmt: skip
        answers = rows.map_batches(
            Answering, batch_size=None, fn_constructor_kwargs={**where, **self.options},
            compute=data.ActorPoolStrategy(min_size=1, max_tasks_in_flight_per_actor=2),
            **({"num_gpus": 1} if self.gpus else {"num_cpus": self.cpus}),
        )  # fmt: skip
        yield from answers.iter_batches(batch_size=None, batch_format="pyarrow")

    def _read(self, rows: Any) -> Any:
        from cliptune.distributed.stages import Reading

        preprocess = load_preprocess(resolve_checkpoint(local_folder(self.asked.checkpoint)))
        return rows.map_batches(
            Reading, batch_size=None, compute=self.ray.data.ActorPoolStrategy(min_size=1),
            num_cpus=1, fn_constructor_kwargs={
                "preprocess": preprocess, "folder": self.folder,
                "reduced_decoding": self.options["reduced_decoding"], "version": __version__,
                "batch_size": self.asked.batch_size, "base": parent(self.asked.manifest),
                "threads": THREADS,
            },
        )  # fmt: skip

    @staticmethod
    def _block(shard: int) -> Any:
        return import_pyarrow().table({"shard": [shard]})


def _answer(pipeline: _Pipeline, shards: list[int], *, before: int, progress: bool) -> None:
    """Write each of `shards` as soon as it is whole, and show how far it is."""
    from cliptune.distributed.collecting import Collector
    from cliptune.distributed.shards import part, write_table

    asked, folder = pipeline.asked, pipeline.folder
    collector = Collector(asked, lambda shard, table: write_table(part(folder, shard), table))
    hidden = None if progress else True  # None: shown on a terminal only
    bar = tqdm(
        desc=_("predicting"), total=asked.rows, initial=before, unit="img", smoothing=0.05,
        disable=hidden, leave=False,
    )  # fmt: skip
    told = started = time.monotonic()
    done = before
    with bar:
        for table in pipeline.tables(shards):
            new = collector.add(table)
            done += new
            bar.update(new)
            now = time.monotonic()
            if progress and bar.disable and now - told >= _LINE_S:
                told, rate = now, (done - before) / (now - started)
                left = tqdm.format_interval((asked.rows - done) / rate) if rate else "?"
                log.info(
                    "%s of %s rows, %.0f a second, %s left", f"{done:,}", f"{asked.rows:,}", rate,
                    left,
                )  # fmt: skip

"""A cluster of Ray on this machine: a head that computes nothing, and nodes that can be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from cliptune.distributed.engine import import_ray


class Nodes:
    """`count` nodes of one core each, every one with processes and an object store of its own."""

    def __init__(self, count: int, *, cpus: int = 1, store_bytes: int = 300_000_000) -> None:
        import_ray()
        from ray.cluster_utils import Cluster

        self._each = {"num_cpus": cpus, "object_store_memory": store_bytes}
        head = {**self._each, "num_cpus": 0, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self.nodes: list[Any] = [self._cluster.add_node(**self._each) for _ in range(count)]

    def kill_node(self, place: int) -> None:
        """End all of a node's processes at once, and start another in its place."""
        self._cluster.remove_node(self.nodes[place], allow_graceful=False)
        self.nodes[place] = self._cluster.add_node(**self._each)

    def processes_of(self, place: int) -> list[psutil.Process]:
        """What the node runs, its own daemons included."""
        raylet = psutil.Process(self.nodes[place].all_processes["raylet"][0].process.pid)
        return [raylet, *raylet.children(recursive=True)]

    def kill_actor(self, place: int) -> bool:
        """Kill the process of a node that answers; whether there was one."""
        for process in self.processes_of(place):
            if is_answering(process):
                os.kill(process.pid, signal.SIGKILL)
                return True
        return False

    def end(self) -> None:
        """Leave no process."""
        self._cluster.shutdown()


def is_answering(process: psutil.Process) -> bool:
    """Whether it is an actor of the pipeline: Ray names processes by what they do."""
    try:
        return "MapWorker" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


@contextmanager
def nodes(count: int, **options: Any) -> Iterator[Nodes]:
    """`Nodes`, ended whatever happens."""
    running = Nodes(count, **options)
    try:
        yield running
    finally:
        running.end()

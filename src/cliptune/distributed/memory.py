"""Freed memory given back to the system, by processes that live for millions of photos."""

from __future__ import annotations

import ctypes
import sys

from cliptune.distributed.manifests import import_pyarrow


def give_back() -> None:
    """Return what was freed and is kept for later: by Arrow, and by glibc for each thread.

    Photos are read by many threads, each with a heap of its own that only its last piece lets
    shrink: without this, a process that reads ten million photos comes to hold a fifth more.
    """
    import_pyarrow().default_memory_pool().release_unused()
    if sys.platform == "linux":  # not every C library has it
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

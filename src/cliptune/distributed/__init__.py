"""Beyond one machine: what is asked of many photos, by an engine that shares the work out (Ray)."""

from cliptune.distributed.checking import check
from cliptune.distributed.manifests import write_manifest as manifest
from cliptune.distributed.predicting import Answered, predict

__all__ = ["Answered", "check", "manifest", "predict"]

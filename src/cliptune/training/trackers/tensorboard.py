"""TensorBoard: curves, settings as text and in its HParams tab, pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cliptune.training.trackers.telling import Outcome, Scalar


class TensorBoard:
    """Event files in `folder`, whose names end in `ending`.

    `shown` are the settings as the text panel has them, with the folders of this machine.
    """

    name = "tensorboard"

    def __init__(self, folder: Path, *, ending: str, shown: Mapping[str, object]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), filename_suffix=ending)
        self.run_name, self.shown = folder.name, shown

    def begin(self, settings: Mapping[str, Scalar], *, resumed: bool) -> None:
        """Write the settings once: of a run that goes on they stand in its first file."""
        if not resumed:
            self.writer.add_text("settings", _as_table(self.shown))
            self._about_the_session(settings)
            self.writer.flush()

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """A scalar for each, on the disk when this returns."""
        for key, value in values.items():
            self.writer.add_scalar(key, value, global_step=step)
        self.writer.flush()

    def picture(self, name: str, path: Path, *, step: int) -> None:
        """One of the Images tab."""
        with Image.open(path) as image:
            pixels_HWC = np.asarray(image.convert("RGB"))
        self.writer.add_image(name, pixels_HWC, global_step=step, dataformats="HWC")
        self.writer.flush()  # what a checkpoint notes of the file ends with a whole record

    def reached(self, files: Sequence[Path], *, step: int) -> None:
        """Files stay where they are."""

    def finish(self, outcome: Outcome) -> None:
        """Close; a run that was stopped is not over for the HParams tab."""
        from tensorboard.plugins.hparams import api_pb2, metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

        if outcome != "stopped":
            status = api_pb2.STATUS_SUCCESS if outcome == "finished" else api_pb2.STATUS_FAILURE
            end = SessionEndInfo(status=status, end_time_secs=time.time())
            self._hparams(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))
        self.writer.close()

    def _about_the_session(self, settings: Mapping[str, Scalar]) -> None:
        """The settings, for the HParams tab; its figures it finds among the curves.

        `SummaryWriter.add_hparams` would write a second folder, and a list of all settings, by
        which the tab no longer puts those first in which runs differ.
        """
        from tensorboard.plugins.hparams import metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

        start = SessionStartInfo(group_name=self.run_name, start_time_secs=time.time())
        for key, value in settings.items():
            if isinstance(value, bool):
                start.hparams[key].bool_value = value
            elif isinstance(value, str):
                start.hparams[key].string_value = value
            else:
                start.hparams[key].number_value = value
        self._hparams(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))

    def _hparams(self, tag: str, data: object) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.metadata import create_summary_metadata

        value = Summary.Value(tag=tag, metadata=create_summary_metadata(data))
        files = self.writer.file_writer
        assert files is not None, "there until it is closed"
        files.add_summary(Summary(value=[value]))


def _as_table(settings: Mapping[str, object]) -> str:
    """Settings as a table in Markdown, which TensorBoard shows."""
    rows = [f"| `{key}` | `{value}` |" for key, value in settings.items()]
    return "\n".join(["| setting | value |", "|---|---|", *rows])

"""TensorBoard: an event file in the run folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from time import time
from typing import Any

from detector.callbacks.loggers.base import Logger, histogram, project_folder

log = logging.getLogger(__name__)


class TensorBoardLogger(Logger):
    """Writes TensorBoard's event file, from the start of the first epoch on.

    The file is written in this thread and flushed after every epoch: no metric is lost when a run is
    killed, and a full disk is noticed where it happens. A resumed training writes another file into the folder,
    which TensorBoard shows as the same run. How the run ended is the text `state`.
    """

    name, title, package = "tensorboard", "TensorBoard", "tensorboard"

    def open(self, trainer: Any) -> None:
        self.folder, self.project = trainer.save_dir, project_folder(trainer)
        self.writer: Any = None
        self.settings: dict[str, Any] = {}

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        """Keep them for the head of the file."""
        self.settings |= settings

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._write(step, [{"tag": name, "simple_value": value} for name, value in metrics.items()])

    def log_images(self, images: Mapping[str, Path], step: int) -> None:
        """Write the compressed image files unchanged."""
        from detector.data.images import image_size

        values = []
        for name, path in images.items():
            data = path.read_bytes()
            height, width = image_size(data) or (0, 0)
            image = {
                "height": height,
                "width": width,
                "colorspace": 3,
                "encoded_image_string": data,
            }  # 3: RGB
            values.append({"tag": name, "image": image})
        self._write(step, values)

    def log_file(self, path: Path) -> None:
        """Write where the weights are: TensorBoard takes no files."""
        self._write(0, [_text("weights", str(path))])

    def verify(self) -> None:
        """Write the head of the file: what can't be written is known before the first epoch."""
        self._write(0, [])

    def log_text(self, name: str, text: str, step: int) -> None:
        self._write(step, [_text(name, text)])

    def log_histogram(self, name: str, values: Any, step: int) -> None:
        counts, edges = histogram(values)
        limits, bucket = edges[1:].tolist(), counts.tolist()
        histo = {
            "min": edges[0],
            "max": edges[-1],
            "num": sum(bucket),
            "bucket_limit": limits,
            "bucket": bucket,
        }
        self._write(step, [{"tag": name, "histo": histo}])

    def close(self, failed: bool) -> None:
        """Write how the run ended, close the file and log the command that shows it."""
        began = "model/parameters" in self.settings  # a run that could not begin leaves no folder
        if not self.is_broken and (began or self.writer is not None):
            why = f": {self.stop_reason}" if self.stop_reason else ""
            self._write(0, [_text("state", self.outcome(failed) + why)])
            log.info("TensorBoard: tensorboard --logdir %s", quote(str(self.project)))
        if self.writer is not None:
            self.writer.close()

    def _write(self, step: int, values: list[dict[str, Any]]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self.writer is None:
            self._begin()
        summary = Summary(value=[Summary.Value(**value) for value in values])
        self.writer.write(Event(wall_time=time(), step=step, summary=summary).SerializeToString())
        self.writer.flush()

    def _begin(self) -> None:
        """Open the file and write its head: the version of the format, and the settings as a table."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        now = time()
        path = self.folder / f"events.out.tfevents.{now:.6f}.detector"
        self.writer = RecordWriter(path.open("xb"))
        self.writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        if self.start_epoch:  # of epochs from here on, what an interrupted run wrote is not shown
            start = SessionLog(status=SessionLog.START)
            event = Event(wall_time=now, step=self.start_epoch + 1, session_log=start)
            self.writer.write(event.SerializeToString())
        rows = "".join(f"\n| {name} | {value} |" for name, value in self.settings.items())
        self._write(0, [_text("settings", f"| setting | value |\n|---|---|{rows}")])


def _text(tag: str, text: str) -> dict[str, Any]:
    """Return a value that TensorBoard shows as text (Markdown)."""
    tensor = {"dtype": 7, "string_val": [text.encode()]}  # 7: DT_STRING
    return {"tag": tag, "metadata": {"plugin_data": {"plugin_name": "text"}}, "tensor": tensor}

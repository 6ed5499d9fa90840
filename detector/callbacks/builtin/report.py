"""The run as one page to look at, report.html, and the evaluation that it and the live page show."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from time import perf_counter
from typing import Any

from detector.callbacks.callback import Callback

SIDE = 480  # longest side of an image in the report, px
QUALITY = 80  # of its JPEG
EVERY = 5.0  # seconds between two evaluations within a run: short epochs don't each write one


class Report(Callback):
    """Writes `report.html` at the end of the run, one file that opens without a network.

    Validations leave their metrics per class in `evaluation.json`, within a run at most every 5 s; the last one also
    curves, the confusion matrix, the kinds of errors and the best and worst images, which are read again for it.
    docs/report.md describes both.
    """

    _next = 0.0  # when an evaluation within the run is written again

    def on_pretrain_routine_start(self, _: Any) -> None:
        """The first validation of each run is written."""
        self._next = 0.0

    def on_val_end(self, validator: Any) -> None:
        """Write evaluation.json."""
        if validator.save_dir is None or (perf_counter() < self._next and not validator.final):
            return
        from detector.drawing import dispensable, writing
        from detector.files.atomic import replace_file
        from detector.metrics.evaluation import EVALUATION, describe_evaluation, describe_metrics

        if validator.final:
            content = describe_evaluation(validator.metrics, validator.evaluator, validator.paths)
            value_range = getattr(validator.backend, "value_range", None)
            for sample in content["samples"]:
                sample["jpeg"] = _jpeg_of(validator.paths[sample.pop("index")], value_range)
        else:
            content = describe_metrics(validator.metrics, final=False)
            self._next = perf_counter() + EVERY
        path = Path(validator.save_dir) / EVALUATION
        with dispensable(EVALUATION), writing(path, "evaluation"):
            replace_file(path, json.dumps(content, separators=(",", ":"), allow_nan=False).encode())

    def teardown(self, trainer: Any) -> None:
        """Write the report, of a run that failed as well, if it has ended an epoch."""
        from detector.drawing import dispensable
        from detector.pages.report import REPORT, write_report
        from detector.runs.record import METRICS, STATUS

        folder = Path(trainer.__dict__.get("save_dir") or "")  # a run that failed early has none
        if trainer.__dict__.get("save_dir") and all((folder / name).is_file() for name in (STATUS, METRICS)):
            with dispensable(REPORT):
                write_report(folder)


def _jpeg_of(path: str, value_range: tuple[float, float] | None) -> str | None:
    """Return an image as a small JPEG in base64; None if it can't be read any more."""
    import cv2

    from detector.data.images import PixelFormat, read_image
    from detector.errors import DataError

    try:
        image = read_image(path, quiet=True, form=PixelFormat(3, value_range))
    except DataError:  # the page says so
        return None
    scale = min(SIDE / max(image.shape[:2]), 1.0)
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return base64.b64encode(
        cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[1].tobytes()
    ).decode()

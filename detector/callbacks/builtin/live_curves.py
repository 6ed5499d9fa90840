"""The curves of a run below the cell of the notebook that trains."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from detector.callbacks.builtin.checks import require_number
from detector.callbacks.callback import Callback

HIDDEN = ("speed/", "lr/")  # metrics without a panel


class LiveCurves(Callback):
    """Draws the run's losses and metrics into the output of the notebook's cell, and again after each epoch.

    It is added by default in a notebook, unless `plots=false`. Of short epochs some are passed over, so that drawing
    takes a small part of the time; the last one is always drawn. It draws what is in `results.csv`.

    Args:
        share: the part of the run's time that drawing may take.

    Raises:
        CallbackError: if `share` is not a number > 0.
    """

    def __init__(self, share: float = 0.05) -> None:
        self.share = require_number("LiveCurves", "share", share, above=True)
        self._handle: Any = None
        self._next = 0.0

    def on_train_start(self, trainer: Any) -> None:
        """A run has a display of its own; its first epoch is drawn whatever it takes."""
        self._handle, self._next = None, 0.0

    def on_fit_epoch_end(self, trainer: Any) -> None:
        if perf_counter() >= self._next:
            self._draw(trainer)

    def on_train_end(self, trainer: Any) -> None:
        self._draw(trainer)

    def _draw(self, trainer: Any) -> None:
        """Put the curves into the display of this run, which the first call opens."""
        if not trainer.csv.is_file():  # without CSVLogger, or before the first epoch has ended
            return
        from importlib import import_module

        from detector.drawing import dispensable, notebook_png
        from detector.plots import draw_results, pixels_of, read_results

        start = perf_counter()
        ipython: Any = import_module("IPython.display")
        with dispensable("live curves"):
            epochs, columns = read_results(trainer.csv)
            shown = {key: values for key, values in columns.items() if not key.startswith(HIDDEN)}
            image = ipython.Image(data=notebook_png(pixels_of(draw_results(epochs, shown))))
            if self._handle is None:
                self._handle = ipython.display(image, display_id=True)
            else:
                self._handle.update(image)
        self._next = perf_counter() + (perf_counter() - start) / self.share

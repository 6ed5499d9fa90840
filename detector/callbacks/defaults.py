"""The callbacks a training has by itself; each is an ordinary member of the registry."""

from __future__ import annotations

from detector.callbacks.csv_logger import CSVLogger
from detector.callbacks.early_stopping import EarlyStopping
from detector.callbacks.pictures import Pictures
from detector.callbacks.progress_bar import ProgressBar


def default_callbacks(patience: int, verbose: bool, plots: bool) -> list[object]:
    """Return the default callbacks of a training run, in the order they are called.

    Args:
        patience: epochs without a better fitness before stopping; 0 = never stop early.
        verbose: show progress.
        plots: draw curves and sample pictures.
    """
    callbacks: list[object] = [CSVLogger()]
    if verbose:
        callbacks.append(ProgressBar())
    if patience:
        callbacks.append(EarlyStopping(patience))
    if plots:
        callbacks.append(Pictures())
    return callbacks

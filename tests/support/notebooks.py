"""Notebooks run in a real kernel."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

QUIET = (
    "import os, warnings\n"
    "os.environ['NO_ALBUMENTATIONS_UPDATE'] = '1'\n"
    "from detector.callbacks import loggers\n"
    "loggers.find_spec = lambda name: None  # no installed logger\n"
)


def run_cells(
    cells: Sequence[str], folder: Path, stop_at: Path | None = None, timeout: int = 300
) -> list[Any]:
    """Run cells of code in a new kernel in a folder; return the outputs of each.

    Args:
        cells: source texts.
        folder: the working folder of the kernel.
        stop_at: interrupt the kernel once, as the button in a notebook does, when this file has some content.
        timeout: seconds for a cell.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in [QUIET, *cells]])
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            if stop_at is not None and stop_at.is_file() and stop_at.stat().st_size:
                os.killpg(client.km.provisioner.pgid, signal.SIGINT)  # as `interrupt_kernel` does
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        client.execute()
    finally:
        done.set()
        watcher.join()
    return [cell.outputs for cell in notebook.cells[1:]]


def text_of(outputs: Sequence[Any]) -> str:
    """Return what a cell printed."""
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def errors_of(outputs: Sequence[Any]) -> list[str]:
    """Return the names of the exceptions that ended a cell."""
    return [output["ename"] for output in outputs if output["output_type"] == "error"]


def data_of(outputs: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what a cell displayed, by media type."""
    return [output["data"] for output in outputs if "data" in output]

"""Use of the machine by a training."""

from __future__ import annotations

from importlib import import_module
from time import perf_counter
from typing import Any

from detector.callbacks.builtin.checks import require_number
from detector.callbacks.callback import Callback
from detector.errors import MissingPackageError

GB = 1e9


class ResourceMonitor(Callback):
    """Adds the use of processor, memory and GPU to the metrics of each epoch, validation included.

    | metric | meaning |
    |---|---|
    | resources/cpu_percent | processors of the whole machine, mean |
    | resources/cpu_process_percent | this process, mean; 100 is one core |
    | resources/ram_percent | memory of the whole machine in use, at the end of the epoch |
    | resources/ram_process_gb | memory of this process and its loader workers, at the end of the epoch |
    | resources/gpu_percent | time in which the GPU was busy, mean (needs nvidia-ml-py) |
    | resources/gpu_memory_gb | memory of the GPU in use, of all processes, the highest seen |
    | resources/gpu_memory_percent | the same as a part of the GPU's memory |
    | resources/data_wait_percent | time in which training waited for data |

    Args:
        every: seconds between two measurements of the GPU.

    Raises:
        CallbackError: if `every` is not a number > 0.
        MissingPackageError: when a run starts, if psutil is not installed.
    """

    def __init__(self, every: float = 2.0) -> None:
        self.every = require_number("ResourceMonitor", "every", every, above=True)
        self.gpu: _GPU | None = None

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        try:
            self.psutil = import_module("psutil")
        except ImportError:
            raise MissingPackageError(
                "ResourceMonitor needs the psutil package: pip install 'detector[monitor]'"
            ) from None
        self.process = self.psutil.Process()
        self.gpu = _GPU(trainer.device) if trainer.device.type == "cuda" else None

    def on_train_start(self, trainer: Any) -> None:
        """Begin to measure: a run that is resumed within an epoch does not start that epoch again."""
        self.on_train_epoch_start(trainer)

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Begin to measure; psutil returns means since its last call."""
        self.psutil.cpu_percent()
        self.process.cpu_percent()
        self.looked_at = perf_counter()
        if self.gpu is not None:
            self.gpu.forget()

    def on_train_batch_end(self, trainer: Any) -> None:
        if self.gpu is not None and perf_counter() - self.looked_at >= self.every:
            self.gpu.look()
            self.looked_at = perf_counter()

    def on_fit_epoch_end(self, trainer: Any) -> None:
        found = {
            "cpu_percent": self.psutil.cpu_percent(),
            "cpu_process_percent": self.process.cpu_percent(),
            "ram_percent": self.psutil.virtual_memory().percent,
            "ram_process_gb": self._process_memory() / GB,
        }
        if self.gpu is not None:
            self.gpu.look()
            found |= self.gpu.metrics()
        if "speed/data_wait" in trainer.metrics:
            found["data_wait_percent"] = 100 * trainer.metrics["speed/data_wait"]
        trainer.metrics |= {f"resources/{name}": float(value) for name, value in found.items()}

    def _process_memory(self) -> int:
        """Return the resident bytes of this process and its workers; pages they share count for each."""
        total = int(self.process.memory_info().rss)
        for child in self.process.children(recursive=True):
            try:
                total += child.memory_info().rss
            except self.psutil.Error:  # it ended in between
                continue
        return total


class _GPU:
    """Looks at a CUDA device: its memory through torch, its use through pynvml where that is installed."""

    def __init__(self, device: Any) -> None:
        self.device = device
        try:
            self.errors = (import_module("pynvml").NVMLError, RuntimeError)  # the second is torch's
            self.reads_use = True
        except ImportError:
            self.reads_use = False
        self.forget()

    def forget(self) -> None:
        self.used_share: list[float] = []
        self.memory, self.memory_share = 0, 0.0

    def look(self) -> None:
        import torch

        free, total = torch.cuda.mem_get_info(self.device)
        self.memory = max(self.memory, total - free)
        self.memory_share = self.memory / total
        if self.reads_use:
            try:
                self.used_share.append(torch.cuda.utilization(self.device))
            except self.errors:  # a part of a GPU (MIG) does not report its use
                self.reads_use = False

    def metrics(self) -> dict[str, float]:
        found = {"gpu_memory_gb": self.memory / GB, "gpu_memory_percent": 100 * self.memory_share}
        if self.used_share:
            found["gpu_percent"] = sum(self.used_share) / len(self.used_share)
        return found

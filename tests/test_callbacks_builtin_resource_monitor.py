import sys
from types import SimpleNamespace

import pytest

from detector.callbacks.builtin import resource_monitor
from detector.callbacks.builtin.resource_monitor import ResourceMonitor
from detector.errors import CallbackError, MissingPackageError


def test_the_use_is_in_the_metrics_and_in_the_file(train_tiny, tmp_path):
    yolo = train_tiny(ResourceMonitor(), epochs=1)
    metrics = yolo.trainer.metrics
    found = {name.removeprefix("resources/") for name in metrics if name.startswith("resources/")}
    assert found == {
        "cpu_percent", "cpu_process_percent", "ram_percent", "ram_process_gb", "data_wait_percent"
    }  # fmt: skip
    assert 0.05 < metrics["resources/ram_process_gb"] < 100
    assert 0 < metrics["resources/ram_percent"] < 100
    assert metrics["resources/cpu_process_percent"] > 0
    assert metrics["resources/data_wait_percent"] == pytest.approx(100 * metrics["speed/data_wait"])
    assert "resources/ram_percent" in (tmp_path / "train/results.csv").read_text()


def test_the_gpu_is_looked_at_now_and_then(monkeypatch):
    class GPU:
        looks = 0

        def __init__(self, device):
            """Nothing to look at."""

        def forget(self):
            GPU.looks = 0

        def look(self):
            GPU.looks += 1

        def metrics(self):
            return {"gpu_percent": 50, "gpu_memory_gb": 2.0}

    now = [0.0]
    monkeypatch.setattr(resource_monitor, "_GPU", GPU)
    monkeypatch.setattr(resource_monitor, "perf_counter", lambda: now[0])
    trainer = SimpleNamespace(device=SimpleNamespace(type="cuda"), metrics={})
    monitor = ResourceMonitor(every=3)
    monitor.on_pretrain_routine_start(trainer)
    monitor.on_train_epoch_start(trainer)
    for now[0] in (1.0, 2.0, 3.0, 4.0, 7.0):
        monitor.on_train_batch_end(trainer)
    assert GPU.looks == 2
    monitor.on_fit_epoch_end(trainer)
    assert trainer.metrics["resources/gpu_percent"] == 50.0
    assert trainer.metrics["resources/gpu_memory_gb"] == 2.0


def test_gpu_metrics_are_means_and_the_highest_memory(monkeypatch):
    import torch

    free, used = iter([6e9, 2e9, 4e9]), iter([30, 90, 60])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (next(free), 8e9))
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: next(used))
    gpu = resource_monitor._GPU("cuda:0")
    for _ in range(3):
        gpu.look()
    assert gpu.metrics() == {"gpu_memory_gb": 6.0, "gpu_memory_percent": 75.0, "gpu_percent": 60.0}


def test_a_gpu_that_does_not_tell_its_use_is_measured_without(monkeypatch):
    import pynvml
    import torch

    def refuse(device):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1e9, 2e9))
    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    gpu = resource_monitor._GPU("cuda:0")
    gpu.look()
    assert gpu.metrics() == {"gpu_memory_gb": 1.0, "gpu_memory_percent": 50.0}


def test_without_pynvml_the_memory_is_still_reported(monkeypatch):
    import torch

    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1e9, 2e9))
    gpu = resource_monitor._GPU("cuda:0")
    gpu.look()
    assert gpu.metrics() == {"gpu_memory_gb": 1.0, "gpu_memory_percent": 50.0}


def test_without_psutil_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    trainer = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    with pytest.raises(MissingPackageError, match=r"psutil package: pip install 'detector\[monitor\]'"):
        ResourceMonitor().on_pretrain_routine_start(trainer)


def test_a_bad_interval_is_refused():
    with pytest.raises(CallbackError, match=r"ResourceMonitor\(every=0\): expected a number > 0"):
        ResourceMonitor(every=0)


def test_a_run_that_is_resumed_within_an_epoch_is_measured(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1e9, 2e9))
    trainer = SimpleNamespace(device=torch.device("cuda:0"), metrics={})
    monitor = ResourceMonitor()
    monitor.on_pretrain_routine_start(trainer)
    monitor.on_train_start(trainer)
    monitor.on_train_batch_end(trainer)  # no epoch has started
    monitor.on_fit_epoch_end(trainer)
    assert trainer.metrics["resources/gpu_memory_gb"] == 1.0

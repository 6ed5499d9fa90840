import pytest
import torch

from detector import device as device_module
from detector.device import StageTimer, select_device, select_precision
from detector.errors import SettingsError

CPU = torch.device("cpu")


def test_a_timer_adds_up_the_stages_of_all_batches(monkeypatch):
    clock = iter([0.0, 1.0, 1.5, 3.5, 10.0, 10.25])
    monkeypatch.setattr(device_module, "perf_counter", lambda: next(clock))
    timer = StageTimer(CPU, ("load", "run", "save"))
    timer.start()
    assert (timer.stop("load"), timer.stop("run")) == (0.5, 2.0)
    timer.start()
    timer.stop("run")
    assert timer.seconds == {"load": 0.5, "run": 2.25, "save": 0.0}
    assert timer.ms_per_image(10) == {"load": 50.0, "run": 225.0, "save": 0.0}


def test_auto_is_a_device_of_this_machine():
    assert select_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("device", [99, "99", "cuda:99", [99]])
def test_a_missing_gpu_is_refused(device):
    with pytest.raises(SettingsError, match="try device=auto"):
        select_device(device)


@pytest.mark.parametrize("device", ["gpu", "tpu:0"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(SettingsError, match="expected auto, cpu, mps or a CUDA index"):
        select_device(device)


def test_several_devices_are_refused():
    with pytest.raises(SettingsError, match="expected one device"):
        select_device("0,1")


def test_amp_false_is_float32():
    assert select_precision(False, CPU).dtype is None
    assert select_precision("fp32", CPU).name == "fp32"


def test_auto_on_the_cpu_follows_its_instructions():
    has = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert select_precision("auto", CPU).name == ("bf16" if has else "fp32")


def test_fp16_needs_cuda():
    with pytest.raises(SettingsError, match="amp=fp16: expected a CUDA device"):
        select_precision("fp16", CPU)

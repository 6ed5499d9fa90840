import subprocess
import sys

import numpy as np
import pytest
import torch
from support.models import drawn_inputs

from detector import YOLO
from detector.device import select_precision
from detector.inference.exported_backend import run_file
from detector.inference.torch_backend import TorchBackend


def test_an_openvino_network_is_opened_by_its_folder_and_by_its_file(exported, trained):
    path = exported(format="openvino")
    assert sorted(file.name for file in path.iterdir()) == ["model.bin", "model.xml"]
    assert YOLO(path / "model.xml").names == trained.names


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_openvino_takes_pixels_as_it_takes_floats(exported, dynamic):
    path = exported(format="openvino", dynamic=dynamic)
    inputs = drawn_inputs(96, 96)[:1]
    opened = YOLO(path).exported
    runtime = opened.runtime("fp32")
    assert runtime.takes_pixels
    whole, parts = (run_file(runtime, opened.contract, given, path) for given in (inputs, inputs / 255))
    assert np.abs(whole - parts).max() < 1e-3
    assert len(runtime._requests) == 2


def test_the_first_shapes_get_a_compiled_model_each_and_all_others_share_one(exported, trained):
    path = exported(format="openvino", dynamic=True)
    opened = YOLO(path).exported
    runtime = opened.runtime("fp32")
    assert not runtime._requests, "compiled when an input comes"
    expected = TorchBackend(trained.model, torch.device("cpu"), select_precision("fp32", torch.device("cpu")))
    for _ in range(2):
        for width in (32, 64, 96, 128, 160, 192):
            inputs = drawn_inputs(64, width)[:1]
            preds = run_file(runtime, opened.contract, inputs, path)
            assert np.abs(preds - expected.forward(inputs)[0].numpy()).max() < 0.01
    shapes = [shape for _, shape in runtime._requests]
    assert shapes == [(1, 64, width, 3) for width in (32, 64, 96, 128)] + [None]


def test_a_child_process_ends_well_after_openvino_ran(exported):
    """It killed the process: a signal that Python handles, after two of OpenVINO's cores had been made and dropped."""
    code = (
        "import gc, signal, subprocess, sys, numpy;"
        "from detector import YOLO;"
        "signal.signal(signal.SIGCHLD, lambda *_: print('heard'));"
        "image = numpy.zeros((96, 96, 3), numpy.uint8);"
        "[YOLO(sys.argv[1]).predict(image, amp=amp, verbose=False) for amp in (False, 'auto', False)];"
        "gc.collect();"
        "subprocess.run(['true'])"
    )
    path = str(exported(format="openvino"))
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "heard" in done.stdout, done.stderr

import numpy as np
import pytest
import torch

from detector.runtimes import TensorSpec
from detector.runtimes.torchscript import load


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_program_of_another_tool_has_no_metadata(tmp_path):
    torch.jit.trace(torch.nn.ReLU(), torch.zeros(1, 2)).save(str(tmp_path / "relu.torchscript"))
    runtime = load(tmp_path / "relu.torchscript")
    assert runtime.metadata == {} and runtime.input == runtime.output == TensorSpec()
    assert runtime.run(np.array([[-1.0, 2.0]], np.float32)).tolist() == [[0.0, 2.0]]

import numpy as np
import torch

from detector.runtimes import TensorSpec
from detector.runtimes.torch_export import load


def test_free_sizes_are_read_from_the_program(tmp_path):
    sizes = {0: torch.export.Dim("batch", min=1, max=8)}
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2, 3),), dynamic_shapes=(sizes,))
    torch.export.save(program, tmp_path / "relu.pt2")
    runtime = load(tmp_path / "relu.pt2")
    assert runtime.metadata == {}
    assert runtime.input == runtime.output == TensorSpec((None, 3), "float32")
    assert runtime.run(np.array([[-1.0, 0.0, 2.0]], np.float32)).tolist() == [[0.0, 0.0, 2.0]]

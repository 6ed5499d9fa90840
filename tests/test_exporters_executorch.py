import json

import pytest
import torch

from detector import YOLO


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This API is experimental")  # ExecuTorch at its import
def test_the_file_runs_with_executorch_alone(trained, exported):
    from executorch.runtime import Runtime

    path = exported(format="executorch")
    program = Runtime.get().load_program(path)
    assert program.method_names == {"forward", "detector"}
    (text,) = program.load_method("detector").execute(())
    assert json.loads(text) == dict(YOLO(path).exported.metadata)
    images = torch.rand(1, 3, 96, 96)
    network = trained.model.fuse()
    with torch.inference_mode():
        expected = network.decode(network(images)["one2many"])
    (found,) = program.load_method("forward").execute((images,))
    assert torch.allclose(found, expected, atol=1e-2)

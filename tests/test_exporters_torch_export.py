import json

import torch

from detector import YOLO


def test_the_file_runs_with_torch_alone(trained, exported):
    path = exported(format="pt2")
    extra = {"detector": ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["detector"]) == dict(YOLO(path).exported.metadata)
    images = torch.rand(1, 3, 96, 96)
    network = trained.model.fuse()
    with torch.inference_mode():
        expected = network.decode(network(images)["one2many"])
        assert torch.allclose(program(images), expected, atol=1e-2)

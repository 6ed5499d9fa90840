import json

import pytest
import torch

from detector import YOLO
from detector.exporters.job import suppress_in_torch


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


@pytest.mark.filterwarnings("ignore")
def test_a_program_with_suppression_takes_images_with_nothing_or_one_thing_on_them():
    class Suppress(torch.nn.Module):
        def forward(self, boxes, scores):
            return suppress_in_torch(boxes, scores, 0.25, 0.7)

    boxes, scores = torch.arange(40.0).view(2, 5, 4) * torch.tensor([1.0, 1, 2, 2]), torch.zeros(2, 3, 5)
    program = torch.export.export(Suppress(), (boxes, scores)).module()
    for found in range(4):
        scores[0, 1, :found] = 0.5
        expected = torch.zeros(2, 5)
        expected[0, :found] = 1
        assert torch.equal(program(boxes, scores), expected)

import json

import numpy as np
import pytest
import torch

from detector import YOLO


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_file_runs_with_torch_alone(trained, exported):
    path = exported(format="torchscript")
    extra = {"detector": ""}
    program = torch.jit.load(path, _extra_files=extra)
    assert json.loads(extra["detector"]) == dict(YOLO(path).exported.metadata)
    images = torch.rand(1, 3, 96, 96)
    network = trained.model.fuse()
    with torch.inference_mode():
        expected = network.decode(network(images)["one2many"])
        assert torch.allclose(program(images), expected, atol=1e-2)


def test_rows_are_padded_where_there_are_fewer_anchors(dual):
    path = dual.export(format="torchscript", nms=False, max_det=300, imgsz=64, verbose=False)
    (rows,) = YOLO(path).exported.runtime(None).run(np.zeros((1, 3, 64, 64), np.float32))
    assert rows.shape == (300, 6) and (rows[84:] == 0).all() and (rows[:84, 4] > 0).all()

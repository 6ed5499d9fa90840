from __future__ import annotations

import numpy as np
import torch

from detector.data.batch import Sample, Target, assemble, collate


def target(count: int, index: int = 0) -> Target:
    boxes = np.arange(count * 4, dtype=np.float32).reshape(count, 4)
    return Target(boxes, np.arange(count), f"{index}.jpg", index, (0.5, 0.25), (3.0, 4.0), (480, 640))


def test_boxes_are_padded_to_the_largest_count():
    batch = assemble(torch.zeros((3, 3, 32, 32), dtype=torch.uint8), [target(2), target(0), target(1)])

    assert batch.boxes.shape == (3, 2, 4)
    assert batch.labels.tolist() == [[0, 1], [-1, -1], [0, -1]]
    assert batch.boxes[0, 1].tolist() == [4, 5, 6, 7]
    assert not batch.boxes[1].any() and not batch.boxes[2, 1].any()


def test_a_batch_without_boxes_has_one_padding_row():
    batch = assemble(torch.zeros((2, 3, 32, 32), dtype=torch.uint8), [target(0), target(0)])

    assert batch.boxes.shape == (2, 1, 4)
    assert batch.labels.tolist() == [[-1], [-1]]


def test_collate_keeps_what_is_needed_to_map_boxes_back():
    image = torch.full((3, 32, 64), 7, dtype=torch.uint8)

    batch = collate([Sample(image, target(1, 5)), Sample(image + 1, target(1, 6))])

    assert len(batch) == 2
    assert batch.images.shape == (2, 3, 32, 64) and batch.images[1, 0, 0, 0] == 8
    assert batch.indices == [5, 6] and batch.paths == ["5.jpg", "6.jpg"]
    assert batch.ratios.tolist() == [[0.5, 0.25]] * 2
    assert batch.pads.tolist() == [[3, 4]] * 2
    assert batch.sizes.tolist() == [[480, 640]] * 2


def test_to_moves_every_tensor():
    batch = collate([Sample(torch.zeros((3, 32, 32), dtype=torch.uint8), target(1))]).to("meta")

    tensors = [batch.images, batch.boxes, batch.labels, batch.ratios, batch.pads, batch.sizes]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.paths == ["0.jpg"]

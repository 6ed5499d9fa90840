import torch

from detector.callbacks.builtin.batch_images import file_names, found_boxes, true_boxes
from detector.data.batch import Batch


def make_batch():
    return Batch(
        images=torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        boxes=torch.tensor([[[1.0, 2, 3, 4], [5, 6, 7, 8]], [[9, 9, 10, 10], [0, 0, 0, 0]]]),
        labels=torch.tensor([[0, 2], [1, -1]]),
        paths=["folder/a.jpg", "folder/b.jpg"],
        indices=[0, 1],
        ratios=torch.tensor([[0.5, 0.5], [1.0, 2.0]]),
        pads=torch.tensor([[0.0, 4.0], [1.0, 0.0]]),
        sizes=torch.tensor([[48, 64], [16, 30]]),
    )


def test_padding_is_left_out_of_the_truth():
    boxes, labels = true_boxes(make_batch())
    assert [rows.tolist() for rows in boxes] == [[[1, 2, 3, 4], [5, 6, 7, 8]], [[9, 9, 10, 10]]]
    assert [rows.tolist() for rows in labels] == [[0, 2], [1]]


def test_detections_are_brought_into_the_input():
    preds = [
        torch.tensor([[10.0, 20, 30, 40, 0.75, 2], [0, 0, 1, 1, 0.1, 0]]),
        torch.tensor([[1.0, 2, 3, 4, 0.5, 1]]),
    ]
    boxes, labels, scores = found_boxes(make_batch(), preds, conf=0.25)
    assert [rows.tolist() for rows in boxes] == [[[5, 14, 15, 24]], [[2, 4, 4, 8]]]
    assert [rows.tolist() for rows in labels] == [[2], [1]]
    assert [rows.tolist() for rows in scores] == [[0.75], [0.5]]


def test_names_are_without_folder():
    assert file_names(make_batch()) == ["a.jpg", "b.jpg"]

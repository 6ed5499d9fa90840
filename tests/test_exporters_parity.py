from pathlib import Path

import torch

from detector.exporters.parity import compare, match
from detector.runtimes.contract import contract_of


def test_detections_are_paired_by_class_and_overlap():
    a = torch.tensor([[0, 0, 10, 10, 0.9, 1], [20, 20, 30, 30, 0.8, 0.0]])
    b = torch.tensor([[20, 20, 30, 30, 0.8, 1], [0, 0, 10, 10.2, 0.9, 1.0]])
    left, right = match(a, b)
    assert left.tolist() == a[:1].tolist() and right.tolist() == b[1:].tolist()


def test_a_file_that_is_not_a_number_is_beyond_every_tolerance(trained):
    trained.export(format="torchscript", imgsz=96, verbose=False)
    contract = contract_of(trained.exporter.metadata, Path("x"))
    preds = torch.rand(1, 10, 50)
    assert compare(preds, preds * float("nan"), contract)["box"] == float("inf")

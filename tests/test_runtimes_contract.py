from pathlib import Path

import pytest

from detector.errors import ExportError
from detector.runtimes import TensorSpec
from detector.runtimes.contract import contract_from, contract_of


def test_a_file_that_is_not_a_detector(tmp_path):
    with pytest.raises(ExportError, match=r"gives \(1, 1000\) float32; expected"):
        contract_from(
            TensorSpec((1, 3, 64, 64), "float32"),
            TensorSpec((1, 1000), "float32"),
            {0: "cat"},
            (64, 64),
            Path("a"),
        )
    with pytest.raises(ExportError, match=r"takes \(1, 10\) int64; expected images"):
        contract_from(TensorSpec((1, 10), "int64"), TensorSpec(), {0: "cat"}, (64, 64), Path("a"))


@pytest.mark.parametrize("damage", [{"schema": 9}, {"names": {"0": "a", "2": "b"}}, {"imgsz": [7, 7]}, {"stride": "x"},
                                    {"output": {"kind": "detections"}}, {"batch": 0}])  # fmt: skip
def test_damaged_metadata_is_refused(damage):
    good = {
        "schema": 1, "names": {"0": "a"}, "stride": 32, "imgsz": [64, 64], "batch": 1, "dynamic": False,
        "head": "one2many", "preprocess": False, "output": {"kind": "raw"}, "suppression": None, "precision": "fp32",
    }  # fmt: skip
    assert contract_of(good, Path("a")).input_hw == (64, 64)
    with pytest.raises(ExportError, match="export the model again"):
        contract_of(good | damage, Path("a"))

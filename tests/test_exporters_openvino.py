import json

import pytest

from detector import YOLO
from detector.errors import DataError


def test_the_network_carries_its_metadata(exported):
    import openvino

    path = exported(format="openvino")
    network = openvino.Core().read_model(path / "model.xml")
    metadata = json.loads(network.get_rt_info("detector").value)
    assert metadata == dict(YOLO(path).exported.metadata)
    assert metadata["input"]["shape"] == [1, 3, 96, 96]


@pytest.mark.slow
def test_int8_is_calibrated_on_the_training_images(trained, drawn_dataset, sample_image, caplog, any_int8):
    with caplog.at_level("INFO", "detector"):
        path = trained.export(format="openvino", int8=True, data=drawn_dataset, imgsz=96)
    assert "calibrating on 8 training images" in caplog.text
    assert trained.exporter.parity["of"] == "validation"
    assert len(YOLO(path).predict(sample_image, verbose=False, conf=0.1)[0].boxes) > 0


def test_int8_needs_images(trained):
    with pytest.raises(
        DataError, match="int8=true: data= is missing: name the data set whose training images"
    ):
        trained.export(format="openvino", int8=True, imgsz=96, verbose=False)

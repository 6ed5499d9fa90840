"""A network that is built, trained and validated right learns a few images by heart, in every family."""

import pytest

from detector import YOLO
from detector.data.drawn import FORMS, make_drawn_dataset

STEPS = 300
NO_AUGMENTATION = dict.fromkeys(("mosaic", "translate", "scale", "fliplr", "hsv_h", "hsv_s", "hsv_v"), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["yolov8n", "yolo11n", "yolo26n"])
def test_eight_images_are_learned_by_heart(family, tmp_path):
    names = list(FORMS[:6])
    make_drawn_dataset(tmp_path / "data", {"train": 8, "val": 1}, names, seed=0, size=96)
    data = tmp_path / "eight.yaml"
    data.write_text(f"path: data\ntrain: images/train\nval: images/train\nnames: {names}\n")
    settings = {"data": data, "imgsz": 160, "project": tmp_path, "plots": False, "verbose": False}
    model = YOLO(f"{family}.yaml")
    given = settings | NO_AUGMENTATION
    model.train(epochs=STEPS, batch=8, loggers="none", val=False, seed=0, pretrained=False, **given)
    assert model.trainer.global_step == STEPS
    assert model.val(rect=False, **settings).box.map >= 0.95

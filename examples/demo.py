"""Train on synthetic images until the detector finds things, then find things in images it never saw.

Run it with `make demo`. No network, no weights: the data set is drawn on first use.
"""

from __future__ import annotations

import time

from detector import YOLO
from detector.data.config import load_data_config

GOAL = 0.7  # mAP50-95 on the validation images; a run ends some 0.05 above it
IMAGES = 12

started = time.perf_counter()
reached = []  # the epoch at which the goal is reached
model = YOLO("yolo11n.yaml")


def time_taken():
    """Return the time since the start, in words."""
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    return f"{minutes} min {seconds} s"


@model.add_callback("on_fit_epoch_end")
def celebrate(trainer):
    """Callbacks are functions of one argument, the engine."""
    if trainer.metrics["metrics/mAP50-95"] >= GOAL and not reached:
        reached.append(trainer.epoch + 1)
        print(f"  epoch {reached[0]}: the goal, an mAP50-95 of {GOAL}, is reached after {time_taken()}")


# small, simple images: a smaller input, and a milder augmentation than the defaults; and from random weights
settings = {"imgsz": 192, "mosaic": 0.5, "close_mosaic": 6, "scale": 0.3, "pretrained": False}
model.train(data="shapes.yaml", epochs=16, name="demo", **settings)

unseen = load_data_config("shapes.yaml").split_images("test")[:IMAGES]
model.predict(unseen, save=True, name="demo-predict", verbose=False)

found = model.metrics.box.map
print(f"\nmAP50-95 {found:.3f} on the validation images (goal {GOAL}), in {time_taken()}")
print(f"curves              {model.trainer.save_dir / 'results.png'}")
print(f"annotated images    {model.predictor.save_dir}")
print(f"weights             {model.trainer.best}")
if found < GOAL:
    raise SystemExit(f"the goal of {GOAL} was not reached")

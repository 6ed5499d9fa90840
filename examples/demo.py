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
model = YOLO("yolo11n.yaml")


@model.add_callback("on_fit_epoch_end")
def celebrate(trainer):
    """Callbacks are functions of one argument, the engine."""
    if trainer.metrics["metrics/mAP50-95"] >= GOAL and trainer.fitness == trainer.best_fitness:
        print(f"  epoch {trainer.epoch + 1}: mAP50-95 {trainer.fitness:.3f}, the goal of {GOAL} is reached")


# small, simple images: a smaller input, and a milder augmentation than the defaults; and from random weights
settings = {"imgsz": 192, "mosaic": 0.5, "close_mosaic": 6, "scale": 0.3, "pretrained": False}
model.train(data="shapes.yaml", epochs=16, name="demo", **settings)

unseen = load_data_config("shapes.yaml").split_images("test")[:IMAGES]
model.predict(unseen, save=True, name="demo-predict", verbose=False)

reached = model.metrics.box.map
minutes, seconds = divmod(round(time.perf_counter() - started), 60)
print(f"\nmAP50-95 {reached:.3f} on the validation images (goal {GOAL}), in {minutes} min {seconds} s")
print(f"curves              {model.trainer.save_dir / 'results.png'}")
print(f"annotated images    {model.predictor.save_dir}")
print(f"weights             {model.trainer.best}")
if reached < GOAL:
    raise SystemExit(f"the goal of {GOAL} was not reached")

"""Train on drawn scenes until the detector finds things, then find things in scenes it never saw.

Run it with `make demo`. No network, no weights: the data set is drawn on first use.
"""

from __future__ import annotations

import time

from detector import YOLO
from detector.data.config import load_data_config

GOAL = 0.75  # mAP50-95 on the validation scenes
EPOCHS = 30

started = time.perf_counter()
model = YOLO("yolo11n.yaml")

model.train(data="shapes.yaml", epochs=EPOCHS, imgsz=192, batch=16, name="demo")

test_scenes = load_data_config("shapes.yaml").split_images("test")[:12]
model.predict(test_scenes, save=True, name="demo-predict", verbose=False)

reached = model.metrics.box.map
minutes, seconds = divmod(round(time.perf_counter() - started), 60)
print(f"\nmAP50-95 {reached:.3f} on the validation scenes (goal {GOAL}), after {minutes} min {seconds} s")
print(f"curves:              {model.trainer.save_dir / 'results.png'}")
print(f"annotated pictures:  {model.predictor.save_dir}")
print(f"weights:             {model.trainer.best}")
if reached < GOAL:
    raise SystemExit(f"the goal of {GOAL} was not reached")

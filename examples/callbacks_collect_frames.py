"""Get predictions together with the frames they were made on.

    python examples/callbacks_collect_frames.py
    python examples/callbacks_collect_frames.py path/to/best.pt path/to/images

What a callback leaves in `predictor.results` at `on_predict_batch_end` is what `predict` returns: here pairs
of a result and its frame. Without weights, a model is trained for some seconds first; it is not good yet, so only
its three most confident detections are asked for.
"""

import sys

from detector import YOLO
from detector.data.config import load_data_config

SMALL = {
    "data": "shapes.yaml", "epochs": 4, "imgsz": 96, "batch": 8, "fraction": 0.25, "max_det": 30,
    "verbose": False, "plots": False,
}  # fmt: skip


def pair_with_frames(predictor):
    """Replace every result by (result, frame); a frame is an (H, W, 3) uint8 array, BGR."""
    frames = [item.image for item in predictor.batch]
    predictor.results = list(zip(predictor.results, frames, strict=True))


def main(model="yolo11n.yaml", source=None, conf=0.02, **settings):
    settings = SMALL | settings
    yolo = YOLO(model)
    if source is None:
        yolo.train(**settings)
        source = load_data_config(settings["data"]).split_images("val")[:6]
    yolo.add_callback("on_predict_batch_end", pair_with_frames)
    # stream=True yields the pairs one by one, so that a long source does not fill the memory
    for result, frame in yolo.predict(source, stream=True, conf=conf, max_det=3, batch=2, verbose=False):
        height, width = frame.shape[:2]
        print(f"{result.path}: {len(result.boxes)} objects on a frame of {width} x {height} px")
        for box in result.boxes[:1]:
            x1, y1, x2, y2 = (round(value) for value in box.xyxy[0].tolist())
            colour = frame[y1:y2, x1:x2].reshape(-1, 3).mean(0).round().astype(int).tolist()
            print(f"  most confident: {result.names[int(box.cls)]}, mean colour (BGR) {colour}")


if __name__ == "__main__":
    main(*sys.argv[1:3])

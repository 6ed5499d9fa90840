"""Find objects with an exported .pt2 file: numpy, OpenCV and torch.

To run it:
    detector export model=best.pt format=pt2
    python examples/deploy/run_pt2.py best.pt2 street.jpg
"""

import json
import sys

import cv2
import numpy as np
import torch
import torchvision  # noqa: F401  a file with nms=true calls its suppression


def main(file, image_file, conf=0.25, iou=0.7):
    extra = {"detector": ""}
    program = torch.export.load(file, extra_files=extra).module()
    about = json.loads(extra["detector"])
    image = cv2.imread(image_file)

    # fit the image into the input: keep its aspect ratio, centre it, pad with grey
    (height, width), (high, wide) = about["imgsz"], image.shape[:2]
    scale = min(height / high, width / wide)
    new_w, new_h = round(wide * scale), round(high * scale)
    left, top = (width - new_w) // 2, (height - new_h) // 2
    pixels = np.full((height, width, 3), 114, np.uint8)
    pixels[top : top + new_h, left : left + new_w] = cv2.resize(image, (new_w, new_h))
    images = pixels[None]  # (1, H, W, 3) uint8 BGR
    if not about["preprocess"]:
        images = images[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255  # (1, 3, H, W) RGB
    images = np.repeat(images, about["batch"] or 1, 0)

    with torch.inference_mode():
        preds = program(torch.from_numpy(images))[0].numpy()
    if about["output"]["kind"] == "raw":  # (4 + C, A): centre, size, probabilities; suppress here
        scores, labels = preds[4:].max(0), preds[4:].argmax(0)
        corner, size = preds[:2].T - preds[2:4].T / 2, preds[2:4].T
        boxes = np.concatenate([corner, size], 1)
        kept = np.array(cv2.dnn.NMSBoxesBatched(boxes, scores, labels, conf, iou), int)
        rows = np.column_stack([corner[kept], corner[kept] + size[kept], scores[kept], labels[kept]])
    else:  # (max_det, 6): corners, score, class
        rows = preds[preds[:, 4] > conf]

    for x1, y1, x2, y2, score, label in rows.tolist():
        box = [(x1 - left) / scale, (y1 - top) / scale, (x2 - left) / scale, (y2 - top) / scale]
        print(about["names"][str(int(label))], f"{score:.3f}", *(f"{side:.1f}" for side in box))


if __name__ == "__main__":
    main(*sys.argv[1:3])

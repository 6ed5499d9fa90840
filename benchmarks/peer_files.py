"""Checkpoints of a peer, made and run by the peer itself, give the same outputs and boxes here.

    python -m benchmarks.peer_files --peer path/to/venv --data coco8.yaml --images folder/of/images

The peer, an ultralytics in a separate virtual environment, makes checkpoints of yolov8n, yolo11n and yolo26n:
untrained, in the middle of a training and finished. Both sides then compute in float32 what each network gives for
every image. The table shows the largest difference of the network's raw and decoded outputs, as a fraction of the
largest output; and after NMS (yolo26n: of the head that needs none) the number of boxes and the largest distance
between matched ones. After such a short training all scores are low, so the confidence threshold is put into the
widest gap between scores. If even that gap is below rounding, as in an untrained yolo26n, chance decides which boxes
are the best: then the boxes' column says "ties", and only the outputs are compared.

Only the peer's public interface is used; it writes to a temporary folder, which is removed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peer import Peer

MODELS = ("yolov8n", "yolo11n", "yolo26n")
TOLERANCE = 1e-4
MAX_DET = 300  # boxes per image
ROUNDING = 1e-5  # of a score, relative
MIN_PASSING = 30  # predictions that pass the confidence threshold, all images together
SUFFIXES = (".jpg", ".jpeg", ".png")


# ---- the peer's side ----------------------------------------------------------------------------------


def measure(YOLO: Any, step: str, **options: Any) -> dict[str, Any]:  # noqa: N803
    return make(YOLO, **options) if step == "make" else compute(YOLO, **options)


def make(YOLO: Any, model: str, data: str, folder: str, epochs: int, imgsz: int) -> dict[str, Any]:  # noqa: N803
    """Save the network untrained, train it, and say where its checkpoints are."""
    yolo = YOLO(f"{model}.yaml")
    Path(folder).mkdir(exist_ok=True)
    untrained = Path(folder, f"{model}-untrained.pt")
    yolo.save(untrained)
    yolo.train(
        data=data, epochs=epochs, imgsz=imgsz, batch=4, workers=0, plots=False, device="cpu", save_period=1,
        project=folder, name=model, exist_ok=True, verbose=False,
    )  # fmt: skip
    weights = Path(folder, model, "weights")
    made = {"untrained": untrained, "mid-run": weights / "epoch1.pt", "finished": weights / "last.pt"}
    return {"files": {kind: str(path) for kind, path in made.items()}}


def compute(
    YOLO: Any,  # noqa: N803
    file: str,
    inputs: str,
    outputs: str,
    images: list[str],
    conf: float,
    **predict: Any,
) -> Any:
    """Compute raw outputs for prepared inputs, and boxes for images; write them to a file of arrays."""
    network = YOLO(file).model.float().eval()
    found = {}
    with torch.no_grad():
        for name, pixels in np.load(inputs).items():
            for key, value in flatten(network(torch.from_numpy(pixels))):
                found[f"{name}{key}"] = value.numpy()
    yolo = YOLO(file)
    for image in images:
        boxes = yolo.predict(image, conf=conf, device="cpu", half=False, verbose=False, **predict)[0].boxes
        found[f"boxes {image}"] = boxes.data.numpy()
    np.savez(outputs, **found)
    return {}


def flatten(value: Any, key: str = "") -> list[tuple[str, torch.Tensor]]:
    """List every tensor within tuples and dicts, with its path."""
    if torch.is_tensor(value):
        return [(key, value)]
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, (list, tuple))
        else ()
    )
    return [pair for name, part in items for pair in flatten(part, f"{key}/{name}")]


# ---- our side -----------------------------------------------------------------------------------------


def our_outputs(network: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return every head's raw boxes and scores, and what they are decoded to."""
    found = {}
    with torch.no_grad():
        for head in network.head.heads:
            network.head.selected = head
            preds = network(images)[head]
            found |= {f"{head}/boxes": preds.boxes, f"{head}/scores": preds.scores}
            found[f"{head}/decoded"] = network.decode(preds)
    return found


def threshold(scores: torch.Tensor, max_passing: int) -> tuple[float, bool]:
    """Return a confidence that some but not too many predictions pass, and whether the gap there is real.

    The scores of an untrained network are nearly equal; rounding must not decide which of them pass.
    """
    near = scores.sort(descending=True).values[MIN_PASSING:max_passing].log()
    gap = int((near[:-1] - near[1:]).argmax())
    return float(((near[gap] + near[gap + 1]) / 2).exp()), float(near[gap] - near[gap + 1]) > ROUNDING


def match(ours: np.ndarray, theirs: np.ndarray) -> tuple[int, float]:
    """Match boxes (N, 6: xyxy, score, class) one to one; return how many are unmatched, and the largest distance."""
    left, farthest = list(range(len(theirs))), 0.0
    missing = 0
    for box in ours:
        same = [i for i in left if theirs[i, 5] == box[5]]
        if not same:
            missing += 1
            continue
        apart = [float(np.abs(theirs[i, :5] - box[:5]).max()) for i in same]
        nearest = int(np.argmin(apart))
        if apart[nearest] > 1:  # px: another box
            missing += 1
            continue
        left.remove(same[nearest])
        farthest = max(farthest, apart[nearest])
    return missing + len(left), farthest


def compare(peer: Peer, file: str, images: list[Path], imgsz: int, folder: Path) -> list[str]:
    """Return the cells of a checkpoint's row; the last says whether all agrees."""
    import cv2

    from detector import YOLO
    from detector.data.letterbox import input_hw, letterbox_batch

    yolo = YOLO(file)
    network = yolo.model.float().eval()
    inputs, ours, scores = {}, {}, []
    end_to_end = "one2one" in network.head.heads
    for number, image in enumerate(images):
        pixels, _ = letterbox_batch([cv2.imread(str(image))], input_hw(imgsz), min_rect=True)
        tensor = pixels.contiguous().float() / 255
        inputs[str(number)] = tensor.numpy()
        found = our_outputs(network, tensor)
        ours[str(number)] = found
        # the NMS-free head keeps every class of an anchor point, the other one its best class only
        if end_to_end:
            scores.append(found["one2one/scores"].sigmoid().flatten())
        else:
            scores.append(found["one2many/scores"].sigmoid().amax(1).flatten())
    conf, distinct = threshold(torch.cat(scores), MAX_DET if end_to_end else 20 * MAX_DET)
    np.savez(folder / "inputs.npz", **inputs)
    answer = peer.run(
        "peer_files", step="compute", file=file, inputs=str(folder / "inputs.npz"), conf=conf, imgsz=imgsz,
        outputs=str(folder / "outputs.npz"), images=[str(image) for image in images], iou=0.7, max_det=MAX_DET,
        **({"nms": False} if end_to_end else {}),
    )  # fmt: skip
    if answer is None:
        return ["-", "-", "-", "-", "-", "the peer failed"]
    theirs = dict(np.load(folder / "outputs.npz"))
    worst, compared = 0.0, 0
    for number, found in ours.items():
        for name, value in found.items():
            head = name.split("/")[0]
            alike = [
                other for key, other in theirs.items()
                if key.startswith(f"{number}/") and other.shape == tuple(value.shape)
                and (head in key or not end_to_end)
            ]  # fmt: skip
            if alike:
                smallest = min(float(np.abs(other - value.numpy()).max()) for other in alike)
                worst, compared = max(worst, smallest / max(1.0, float(value.abs().max()))), compared + 1
    fresh = YOLO(file)
    odd, farthest, boxes = 0, 0.0, 0
    for image in images:
        found = fresh.predict(
            image, conf=conf, imgsz=imgsz, iou=0.7, max_det=MAX_DET, amp=False, device="cpu", verbose=False, save=False,
            nms=False if end_to_end else None,
        )[0].boxes  # fmt: skip
        left, apart = match(found.data.numpy(), theirs[f"boxes {image}"])
        odd, farthest, boxes = odd + left, max(farthest, apart), boxes + len(found)
    good = compared > 0 and worst <= TOLERANCE and (not distinct or (odd == 0 and boxes > 0))
    found_boxes = [f"{boxes}", f"{odd}", f"{farthest:.1e}"] if distinct else ["ties", "-", "-"]
    return [f"{compared}", f"{worst:.1e}", *found_boxes, "yes" if good else "NO"]


def main() -> int:
    from detector.tables import align

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--peer", type=Path, required=True, help="virtual environment that holds it")
    parser.add_argument("--images", type=Path, required=True, help="a folder of images, searched in depth")
    parser.add_argument(
        "--data", required=True, help="a data YAML that both sides understand, for the trainings"
    )
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    images = sorted(path.absolute() for path in options.images.rglob("*") if path.suffix.lower() in SUFFIXES)[
        :16
    ]
    rows = [
        [
            "checkpoint",
            "outputs compared",
            "largest difference",
            "boxes",
            "unmatched",
            "px or score apart",
            "same",
        ]
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        peer = Peer(options.peer.absolute(), folder / "peer")
        for model in options.models:
            made = peer.run(
                "peer_files", step="make", model=model, data=str(Path(options.data).absolute()),
                folder=str(folder / "made"), epochs=options.epochs, imgsz=min(options.imgsz, 320),
            )  # fmt: skip
            for kind, file in (made or {"files": {}})["files"].items():
                rows.append([f"{model} {kind}", *compare(peer, file, images, options.imgsz, folder)])
                print(*rows[-1], file=sys.stderr, flush=True)
    print(f"{len(images)} images at {options.imgsz} px, float32")
    print(align(rows))
    return 0 if len(rows) == 1 + 3 * len(options.models) and all(row[-1] == "yes" for row in rows[1:]) else 1


if __name__ == "__main__":
    sys.exit(main())

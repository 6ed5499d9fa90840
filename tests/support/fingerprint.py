"""What a tiny training of each family ends with, as SHA-256: equal before and after a refactoring.

``make fingerprint`` prints one line per result. The hashes depend on the processor, on torch and on the number of
threads (one here), so compare those of two commits on one machine, never those of two machines.
"""

from __future__ import annotations

import csv
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

FAMILIES = ("yolov8n", "yolo11n", "yolo26n")
TIMES = ("time", "speed/")  # columns of results.csv that differ from run to run


def digest(parts: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def of_weights(path: Path) -> str:
    import torch

    weights = torch.load(path, map_location="cpu", weights_only=True)["weights"]
    return digest(
        piece
        for name in sorted(weights)
        for piece in (name.encode(), weights[name].contiguous().numpy().tobytes())
    )


def of_csv(path: Path) -> str:
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            {k: v for k, v in row.items() if not k.strip().startswith(TIMES)} for row in csv.DictReader(file)
        ]
    return digest(repr(row).encode() for row in rows)


def fingerprint(family: str, data: Path, images: Path, project: Path) -> dict[str, str]:
    """Train a family for two epochs and return the name and hash of everything it ends with."""
    from detector import YOLO

    model = YOLO(f"{family}.yaml")
    metrics = model.train(
        data=str(data), epochs=2, imgsz=160, batch=4, workers=0, seed=0, device="cpu", close_mosaic=1,
        project=str(project), name=family, plots=False, verbose=False, loggers="none", pretrained=False,
    )  # fmt: skip
    run = model.trainer.save_dir
    paths = sorted(str(path) for path in images.iterdir())
    found = model.predict(paths, conf=0.001, imgsz=160, verbose=False)
    return {
        "best.pt": of_weights(run / "weights/best.pt"),
        "last.pt": of_weights(run / "weights/last.pt"),
        "results.csv": of_csv(run / "results.csv"),
        "metrics": digest(f"{name} {value!r}".encode() for name, value in metrics.results_dict.items()),
        "predictions": digest(result.boxes.data.numpy().tobytes() for result in found),
    }


def main() -> int:
    """Print the fingerprints of all families, or of those named."""
    import torch

    from detector.data.drawn import FORMS, make_drawn_dataset

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DETECTOR_CACHE"] = str(folder / "cache")
        names = list(FORMS[:6])
        make_drawn_dataset(folder / "data", {"train": 16, "val": 6}, names, seed=0, size=160)
        data = folder / "data.yaml"
        data.write_text(
            f"path: data\ntrain: images/train\nval: images/val\nnames: {names}\n", encoding="utf-8"
        )
        for family in sys.argv[1:] or FAMILIES:
            for what, value in fingerprint(family, data, folder / "data/images/val", folder / "runs").items():
                print(f"{family:8} {what:12} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the benchmarks share: the clock, the machine, the data both sides read, and the sizes of a run.

The peer's side imports this file too, in an environment without our dependencies: imports of ours are
inside the functions that need them.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

if TYPE_CHECKING:
    from benchmarks.peer import Peer
    from detector.data.config import DataConfig
    from detector.device import Precision


def now() -> float:
    """Return the time in seconds, after synchronising with the GPU if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def set_threads(yolo: Any, threads: int | None) -> None:
    """Set the number of threads of either side at the start of its work; None leaves its default."""
    for event in ("on_train_start", "on_val_start", "on_predict_start") if threads else ():
        yolo.add_callback(event, lambda _: torch.set_num_threads(threads))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Bench:
    """One run of the benchmarks.

    Attributes:
        folder: scratch folder.
        data: the data set.
        image: (H, W, 3) uint8 BGR, for prediction.
        device: to compute on.
        peer: the peer, or None.
        models: names such as yolo11n.
        epochs: of a training; the first one is a warm-up and not counted.
        steps: batches per epoch.
        batch: images per batch.
        imgsz: input px of training and validation.
        predict_imgsz: input px of prediction.
        loading_imgsz: input px of the input pipeline.
        loading_images: maximum number of images in it.
        scan_images: images whose labels are read.
        val_images: maximum number of images in a validation.
        repeats: predictions; the median counts.
    """

    folder: Path
    data: DataConfig
    image: NDArray[np.uint8]
    device: torch.device
    peer: Peer | None
    models: tuple[str, ...] = ("yolov8n", "yolo11n", "yolo26n")
    epochs: int = 3
    steps: int = 12
    batch: int = 16
    imgsz: int = 320
    predict_imgsz: int = 640
    loading_imgsz: tuple[int, ...] = (320, 640)
    loading_images: int = 512
    scan_images: int = 100_000
    val_images: int = 128
    repeats: int = 50

    @property
    def precisions(self) -> list[Precision]:
        """What `amp=auto` selects on this device, and float32 if that is another precision."""
        from detector.device import Precision, select_precision

        auto = select_precision("auto", self.device)
        return [auto] if auto.dtype is None else [auto, Precision(self.device.type, None)]

    def copy_data(self, train: int, val: int) -> Path:
        """Copy images and labels of the data set into the scratch folder, where either side may write.

        Args:
            train: training images; the data set's are repeated as needed.
            val: maximum number of validation images.

        Returns:
            The path of a data YAML.
        """
        folder = self.folder / f"data-{train}-{val}"
        if not folder.exists():
            found = self.data.split_images("train"), self.data.split_images("val")
            copy_split(folder, "train", [found[0][n % len(found[0])] for n in range(train)])
            copy_split(folder, "val", found[1][:val])
        content = {
            "path": str(folder),
            "train": "images/train",
            "val": "images/val",
            "names": self.data.names,
        }
        path = folder.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def training_settings(self, train: int, val: int, epochs: int) -> dict[str, object]:
        """Return settings of a short training that mean the same on both sides; the rest are defaults."""
        return {
            "data": str(self.copy_data(train, val)),
            "project": str(self.folder / "runs"),
            "device": str(self.device),
            "imgsz": self.imgsz,
            "batch": self.batch,
            "epochs": epochs,
            "save": False,
            "verbose": False,
        }


def copy_split(folder: Path, split: str, images: list[Path]) -> None:
    from detector.data.formats.yolo import label_path

    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True)
    for number, image in enumerate(images):
        copy = folder / "images" / split / f"{number:06d}{image.suffix}"
        shutil.copyfile(image, copy)
        if (label := Path(label_path(str(image)))).exists():
            shutil.copyfile(label, label_path(str(copy)))


def read_image(path: Path | None) -> NDArray[np.uint8]:
    """Return an image as a BGR array; without a path, a synthetic one 810 px wide and 1080 px high."""
    from detector.data.drawn import draw_scene
    from detector.errors import DataError

    if path is None:
        scenes = (draw_scene(seed=0, index=index, size=1080)[0] for index in count())
        return next(scene for scene in scenes if scene.shape[:2] == (1080, 810))
    image = cv2.imread(str(path))
    if image is None:
        raise DataError(f"{path}: not an image that OpenCV reads; give --image the path of a JPEG or PNG.")
    return np.asarray(image, np.uint8)


def describe_machine(bench: Bench) -> Iterator[str]:
    """Yield lines for people: device, threads, versions, precision, data."""
    device = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else cpu_name()
    yield f"device: {bench.device} ({device}); cores {os.cpu_count()}, torch threads {torch.get_num_threads()}"
    yield f"python {platform.python_version()}, torch {torch.__version__}; amp=auto is {bench.precisions[0].name}"
    height, width = bench.image.shape[:2]
    yield f"data: {bench.data.describe()}; image {width} x {height} px"
    yield "peer: none (--peer VENV compares with one)" if bench.peer is None else f"peer: {bench.peer.venv}"


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def times(first: float, second: float) -> str:
    """Return how many times the second the first is, for a table."""
    return f"{first / second:.2f}x"

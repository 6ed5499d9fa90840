"""Run the demo, and make the two images of README.md from what it leaves.

    python examples/readme_images.py       (or `make images`)

`docs/images/predictions.jpg` shows the first eight test images with the predicted boxes, none chosen by hand;
`docs/images/learning_curves.png` the losses and metrics of the demo's training.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from runpy import run_path

import cv2
import numpy as np

from detector.plots import plot_results

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "images"
ROWS, COLUMNS, GAP, WHITE = 2, 4, 8, 255  # of the grid; the gap in px
JPEG_QUALITY = 85  # keeps the file below 200 KB
CURVES = (
    "epoch", "train/box_loss", "val/box_loss", "train/cls_loss", "val/cls_loss",
    "metrics/precision", "metrics/recall", "metrics/mAP50", "metrics/mAP50-95",
)  # fmt: skip


def draw_grid(paths: list[Path], out: Path) -> None:
    """Put annotated images into a grid, each in the middle of its cell."""
    images = [cv2.imread(str(path)) for path in paths[: ROWS * COLUMNS]]
    side = max(max(image.shape[:2]) for image in images)
    step = side + GAP
    grid = np.full((ROWS * step - GAP, COLUMNS * step - GAP, 3), WHITE, np.uint8)
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        top = number // COLUMNS * step + (side - height) // 2
        left = number % COLUMNS * step + (side - width) // 2
        grid[top : top + height, left : left + width] = image
    cv2.imwrite(str(out), grid, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def draw_learning_curves(results: Path, out: Path) -> None:
    """Draw four of the panels of results.png from a results.csv."""
    with results.open(newline="", encoding="utf-8") as file:
        rows = [{name: row[name] for name in CURVES} for row in csv.DictReader(file)]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "results.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, CURVES)
            writer.writeheader()
            writer.writerows(rows)
        plot_results(table, out)


def main() -> None:
    """Train, predict and draw."""
    model = run_path(str(ROOT / "examples" / "demo.py"))["model"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    draw_grid(sorted(model.predictor.save_dir.glob("*.jpg")), FOLDER / "predictions.jpg")
    draw_learning_curves(model.trainer.csv, FOLDER / "learning_curves.png")
    print(f"images of README.md  {FOLDER}")


if __name__ == "__main__":
    main()

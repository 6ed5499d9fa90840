"""A rectangular input, imgsz=[height, width], from training to the exported file."""

import csv

import cv2
import numpy as np
import pytest
import torch
from support.models import assert_same_boxes

from detector import YOLO
from detector.callbacks.builtin.progress_bar import summary
from detector.checkpoints.checkpoint import load_checkpoint
from detector.cli import main
from detector.data.annotations import Annotations
from detector.data.augment import Augmentation
from detector.data.dataset import DetectionDataset, TrainKey
from detector.data.letterbox import fit_size, rect_shape
from detector.errors import SettingsError
from detector.settings import TrainSettings

HW = [64, 160]
SAME = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}  # colours


@pytest.fixture(scope="module")
def green(tmp_path_factory):
    """Six images of several shapes with a green rectangle each, and its box."""
    folder = tmp_path_factory.mktemp("green")
    paths, sizes, boxes = [], [(60, 200), (200, 60), (100, 100), (480, 640), (64, 160), (90, 120)], []
    for number, (height, width) in enumerate(sizes):
        image = np.full((height, width, 3), (90, 30, 60), np.uint8)
        x1, y1, x2, y2 = width // 5, height // 4, 4 * width // 5, 3 * height // 4
        image[y1:y2, x1:x2] = (0, 255, 0)
        paths.append(str(folder / f"{number}.png"))
        cv2.imwrite(paths[-1], image)
        boxes.append([(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height])
    count = len(sizes)
    return Annotations(
        paths, np.array(sizes), np.arange(count + 1), np.array(boxes, np.float32),
        np.zeros(count, np.int64), {0: "green"},
    )  # fmt: skip


def is_green(image):
    red, others = image[0].int() + image[2].int(), image[1].int()
    return others - red > 100


@pytest.mark.parametrize(
    ("augmentation", "rect"),
    [(Augmentation(**SAME), False), (Augmentation(mosaic=0, degrees=3, **SAME), False),
     (Augmentation(degrees=2, shear=1, **SAME), False), (Augmentation(**SAME), True), (None, False), (None, True),
     (Augmentation(copy_paste=1.0, cutmix=0.5, **SAME), False)],
)  # fmt: skip
def test_boxes_lie_where_the_pixels_are(green, augmentation, rect):
    dataset = DetectionDataset(green, HW, augmentation, rect=rect)
    upright = augmentation is None or not (augmentation.degrees or augmentation.copy_paste)
    seen = 0
    for number in range(len(green)):
        for epoch in range(4 if augmentation else 1):
            sample = dataset[TrainKey(epoch, number) if augmentation else number]
            height, width = sample.image.shape[1:]
            if not rect:
                assert (height, width) == (64, 160)
            else:
                assert height % 32 == width % 32 == 0
                assert augmentation is None or (height <= 64 and width <= 160)
            found = is_green(sample.image)
            left = found.clone()
            for x1, y1, x2, y2 in sample.target.boxes:
                assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
                inside = found[int(y1) + 2 : int(y2) - 1, int(x1) + 2 : int(x2) - 1]
                if inside.numel() > 30:
                    assert inside.float().mean() > (0.99 if upright else 0.5)
                    seen += 1
                left[max(int(y1) - 2, 0) : int(y2) + 3, max(int(x1) - 2, 0) : int(x2) + 3] = False
            if augmentation is None or rect:  # nothing is cut off that far that its box is left out
                assert left.sum() == 0
    assert seen >= 5


def test_a_mosaic_fills_the_whole_rectangle(green):
    dataset = DetectionDataset(green, HW, Augmentation(scale=0.0, translate=0.0))
    covered = torch.stack([(dataset[TrainKey(0, k)].image != 114).any(0) for k in range(6)]).float().mean(0)
    corners = covered[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (
        covered.mean() > 0.5 and corners.max() > 0 and covered[:, :40].mean() > 0.3 < covered[:, -40:].mean()
    )


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((60, 200), (48, 160)), ((480, 640), (64, 86)), ((64, 160), (64, 160)), ((200, 60), (64, 20))],
)
def test_an_image_is_scaled_to_fit_both_sides(shape, expected):
    assert fit_size(shape, HW) == expected


def test_minimal_padding_stays_within_the_sides():
    assert rect_shape(0.75, 0.75, [480, 640], margin=0) == (480, 640)
    assert rect_shape(0.5, 0.5, [480, 640], margin=0) == (320, 640)
    assert rect_shape(2.0, 2.0, [480, 640], margin=0) == (480, 256)
    assert rect_shape(0.5, 2.0, [480, 640], margin=0) == (480, 640)


@pytest.mark.parametrize(
    ("given", "kept"), [(96, 96), ([96, 96], 96), ([96], 96), ((64, 96), [64, 96]), ([64, 96], [64, 96])]
)
def test_a_square_is_kept_as_one_side(given, kept):
    assert TrainSettings.parse({"imgsz": given}).imgsz == kept


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([480, 650], r"imgsz=\[480,650\]: expected a multiple of 32; try imgsz=\[480,640\]"),
        ([480, 640, 3], r"imgsz=\[480,640,3\]: expected one side or \[height, width\]"),
        ([480, 0], r"imgsz=\[480,0\]: expected one side or \[height, width\]"),
        ([], r"imgsz=\[\]: expected one side or \[height, width\]"),
        (0, r"imgsz=0: expected one side or \[height, width\]"),
    ],
)  # fmt: skip
def test_sides_that_no_input_has_are_refused(given, message):
    with pytest.raises(SettingsError, match=message):
        TrainSettings.parse({"imgsz": given})


def test_training_prediction_validation_and_export_use_the_size(
    train_tiny, drawn_dataset, sample_image, tmp_path
):
    shapes = set()

    def note(trainer):
        shapes.add(tuple(trainer.batch.images.shape[1:]))

    yolo = train_tiny(("on_train_batch_end", note), imgsz=HW, epochs=1, plots=True)
    assert shapes == {(3, 64, 160)}
    assert "GFLOPs at 64 x 160 px" in summary(yolo.trainer)
    saved = load_checkpoint(yolo.source)["settings"]["imgsz"]
    assert saved == HW and type(saved) is list

    again = YOLO(yolo.source)
    again.predict(sample_image, verbose=False)
    assert again.predictor.input_hw == (64, 160)
    metrics = again.val(data=drawn_dataset, verbose=False, plots=False, project=tmp_path)
    assert again.validator.settings.imgsz == HW and metrics.num_images == 4
    opened = YOLO(again.export(format="torchscript", verbose=False))
    assert opened.exported.contract.imgsz == (64, 160)
    same = opened.val(data=drawn_dataset, verbose=False, plots=False, project=tmp_path)
    theirs = again.val(
        data=drawn_dataset, verbose=False, plots=False, rect=False, amp=False, project=tmp_path
    )
    assert same.results_dict == pytest.approx(theirs.results_dict, abs=1e-3)


def test_a_file_of_a_rectangle_finds_what_the_network_finds(trained, sample_image):
    opened = YOLO(trained.export(format="onnx", imgsz=[96, 160], dynamic=True, verbose=False))
    (mine,) = trained.predict(sample_image, imgsz=[96, 160], amp=False, verbose=False, conf=0.1)
    (theirs,) = opened.predict(sample_image, verbose=False, conf=0.1)
    assert opened.predictor.input_hw == (96, 160)
    assert_same_boxes(mine, theirs)


@pytest.mark.parametrize("settings", [{"multi_scale": 0.5}, {"rect": True}, {"workers": 2}])
def test_other_ways_to_train_take_a_rectangle(train_tiny, settings):
    shapes = set()
    train_tiny(
        ("on_train_batch_end", lambda trainer: shapes.add(tuple(trainer.batch.images.shape[2:]))),
        imgsz=[96, 64], epochs=1, **settings,
    )  # fmt: skip
    assert all(height <= 96 and width <= 64 for height, width in shapes)


def test_a_run_of_a_rectangle_is_resumed_as_it_was(train_tiny, tmp_path):
    train_tiny(imgsz=HW, project=tmp_path / "whole")

    def end(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tiny(("on_train_epoch_start", end), imgsz=HW, project=tmp_path / "part")
    YOLO("yolo11n.yaml").train(resume=tmp_path / "part/train", verbose=False)
    losses = []
    for name in ("whole", "part"):
        with (tmp_path / name / "train/results.csv").open() as file:
            losses.append([row["train/box_loss"] for row in csv.DictReader(file)])
    assert len(losses[0]) == 2 and losses[0] == losses[1]


@pytest.mark.parametrize("size", ["[64,96]", "64,96"])
def test_the_command_line_takes_two_sides(size, tiny_model, drawn_dataset, tmp_path):
    words = [
        f"model={tiny_model}",
        f"data={drawn_dataset}",
        f"imgsz={size}",
        "epochs=1",
        "batch=4",
        "workers=0",
    ]
    assert main(["train", *words, f"project={tmp_path}", "plots=false", "device=cpu", "loggers=none"]) == 0
    assert load_checkpoint(tmp_path / "train/weights/last.pt")["settings"]["imgsz"] == [64, 96]

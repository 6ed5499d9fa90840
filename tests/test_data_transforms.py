import hashlib
import random

import albumentations
import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from detector import YOLO
from detector.cli import main
from detector.data.transforms import Transforms
from detector.errors import DataError, SettingsError

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
BOXES = np.array([[5, 5, 20, 30], [30, 10, 55, 35]], np.float32)
LABELS = np.array([2, 0])


def run(transform, seed=(0, 0, 0)):
    return Transforms([transform])(IMAGE.copy(), BOXES.copy(), LABELS.copy(), seed)


def mirrored(boxes):
    return np.stack([60 - boxes[:, 2], boxes[:, 1], 60 - boxes[:, 0], boxes[:, 3]], 1)


def mirror(image, boxes, labels):
    return image[:, ::-1], mirrored(boxes), labels


def bbox_params(form, fields):
    return albumentations.BboxParams(form, label_fields=fields)


@pytest.mark.parametrize(
    "transform",
    [
        mirror,
        v2.RandomHorizontalFlip(1.0),
        v2.Compose([v2.RandomHorizontalFlip(1.0)]),
        albumentations.HorizontalFlip(p=1.0),
        albumentations.Compose([albumentations.HorizontalFlip(p=1.0)]),
        *(
            albumentations.Compose([albumentations.HorizontalFlip(p=1.0)], bbox_params=bbox_params(form, fields))
            for form in ("pascal_voc", "coco", "yolo", "albumentations")
            for fields in (["class_labels"], ["a", "b"], None)
        ),
    ],
)  # fmt: skip
def test_a_mirror_of_any_library_moves_image_and_boxes(transform):
    image, boxes, labels = run(transform)
    np.testing.assert_array_equal(image, IMAGE[:, ::-1])
    np.testing.assert_allclose(boxes, mirrored(BOXES), atol=1e-3)
    assert labels.tolist() == [2, 0]


def test_boxes_that_leave_the_image_are_left_out_with_their_labels():
    def shift(image, boxes, labels):
        return image, boxes + np.float32([40, 0, 40, 0]), labels

    _, boxes, labels = run(shift)
    assert (boxes.tolist(), labels.tolist()) == ([[45, 5, 60, 30]], [2])
    crop = albumentations.Compose([albumentations.Affine(translate_px={"x": 40, "y": 0}, p=1.0)])
    _, boxes, labels = run(crop)
    assert labels.tolist() == [2]
    assert len(boxes) == 1


def noise(image, boxes, labels):
    jitter = np.random.randint(0, 9) + random.randint(0, 9) + int(torch.randint(9, ()))
    return (image + np.uint8(jitter)).astype(np.uint8), boxes, labels


RANDOM = [
    noise,
    v2.ColorJitter(0.5, 0.5),
    albumentations.RandomBrightnessContrast(p=1.0),
    albumentations.Compose([albumentations.GaussNoise(p=0.5)]),
]


@pytest.mark.parametrize("transform", RANDOM)
def test_a_sample_depends_on_its_seed_alone(transform):
    first = run(transform, (0, 1, 2))[0]
    others = [run(transform, (0, 1, n))[0] for n in range(3, 9)]
    np.testing.assert_array_equal(run(transform, (0, 1, 2))[0], first)
    assert any((other != first).any() for other in others)


def test_the_random_states_of_the_process_are_put_back():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    run(noise)
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda image, boxes, labels: image, "expected (image, boxes, labels)"),
        (lambda image, boxes, labels: (image[:20], boxes, labels), "shape (20, 60, 3), uint8; expected (40, 60, 3)"),
        (lambda image, boxes, labels: (image / 255, boxes, labels), "(40, 60, 3), float64; expected (40, 60, 3)"),
        (lambda image, boxes, labels: (image, boxes[:1], labels), "returned 1 boxes and 2 labels; expected as many"),
        (lambda image, boxes, labels: (image, boxes * np.nan, labels), "expected as many, all finite"),
        (lambda image, boxes, labels: 1 / 0, "failed: ZeroDivisionError: division by zero"),
        (v2.ToDtype(torch.float32, scale=True), "it returns a torch.float32 image"),
    ],
)  # fmt: skip
def test_what_a_transform_must_not_do_is_one_sentence(transform, message):
    with pytest.raises(DataError) as caught:
        run(transform)
    assert str(caught.value).startswith("transforms: ")
    assert message in str(caught.value)


def test_what_is_no_transform_is_refused():
    from torchvision.transforms import RandomHorizontalFlip

    with pytest.raises(DataError, match="expected a callable"):
        Transforms([3])
    with pytest.raises(DataError, match=r"take that of torchvision\.transforms\.v2"):
        Transforms([RandomHorizontalFlip()])


def weights_of(run_folder):
    weights = torch.load(run_folder / "weights/last.pt", weights_only=True)["weights"]
    return hashlib.sha256(
        b"".join(weights[key].float().numpy().tobytes() for key in sorted(weights))
    ).hexdigest()


PIPELINES = [
    v2.Compose([v2.ColorJitter(0.4, 0.4), v2.RandomHorizontalFlip()]),
    albumentations.Compose([albumentations.RandomBrightnessContrast(p=0.8), albumentations.HorizontalFlip()]),
    noise,
]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_pipeline_trains_in_any_process_and_resumes_to_the_same_bits(pipeline, train_tiny, tmp_path):
    def end(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    train_tiny(transforms=pipeline, epochs=3, name="whole")
    train_tiny(transforms=pipeline, epochs=3, name="workers", workers=2)
    train_tiny(epochs=3, name="without")
    with pytest.raises(KeyboardInterrupt):
        train_tiny(transforms=pipeline, epochs=3, name="cut", callbacks=[("on_train_batch_end", end)])
    with pytest.raises(SettingsError, match=r"was trained with transforms=.*, which are code and not saved"):
        YOLO("yolo11n.yaml").train(resume=tmp_path / "cut")
    YOLO("yolo11n.yaml").train(resume=tmp_path / "cut", transforms=pipeline)
    found = [weights_of(tmp_path / name) for name in ("whole", "workers", "cut", "without")]
    assert found[0] == found[1] == found[2] != found[3]


def test_a_transform_is_named_on_the_command_line(tmp_path, tiny_model, drawn_dataset, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "seen = []\n\ndef paint(image, boxes, labels):\n    seen.append(image.shape)\n    return image, boxes, labels\n"
    )
    monkeypatch.chdir(tmp_path)
    words = [
        f"model={tiny_model}",
        f"data={drawn_dataset}",
        "epochs=1",
        "imgsz=32",
        "batch=4",
        "plots=false",
        "loggers=none",
    ]
    assert main(["train", *words, "transforms=mine.py:paint"]) == 0
    assert "transforms: mine.py:paint" in (tmp_path / "runs/train/args.yaml").read_text()
    assert main(["train", *words, "transforms=mine.py:pant"]) == 2
    assert "transforms=mine.py:pant: mine.py has no 'pant'; did you mean 'paint'?" in capsys.readouterr().err
    assert main(["train", *words, "transforms=mine"]) == 2
    assert "transforms=mine: expected file.py:name or package.module:name" in capsys.readouterr().err

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from detector.data.annotations import Annotations
from detector.data.augment import Augmentation
from detector.data.dataset import DetectionDataset, TrainKey
from detector.data.epochs import EpochOrder
from detector.errors import DataError

SIZES = [(48, 64), (64, 48), (96, 128), (200, 200), (30, 60), (640, 480)]


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = []
    for number, (height, width) in enumerate(SIZES):
        rough = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        path = folder / f"{number}.{'jpg' if number % 2 else 'png'}"
        cv2.imwrite(str(path), cv2.resize(rough, (width, height)))
        paths.append(str(path))
    count = len(SIZES)
    return Annotations(
        paths,
        np.array(SIZES),
        np.arange(count + 1),
        np.tile(np.array([0.5, 0.5, 0.5, 0.25], np.float32), (count, 1)),
        np.arange(count) % 3,
        {0: "a", 1: "b", 2: "c"},
    )


def without_labels(annotations):
    count = len(annotations)
    return Annotations(
        annotations.paths,
        annotations.sizes,
        np.zeros(count + 1, np.int64),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int64),
        annotations.names,
    )


def test_training_samples_follow_from_their_key_alone(annotations):
    first = DetectionDataset(annotations, 64, Augmentation(mixup=0.5, degrees=5))
    second = DetectionDataset(annotations, 64, Augmentation(mixup=0.5, degrees=5), cache=False)
    keys = [TrainKey(epoch, k) for epoch in range(2) for k in range(6)]

    forward = [first[key] for key in keys]
    backward = [second[key] for key in reversed(keys)][::-1]

    for a, b in zip(forward, backward, strict=True):
        assert a.image.shape == (3, 64, 64) and a.image.dtype == torch.uint8
        assert torch.equal(a.image, b.image)
        assert np.array_equal(a.target.boxes, b.target.boxes) and a.target.index == b.target.index
    assert not torch.equal(forward[0].image, forward[6].image)
    other = DetectionDataset(annotations, 64, Augmentation(mixup=0.5, degrees=5), seed=1)
    assert not torch.equal(forward[0].image, other[keys[0]].image)


def test_a_cache_too_small_for_the_set_changes_nothing(annotations):
    full = DetectionDataset(annotations, 64, Augmentation())
    small = DetectionDataset(annotations, 64, Augmentation(), memory_fraction=0)
    small.cache = type(small.cache)(small.loaded_hw, budget=2 * 64 * 64 * 3)
    assert full.cache.holds_all and small.cache.num_slots == 2

    for key in [TrainKey(epoch, k) for epoch in range(3) for k in range(6)]:
        assert torch.equal(full[key].image, small[key].image)


def test_a_batch_is_its_samples(annotations):
    dataset = DetectionDataset(annotations, 64, Augmentation())
    keys = [TrainKey(0, 4), TrainKey(0, 1)]

    batch = dataset.__getitems__(keys)

    for row, key in enumerate(keys):
        sample = dataset[key]
        assert torch.equal(batch.images[row], sample.image)
        assert batch.indices[row] == sample.target.index
        kept = batch.labels[row] >= 0
        assert np.array_equal(batch.boxes[row][kept], sample.target.boxes)


def test_boxes_stay_inside_and_are_large_enough(annotations):
    dataset = DetectionDataset(annotations, 64, Augmentation(degrees=10, mixup=0.5))
    boxes = np.concatenate([dataset[TrainKey(e, k)].target.boxes for e in range(5) for k in range(6)])

    assert len(boxes) > 30
    assert boxes.min() >= 0 and boxes.max() <= 64
    assert (boxes[:, 2:] - boxes[:, :2]).min() > 2


def test_boxes_stay_inside_with_copy_paste_and_cutmix(annotations):
    more = Augmentation(copy_paste=1, cutmix=1, mixup=0.5, degrees=10)
    dataset = DetectionDataset(annotations, 64, more)
    targets = [dataset[TrainKey(e, k)].target for e in range(10) for k in range(6)]
    boxes = np.concatenate([target.boxes for target in targets])

    assert len(boxes) > 100 and boxes.min() >= 0 and boxes.max() <= 64
    assert (boxes[:, 2:] - boxes[:, :2]).min() > 2
    assert all(len(target.boxes) == len(target.labels) for target in targets)


def test_mosaic_closes_by_key(annotations):
    dataset = DetectionDataset(annotations, 64, Augmentation())

    assert torch.equal(dataset[TrainKey(0, 0)].image, dataset[TrainKey(0, 0, mosaic=True)].image)
    assert not torch.equal(dataset[TrainKey(0, 0)].image, dataset[TrainKey(0, 0, mosaic=False)].image)


def test_validation_centres_the_image_and_reports_how(annotations):
    sample = DetectionDataset(annotations, 64)[2]  # 128 x 96 px, halved

    image = cv2.resize(cv2.imread(annotations.paths[2]), (64, 48))[..., ::-1].transpose(2, 0, 1)
    assert np.array_equal(sample.image[:, 8:56].numpy(), image)
    assert (sample.image[:, :8] == 114).all() and (sample.image[:, 56:] == 114).all()
    assert sample.target.ratio == (0.5, 0.5) and sample.target.pad == (0, 8)
    assert sample.target.size == (96, 128)
    assert sample.target.boxes.tolist() == [[16, 26, 48, 38]] and sample.target.labels.tolist() == [2]


def test_small_images_are_enlarged_to_the_long_side(annotations):
    target = DetectionDataset(annotations, 128)[0].target  # 64 x 48 px

    assert target.ratio == (2.0, 2.0) and target.pad == (0, 16)


def test_rectangular_validation_pads_by_the_image_alone(annotations):
    dataset = DetectionDataset(annotations, 128, rect=True)

    assert [dataset.shape_of(index) for index in range(6)] == [
        (128, 160),
        (160, 128),
        (128, 160),
        (160, 160),
        (96, 160),
        (160, 128),
    ]
    sample = dataset[4]
    assert sample.image.shape == (3, 96, 160) and sample.target.pad == (16, 16)


def test_rectangular_training_keeps_order_and_fits_batches(annotations):
    dataset = DetectionDataset(annotations, 128, Augmentation(), rect=True, rect_batch=2)

    assert dataset.order(0).tolist() == dataset.order(1).tolist() == [4, 0, 2, 3, 1, 5]
    assert [dataset.shape_of(TrainKey(0, k)) for k in (0, 2, 4)] == [(96, 128), (128, 128), (128, 96)]
    assert dataset.__getitems__([TrainKey(0, 4), TrainKey(0, 5)]).images.shape == (2, 3, 128, 96)


def test_rectangular_training_sorts_the_images_of_a_balanced_epoch(annotations):
    visits = EpochOrder(annotations)
    visits.factors = np.array([1.0, 1, 8, 1, 1, 1])
    dataset = DetectionDataset(annotations, 128, Augmentation(), rect=True, rect_batch=2, visits=visits)
    ratios = annotations.sizes[:, 0] / annotations.sizes[:, 1]

    for epoch in range(4):
        order = dataset.order(epoch)
        assert sorted(order) == sorted(visits.draw(0, epoch)) and (order == 2).sum() in (3, 4)
        assert (np.diff(ratios[order]) >= 0).all()
        for start in range(0, 6, 2):
            batch = dataset.__getitems__([TrainKey(epoch, start), TrainKey(epoch, start + 1)])
            assert batch.images.shape[2:] == dataset.shape_of(TrainKey(epoch, start))


def test_shrinking_in_the_jpeg_decoder_keeps_size_and_content(annotations):
    train = DetectionDataset(annotations, 128, Augmentation()).load(5)
    val = DetectionDataset(annotations, 128).load(5)

    assert train.shape == val.shape == (128, 96, 3)
    assert np.abs(train.astype(int) - val).mean() < 2


def test_training_without_labels_is_an_error_and_validation_a_warning(annotations, caplog):
    empty = without_labels(annotations)

    with pytest.raises(DataError, match="none of the 6 images has a label; training needs boxes"):
        DetectionDataset(empty, 64, Augmentation())
    assert DetectionDataset(empty, 64)[0].target.boxes.shape == (0, 4)
    assert "none of the 6 images has a label" in caplog.text


def test_an_image_that_vanishes_is_named(annotations):
    gone = Annotations(**{**vars(annotations), "paths": ["/gone.jpg"] * 6})

    with pytest.raises(DataError, match=r"/gone\.jpg can't be read any more"):
        DetectionDataset(gone, 64)[0]


def test_an_image_of_another_size_than_before_is_named(annotations):
    turned = Annotations(**{**vars(annotations), "sizes": annotations.sizes[:, ::-1].copy()})

    for augmentation in (None, Augmentation()):
        dataset = DetectionDataset(turned, 64, augmentation)
        with pytest.raises(
            DataError, match=r"5\.jpg has 480x640 px; it had 640x480 px when the data set was"
        ):
            dataset.load(5)

import pytest
import torch

from detector.errors import SettingsError
from detector.training.multi_scale import require_batch_norm_fits, resize_batch, sample_side, smallest_side


def test_a_side_follows_from_the_seed_and_the_step_and_stays_in_its_range():
    sides = [sample_side(320, 0.5, seed=0, step=step) for step in range(200)]
    assert sides == [sample_side(320, 0.5, seed=0, step=step) for step in range(200)]
    assert min(sides) == 160 and max(sides) == 480
    assert not any(side % 32 for side in sides)
    assert sides != [sample_side(320, 0.5, seed=1, step=step) for step in range(200)]


def test_a_batch_is_brought_to_a_side_and_its_boxes_factors_are_known():
    images, factors = resize_batch(torch.rand(2, 3, 64, 96), 192)
    assert images.shape == (2, 3, 128, 192)
    assert factors.tolist() == [2, 2, 2, 2]
    same, factors = resize_batch(images, 192)
    assert same is images and factors.tolist() == [1, 1, 1, 1]


def test_a_batch_of_one_image_of_one_cell_is_refused_at_the_start():
    assert smallest_side(64, 0.0) == 64
    assert smallest_side(64, 0.5) == smallest_side(32, 0.9) == 32
    for images, batch in ((9, 4), (1, 4), (8, 1)):
        with pytest.raises(SettingsError, match="gives batch norm a single value; use a larger imgsz"):
            require_batch_norm_fits(images, batch, 32, 32)
        require_batch_norm_fits(images, batch, 64, 32)
    require_batch_norm_fits(8, 4, 32, 32)


@pytest.mark.parametrize("settings", [{"imgsz": 32}, {"imgsz": 64, "multi_scale": 0.5}])
def test_a_last_batch_of_one_image_is_refused_before_the_training(train_tiny, settings):
    with pytest.raises(SettingsError, match="the last batch of an epoch has one image"):
        train_tiny(batch=7, epochs=1, **settings)

import torch

from detector.training.multi_scale import resize_batch, sample_side


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

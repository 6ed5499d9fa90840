import copy

import pytest
import torch
from torch import nn

from detector.training.batch_norm import (
    images_for_statistics,
    join_batches,
    part_to_keep,
    recompute_statistics,
)


@pytest.fixture
def networks():
    """An averaged network in eval mode and the one that is trained: a convolution and two normalisations."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.03), nn.BatchNorm2d(4, momentum=0.03)
    )
    return copy.deepcopy(model).eval().requires_grad_(False), model.train()


def test_the_statistics_are_the_mean_over_the_images(networks):
    average, model = networks
    first, second = torch.rand(3, 3, 4, 4), torch.rand(1, 3, 4, 4) + 1
    features = [average[0](images) for images in (first, second)]
    recompute_statistics(average, model, [first, second])
    means = [f.mean((0, 2, 3)) for f in features]
    variances = [f.var((0, 2, 3)) for f in features]
    torch.testing.assert_close(average[1].running_mean, (3 * means[0] + means[1]) / 4)
    torch.testing.assert_close(average[1].running_var, (3 * variances[0] + variances[1]) / 4)


def test_what_was_there_before_does_not_matter(networks):
    average, model = networks
    found = []
    for old in (0.0, 1e6):
        average[1].running_mean.fill_(old)
        recompute_statistics(average, model, [torch.ones(2, 3, 4, 4)])
        found.append(average[1].running_mean.clone())
    assert torch.equal(*found)


def test_a_part_can_be_of_the_running_statistics_of_the_model(networks):
    average, model = networks
    exact = copy.deepcopy(average)
    images = torch.rand(2, 3, 4, 4)
    recompute_statistics(exact, model, [images])
    model[1].running_mean.fill_(8.0)
    model[1].running_var.fill_(4.0)
    for _ in range(2):  # again gives the same: a validation may be interrupted and begun again
        recompute_statistics(average, model, [images], keep=0.25)
        torch.testing.assert_close(average[1].running_mean, 0.75 * exact[1].running_mean + 2)
        torch.testing.assert_close(average[1].running_var, 0.75 * exact[1].running_var + 1)
    assert model[1].running_mean.tolist() == [8.0] * 4


def test_a_network_keeps_its_running_statistics_for_some_steps_only():
    parts = [part_to_keep(steps) for steps in (0, 4, 20, 99, 100, 10**6)]
    assert parts == pytest.approx([1, 0.368, 0.0067, 1.8e-11, 0, 0], rel=0.02)


def test_frozen_layers_keep_theirs(networks):
    average, model = networks
    model[1].eval()
    recompute_statistics(average, model, [torch.rand(2, 3, 4, 4)])
    assert torch.equal(average[1].running_mean, torch.zeros(4))
    assert not torch.equal(average[2].running_mean, torch.zeros(4))


def test_without_batches_nothing_changes(networks):
    average, model = networks
    before = copy.deepcopy(average.state_dict())
    recompute_statistics(average, model, [])
    assert all(torch.equal(value, before[key]) for key, value in average.state_dict().items())


def test_an_interruption_leaves_the_network_ready(networks):
    average, model = networks

    def batches():
        yield torch.rand(2, 3, 4, 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recompute_statistics(average, model, batches())
    assert not any(module.training for module in average.modules())
    assert average[1].momentum == 0.03 and all(module.training for module in model.modules())
    assert not any(p.requires_grad for p in average.parameters())


def test_batches_of_one_shape_are_joined_up_to_a_limit():
    sizes = [(2, 8), (2, 8), (1, 8), (3, 8), (2, 6), (5, 6)]  # images, side
    batches = [torch.full((count, 3, side, side), number) for number, (count, side) in enumerate(sizes)]
    joined = list(join_batches(batches, 4))
    assert [images[:, 0, 0, 0].tolist() for images in joined] == [[0, 0, 1, 1], [2, 3, 3, 3], [4, 4], [5] * 5]
    assert list(join_batches([], 4)) == []


def test_the_first_steps_have_more_images_where_they_are_small():
    sizes = [(0, 96, 96), (99, 160, 320), (0, 256, 256), (0, 320, 320), (0, 640, 640), (100, 96, 96)]
    assert [images_for_statistics(*size) for size in sizes] == [128, 64, 50, 32, 32, 32]


@pytest.mark.parametrize(
    ("batch", "young", "passes"), [(8, 100, [128]), (2, 100, [32] * 4), (8, 0, [32]), (3, 0, [11, 11, 10])]
)
def test_few_images_are_drawn_until_there_are_enough(train_tiny, monkeypatch, batch, young, passes):
    monkeypatch.setattr("detector.training.batch_norm.YOUNG_STEPS", young)
    seen: list[list[torch.Tensor]] = []
    kept: list[float] = []

    def recompute(average, model, batches, keep):
        seen.append(list(batches))
        kept.append(keep)

    monkeypatch.setattr("detector.engine.validation.recompute_statistics", recompute)
    updates = train_tiny(batch=batch).trainer.ema.updates
    assert kept == [part_to_keep(updates // 2), part_to_keep(updates)]
    assert [[len(images) for images in epoch] for epoch in seen] == [passes] * 2
    drawn = torch.cat(seen[0])
    assert len(drawn.flatten(1).unique(dim=0)) == sum(passes)  # no image twice in the same way


@pytest.mark.parametrize(("count", "batches"), [(4, [2, 2]), (5, [3, 2]), (11, [3, 3, 2, 1, 2])])
def test_they_are_the_last_images_whatever_the_batches(train_tiny, count, batches):
    found: list[list[torch.Tensor]] = []
    train_tiny(
        ("on_fit_epoch_end", lambda trainer: found.extend(map(list, map(trainer.last_images, (count, 8))))),
        batch=3,
        epochs=1,
    )  # 8 images
    few, all_of_them = found
    assert [len(images) for images in few] == batches
    assert torch.equal(torch.cat(few)[:8], torch.cat(all_of_them)[-count:])

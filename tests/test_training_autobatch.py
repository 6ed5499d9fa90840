import pytest
import torch

from detector.device import select_precision
from detector.errors import SettingsError
from detector.training.autobatch import choose_batch, fit_batch

CPU = torch.device("cpu")


def choose(batch, images=100):
    return choose_batch(
        batch, images, torch.nn.Identity(), (3, 64, 64), CPU, select_precision(False, CPU), torch.sum
    )


def test_a_given_batch_is_kept():
    assert choose(12) == 12


def test_auto_goes_by_the_images():
    assert choose("auto", images=200) == 8


@pytest.mark.parametrize("batch", [-1, 0.7])
def test_only_cuda_chooses(batch):
    with pytest.raises(SettingsError, match=rf"batch={batch}: expected a whole number on cpu.* try batch=16"):
        choose(batch)


@pytest.mark.parametrize(("budget", "batch"), [(1000, 9), (1099, 9), (1100, 10), (150, 1), (0, 1)])
def test_the_budget_is_filled_along_the_line_of_small_batches(budget, batch):
    assert fit_batch(lambda images: 100 + 100 * images, (1, 2, 4, 8), budget) == batch


def test_memory_that_does_not_grow_with_the_batch_does_not_divide_by_zero():
    assert fit_batch(lambda images: 100, (1, 2, 4, 8), 600, maximum=500) == 500


def test_a_batch_holds_no_more_than_all_images():
    assert fit_batch(lambda images: 100 * images, (1, 2, 4, 8), 1e6, maximum=3) == 3


def test_what_the_batch_found_really_takes_corrects_it():
    def with_workspace(images):  # larger convolutions take more memory than the line says
        return 100 * images + (2000 if images > 20 else 0)

    found = fit_batch(with_workspace, (1, 2, 4, 8), 10_000)
    assert 77 <= found <= 80


def test_memory_that_runs_out_ends_in_a_smaller_batch():
    def small(images):
        return 100 * images if images <= 30 else float("inf")

    assert 8 <= fit_batch(small, (1, 2, 4, 8), 10_000) <= 30

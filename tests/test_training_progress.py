import numpy as np
import pytest
import torch

from detector.errors import CallbackError, CheckpointError
from detector.training.progress import EpochMeters, Progress


def test_progress_comes_back_from_its_state():
    progress = Progress(
        epochs=5, epochs_done=2, batches_done=3, global_step=11, last_step=10, best_fitness=0.4
    )
    again = Progress(epochs=1)
    again.load_state_dict(progress.state_dict())
    assert again == progress
    assert progress.state_dict()["epoch"] == 1


def test_a_state_sets_nothing_but_the_counters():
    state = Progress(epochs=2).state_dict()
    state["counters"]["in_step"] = state["counters"]["load_state_dict"] = "changed"
    progress = Progress(epochs=1)
    progress.load_state_dict(state)
    assert progress == Progress(epochs=2)


@pytest.mark.parametrize(("epochs", "stops"), [(1, True), (2, True), (3, False)])
def test_another_number_of_epochs_decides_again_whether_to_stop(epochs, stops):
    progress = Progress(epochs=2, epochs_done=2, stop=True, done=True)
    progress.replan(epochs)
    assert (progress.epochs, progress.stop, progress.done) == (epochs, stops, stops)


def test_meters_come_back_from_their_state():
    meters = EpochMeters(2, torch.device("cpu"))
    meters.add(torch.tensor([1.0, 3.0]), 4)
    meters.add(torch.tensor([2.0, 5.0]), 2)
    again = EpochMeters(2, torch.device("cpu"))
    again.load_state_dict(meters.state_dict())
    assert again.images_seen == 6
    assert again.mean_losses() == pytest.approx([8 / 6, 22 / 6])
    assert again.seconds >= meters.state_dict()["epoch_seconds"] - 1


def test_a_state_of_another_loss_is_refused():
    state = EpochMeters(3, torch.device("cpu")).state_dict()
    with pytest.raises(
        CheckpointError, match="sums 3 loss terms, this version has 2; resume it with the version"
    ):
        EpochMeters(2, torch.device("cpu")).load_state_dict(state)


def test_of_equal_epochs_the_smaller_loss_is_the_best_else_the_later_one():
    progress = Progress(epochs=9)
    best = []
    for epoch, (fitness, loss) in enumerate(
        [
            (0.0, 3.0),
            (0.0, 2.0),
            (0.0, 2.5),
            (0.0, 2.0),
            (0.0, None),
            (0.5, 9.0),
            (0.4, 1.0),
            (float("nan"), 0.0),
        ]
    ):
        progress.take_if_better(fitness, loss, epoch)
        best.append(progress.best_epoch)
    assert best == [0, 1, 1, 3, 4, 5, 5, 5]


def test_states_of_earlier_versions_lack_some_counters():
    state = Progress(epochs=5, best_fitness=0.4, best_loss=0.1).state_dict()
    del state["counters"]["best_loss"], state["counters"]["stop_reason"]
    again = Progress(epochs=1)
    again.load_state_dict(state)
    assert (again.best_fitness, again.best_loss) == (0.4, None)


def test_counters_take_numbers_of_every_library_and_nothing_else():
    progress = Progress(epochs=np.int64(5))
    progress.best_fitness, progress.stop = np.float32(0.5), torch.tensor(True)
    assert (type(progress.epochs), type(progress.best_fitness), progress.stop) == (int, float, True)
    with pytest.raises(CallbackError, match=r"^trainer.epochs = '3': expected a whole number$"):
        progress.epochs = "3"


def test_a_validation_loss_that_is_not_finite_is_not_kept_and_never_better():
    progress = Progress(epochs=5)
    progress.take_if_better(0.0, float("nan"), 0)
    assert (progress.best_fitness, progress.best_loss, progress.best_epoch) == (0.0, None, 0)
    progress.take_if_better(0.4, 1.5, 1)
    progress.take_if_better(0.4, float("nan"), 2)
    assert (progress.best_fitness, progress.best_loss, progress.best_epoch) == (0.4, 1.5, 1)

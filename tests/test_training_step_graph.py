"""Steps that are recorded and repeated; here a function that is called again stands for a CUDA graph."""

import pytest
import torch

from detector.checkpoints.checkpoint import load_checkpoint
from detector.training.step_graph import FEWEST_OBJECTS, NetworkWatch, StepGraphs, pad_objects


class Latest:
    """What the latest repetition returned, as the memory that a graph fills."""

    def __iter__(self):
        return iter(self.value)


def call_again(function):
    """Record a function, as CUDA does: without computing it."""
    latest = Latest()
    return lambda: setattr(latest, "value", function()), latest


class Doubling:
    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return (2 * x,)


def run(graphs, compute, value, structure=0, constants=0, size=1):
    (result,) = graphs.run(compute, [torch.full((size,), float(value))], structure, constants)
    return result.tolist()


def test_the_second_call_of_a_shape_is_recorded_and_every_later_one_repeats_it():
    graphs, compute = StepGraphs(lambda: call_again), Doubling()
    assert [run(graphs, compute, n) for n in range(4)] == [[0.0], [2.0], [4.0], [6.0]]
    assert (graphs.recorded, graphs.repeated, compute.calls) == (1, 3, 4)
    assert [run(graphs, compute, n, size=2) for n in range(2)] == [[0.0, 0.0], [2.0, 2.0]]
    assert run(graphs, compute, 5) == [10.0]
    assert (graphs.recorded, graphs.repeated) == (2, 5)


def test_constants_that_change_with_every_call_are_never_recorded():
    graphs, compute = StepGraphs(lambda: call_again), Doubling()
    assert [run(graphs, compute, n, constants=n) for n in range(4)] == [[0.0], [2.0], [4.0], [6.0]]
    assert graphs.recorded == 0


def test_after_constants_that_lasted_new_ones_are_recorded_at_once():
    graphs, compute = StepGraphs(lambda: call_again), Doubling()
    for constants in range(3):
        for n in range(4):
            assert run(graphs, compute, n, constants=constants) == [2.0 * n]
    assert (graphs.recorded, graphs.repeated) == (3, 3 + 4 + 4)
    run(graphs, compute, 1, constants=3)
    run(graphs, compute, 1, constants=4)
    assert (graphs.recorded, graphs.repeated) == (4, 12), "those of 3 did not last"


def test_other_tensors_are_computed_once_before_anything_is_recorded():
    """An optimizer makes its buffers then; a graph would clear them with every repetition."""
    graphs, compute = StepGraphs(lambda: call_again), Doubling()
    for n in range(5):
        run(graphs, compute, n)
    run(graphs, compute, 1, structure=1)
    assert graphs.recorded == 1
    run(graphs, compute, 1, structure=1)
    assert graphs.recorded == 2
    graphs.clear()
    run(graphs, compute, 1, structure=1)
    assert graphs.recorded == 2
    graphs.release()
    run(graphs, compute, 1, structure=1)
    assert graphs.recorded == 2, "one repetition does not pay"


def test_what_can_not_be_recorded_is_computed_and_said_once(caplog):
    def refuse(function):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    graphs, compute = StepGraphs(lambda: refuse), Doubling()
    assert [run(graphs, compute, n) for n in range(4)] == [[0.0], [2.0], [4.0], [6.0]]
    (said,) = caplog.messages
    assert "(operation not permitted when stream is capturing); cuda_graph=false leaves this out" in said


def test_objects_are_padded_to_a_power_of_two():
    for count, padded in ((1, FEWEST_OBJECTS), (16, 16), (17, 32), (64, 64)):
        boxes, labels = pad_objects(torch.ones(2, count, 4), torch.zeros(2, count, dtype=torch.int64))
        assert boxes.shape == (2, padded, 4) and labels.shape == (2, padded)
        assert boxes.sum() == 2 * count * 4 and (labels == 0).sum() == 2 * count
        assert labels.min() == (-1 if padded > count else 0)


def test_memory_is_never_used_again_once_its_graphs_are_gone():
    made = []

    def recorder():
        made.append(call_again)
        return call_again

    graphs, compute = StepGraphs(recorder), Doubling()
    for constants in (0, 1):
        for n in range(5):
            run(graphs, compute, n, constants=constants)
            run(graphs, compute, n, constants=constants, size=2)
    assert (graphs.recorded, len(made)) == (4, 2)


def test_hooks_and_gradients_of_modules_and_parameters_are_seen():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    watch = NetworkWatch(model)
    assert not watch.has_hooks()
    handle = model[0].register_forward_hook(lambda *_: None)
    assert watch.has_hooks()
    handle.remove()
    assert not watch.has_hooks() and not watch.has_gradients()
    model(torch.ones(1, 2)).sum().backward()
    assert watch.has_gradients()
    model[0].weight.register_hook(lambda gradient: gradient)
    assert watch.has_hooks()


class Recording:
    """Lets a training on the CPU repeat its steps."""

    def __init__(self, on=True):
        self.on = on
        self.graphs = None

    def on_train_start(self, trainer):
        assert trainer.graphs is None
        if self.on:
            self.graphs = trainer.graphs = StepGraphs(lambda: call_again)


@pytest.mark.parametrize("change", [{}, {"optimizer": "AdamW"}, {"freeze": 2}, {"nbs": 4}])
@pytest.mark.parametrize("model", ["tiny_model", "tiny_dual_model"])
def test_a_training_of_repeated_steps_ends_with_the_same_bits(train_tiny, tmp_path, request, model, change):
    model = request.getfixturevalue(model)
    settings = {"batch": 2, "epochs": 3, "warmup_epochs": 1, "close_mosaic": 1} | change
    recording = Recording()
    train_tiny(Recording(on=False), model=model, name="plain", **settings)
    train_tiny(recording, model=model, name="repeated", **settings)
    plain, repeated = (
        load_checkpoint(tmp_path / name / "weights/state.pt") for name in ("plain", "repeated")
    )
    for part in ("weights", "ema"):
        assert all(torch.equal(value, repeated[part][name]) for name, value in plain[part].items())
    assert plain["counters"] == repeated["counters"] and torch.equal(plain["loss_sum"], repeated["loss_sum"])
    assert (recording.graphs.repeated > 0) == ("nbs" not in change)


@pytest.mark.parametrize(
    "event", ["on_loss", "on_before_optimizer_step", "optimizer_step", "on_before_zero_grad"]
)
def test_a_function_within_the_step_is_called_with_every_step(train_tiny, event):
    calls, recording = [], Recording()
    train_tiny(
        recording, (event, lambda trainer: calls.append(trainer.global_step)), batch=2, warmup_epochs=0
    )
    assert calls == list(range(8))
    assert recording.graphs.repeated == 0


def test_layers_that_are_thawed_and_rates_that_callbacks_set_are_followed(train_tiny, tmp_path):
    def change(trainer):
        if trainer.epoch == 1 and trainer.batch_index == 2:
            trainer.unfreeze()
        if trainer.epoch == 2 and trainer.batch_index == 2:
            trainer.schedule.scale = 0.1

    settings = {"batch": 2, "epochs": 3, "warmup_epochs": 0, "freeze": 2}
    for name, on in (("plain", False), ("repeated", True)):
        train_tiny(Recording(on), ("on_train_batch_start", change), name=name, **settings)
    plain, repeated = (load_checkpoint(tmp_path / name / "weights/last.pt") for name in ("plain", "repeated"))
    assert all(torch.equal(value, repeated["weights"][name]) for name, value in plain["weights"].items())

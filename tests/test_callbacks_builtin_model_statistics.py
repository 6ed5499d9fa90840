import pytest
import torch
from support.training import plain_trainer, play
from torch import nn

from detector.callbacks.builtin.model_statistics import ModelStatistics
from detector.errors import CallbackError


class Net(nn.Module):
    """Two layers; of the four channels of the first, two are dead."""

    def __init__(self):
        super().__init__()
        self.model = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Conv2d(4, 1, 1)])
        with torch.no_grad():
            for layer in (self.model[0][0], self.model[1]):
                layer.weight.fill_(0.5)
                layer.bias.zero_()
            self.model[0][0].bias[:2] = -100.0

    def forward(self, x):
        for layer in self.model:
            x = layer(x)
        return x


def make_trainer(num_batches=1):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return plain_trainer(model=model, optimizer=optimizer, num_batches=num_batches, scaler=scaler)


def run(callback, trainer, epochs=1, accumulate=1):
    """Play a run as the trainer does; return the metrics of each epoch."""
    found = []

    def step(trainer):
        trainer.scaler.scale(trainer.model(torch.rand(2, 3, 4, 4)).mean()).backward()
        if (trainer.epoch * trainer.num_batches + trainer.batch_index + 1) % accumulate == 0:
            trainer.scaler.unscale_(trainer.optimizer)
            trainer.expected = [p.grad.clone() for p in trainer.model.parameters()]
            nn.utils.clip_grad_norm_(trainer.model.parameters(), 0.1)
            trainer.scaler.step(trainer.optimizer)
            trainer.scaler.update()
            callback.on_before_zero_grad(trainer)
            trainer.optimizer.zero_grad()

    watch = {
        "on_train_batch_start": step,
        "on_fit_epoch_end": lambda trainer: found.append(trainer.metrics),
    }
    play(callback, [None] * epochs, trainer, batches=trainer.num_batches, watch=watch)
    return found


def hooks(model):
    """Count the hooks on modules and on parameters."""
    on_parameters = sum(len(p._post_accumulate_grad_hooks or ()) for p in model.parameters())
    return sum(len(module._forward_hooks) for module in model.modules()), on_parameters


def test_gradient_norms_are_those_before_clipping():
    trainer = make_trainer()
    (metrics,) = run(ModelStatistics(), trainer)
    squares = [float(grad.square().sum()) for grad in trainer.expected]
    assert metrics["statistics/grad_norm"] == pytest.approx(sum(squares) ** 0.5)
    assert metrics["statistics/grad_norm/model.0"] == pytest.approx(sum(squares[:2]) ** 0.5)
    assert metrics["statistics/grad_norm/model.1"] == pytest.approx(sum(squares[2:]) ** 0.5)


def test_update_ratios_are_those_of_the_weights():
    trainer = make_trainer()
    before = [p.detach().clone() for p in trainer.model.parameters() if p.ndim > 1]
    (metrics,) = run(ModelStatistics(), trainer)
    after = [p.detach() for p in trainer.model.parameters() if p.ndim > 1]
    ratios = [float((a - b).norm() / b.norm()) for a, b in zip(after, before, strict=True)]
    assert max(ratios) > 0
    assert metrics["statistics/update_ratio_max"] == pytest.approx(max(ratios))
    assert metrics["statistics/update_ratio_median"] in (pytest.approx(ratios[0]), pytest.approx(ratios[1]))


def test_dead_channels_are_counted():
    (metrics,) = run(ModelStatistics(), make_trainer())
    assert metrics["statistics/dead_channels"] == 0.5


def test_every_nth_epoch_has_statistics():
    found = run(ModelStatistics(every=2), make_trainer(), epochs=4)
    assert [bool(metrics) for metrics in found] == [False, True, False, True]


def test_with_accumulation_the_step_comes_batches_later():
    trainer = make_trainer(num_batches=4)
    (metrics,) = run(ModelStatistics(), trainer, accumulate=4)
    norm = sum(float(grad.square().sum()) for grad in trainer.expected) ** 0.5
    assert metrics["statistics/grad_norm"] == pytest.approx(norm)
    assert metrics["statistics/update_ratio_max"] > 0
    assert metrics["statistics/dead_channels"] == 0.5


def test_hooks_are_there_for_one_batch_only():
    trainer, callback = make_trainer(num_batches=3), ModelStatistics()
    seen = []
    for trainer.batch_index in range(3):
        callback.on_train_batch_start(trainer)
        seen.append(hooks(trainer.model))
        callback.on_before_zero_grad(trainer)
        callback.on_train_batch_end(trainer)
        assert hooks(trainer.model) == (0, 0)
    assert seen == [(0, 0), (1, 4), (0, 0)]


def test_a_failure_in_the_batch_leaves_no_hooks():
    trainer, callback = make_trainer(), ModelStatistics()
    callback.on_train_batch_start(trainer)
    assert hooks(trainer.model) == (1, 4)
    callback.teardown(trainer)
    assert hooks(trainer.model) == (0, 0)
    assert callback.before == []


def test_a_training_has_statistics_of_every_layer_and_no_other_weights(train_tiny):
    weights = []
    for callbacks in ([], [ModelStatistics()]):
        yolo = train_tiny(*callbacks, epochs=1, freeze=1)
        weights.append(yolo.model.state_dict())
    metrics = yolo.trainer.metrics
    layers = [name for name in metrics if name.startswith("statistics/grad_norm/")]
    assert layers == [f"statistics/grad_norm/model.{layer}" for layer in range(1, 6)]
    assert metrics["statistics/grad_norm"] > 0
    assert 0 < metrics["statistics/update_ratio_median"] <= metrics["statistics/update_ratio_max"]
    assert 0 <= metrics["statistics/dead_channels"] < 0.5
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_bad_interval_is_refused():
    with pytest.raises(CallbackError, match=r"ModelStatistics\(every=0\): expected a whole number >= 1"):
        ModelStatistics(0)

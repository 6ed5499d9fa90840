"""Whether a network still learns: a training that can't ends in a sentence, one that gets worse is warned of."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from detector import YOLO
from detector.errors import TrainingError
from detector.training.learning import LearningCheck


@pytest.mark.parametrize("model", ["tiny_model", "tiny_dual_model"])
def test_a_network_that_finds_nothing_any_more_ends_the_run_with_its_weights_kept(
    train_tiny, model, tmp_path, request
):
    yolo, kept = YOLO(request.getfixturevalue(model)), []
    weights = tmp_path / "train/weights"

    @yolo.add_callback("on_train_epoch_start")
    def silence(trainer):
        if trainer.epoch == 1:
            kept.append((weights / "last.pt").read_bytes())
            for layer in trainer.model.modules():
                if isinstance(layer, nn.Conv2d) and layer.out_channels == trainer.model.num_classes:
                    layer.bias.data.fill_(-1e4)

    with pytest.raises(
        TrainingError, match=r"losses and gradients are 0 in epoch 2: .* smaller lr0 \(it was 0"
    ):
        train_tiny(model=yolo, epochs=4)
    assert kept == [(weights / "last.pt").read_bytes()]
    assert (weights / "best.pt").is_file()


def test_losses_of_0_that_were_asked_for_are_fine(train_tiny):
    yolo = train_tiny(box=0, cls=0, dfl=0)
    assert yolo.trainer.metrics["train/cls_loss"] == 0 == float(yolo.trainer.grad_norm)


def test_losses_far_above_those_of_the_first_epoch_are_said_once(caplog):
    check = LearningCheck(1.0, Path("weights"))
    for epoch, losses in enumerate([(0.0, 0.0), (4.0, 4.0), (8.0, 15.9), (8.0, 16.1), (80.0, 1.0)]):
        check.check(epoch, losses, torch.tensor(5.0))
    assert caplog.messages == [
        "the losses of epoch 4 add up to 24.1, those of the first one to 8: the network gets worse; "
        "try a smaller lr0 (it is 1)"
    ]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(("loss", "norm"), [(0.0, 1e-3), (1e-3, 0.0), (0.0, float("nan")), (0.0, None)])
def test_only_losses_and_gradients_of_0_end_a_run(loss, norm):
    check = LearningCheck(0.01, Path("weights"))
    check.check(0, [loss], None if norm is None else torch.tensor(norm))

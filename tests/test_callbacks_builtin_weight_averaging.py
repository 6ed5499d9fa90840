import pytest
import torch

from detector import YOLO
from detector.callbacks import WeightAveraging
from detector.checkpoints.checkpoint import load_checkpoint
from detector.errors import CallbackError

OWN = [0.1, 0.4, 0.2, 0.3]


def run(train_tiny, callback):
    """Train four epochs of these fitnesses; return the trainer and each epoch's averaged weights."""
    epochs = []

    def end(trainer):
        trainer.fitness = OWN[trainer.epoch]
        epochs.append({key: value.clone() for key, value in trainer.ema.model.state_dict().items()})

    return train_tiny(("on_fit_epoch_end", end), callback, epochs=4).trainer, epochs


@pytest.mark.parametrize(("of", "chosen"), [("best", [1, 3]), ("last", [2, 3])])
def test_the_mean_of_the_best_or_last_epochs_is_written(of, chosen, train_tiny):
    trainer, epochs = run(train_tiny, WeightAveraging(count=2, of=of))
    saved = load_checkpoint(trainer.wdir / "average.pt")
    for key, value in saved["weights"].items():
        if "running" not in key and value.is_floating_point():
            mean = (epochs[chosen[0]][key].double() + epochs[chosen[1]][key].double()) / 2
            torch.testing.assert_close(value, mean.float())
    mean = (epochs[chosen[0]]["model.0.bn.running_var"] + epochs[chosen[1]]["model.0.bn.running_var"]) / 2
    assert not torch.equal(saved["weights"]["model.0.bn.running_var"], mean), "statistics are its own"
    assert {"metrics/mAP50-95", "val/loss"} <= saved["metrics"].keys()
    assert torch.equal(
        trainer.ema.model.state_dict()["model.0.conv.weight"], epochs[3]["model.0.conv.weight"]
    )
    assert sorted(path.name for path in trainer.wdir.glob("*.pt")) == [
        "average.pt",
        "best.pt",
        "last.pt",
        "state.pt",
    ]
    assert len(YOLO(trainer.wdir / "average.pt").names) == 6


def test_names_of_others_in_a_state_are_not_touched(tmp_path):
    callback = WeightAveraging()
    callback.load_state_dict({"kept": [[0.1, "../../x.pt"], [0.2, "best.pt"], [0.3, "average-of-epoch3.pt"]]})
    assert callback.kept == [(0.3, "average-of-epoch3.pt")]


def test_one_epoch_alone_is_not_averaged(train_tiny, caplog):
    train_tiny(WeightAveraging(), epochs=1)
    assert "WeightAveraging did nothing: it needs at least two epochs, there were 1" in caplog.text


@pytest.mark.parametrize("arguments", [{"count": 1}, {"of": "worst"}, {"mode": "up"}])
def test_arguments_that_cant_be_used_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(CallbackError, match=rf"^WeightAveraging\({name}="):
        WeightAveraging(**arguments)

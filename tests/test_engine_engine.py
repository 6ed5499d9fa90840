"""Attributes that callbacks written for other trainers read: they are there, or one sentence says what to use."""

import pytest
import torch

from detector import YOLO
from detector.engine.engine import Engine
from detector.engine.predict import Predictor
from detector.engine.train import Trainer
from detector.engine.val import Validator


def test_what_published_callbacks_read_of_a_trainer_is_there(train_tiny):
    seen = {}

    def batch_end(trainer):
        seen["tloss"] = trainer.tloss
        seen["labelled"] = trainer.label_loss_items(trainer.tloss, prefix="train")
        seen["loaders"] = [len(trainer.train_loader), len(trainer.test_loader)]

    yolo = train_tiny(("on_train_batch_end", batch_end), epochs=1)
    trainer = yolo.trainer
    assert seen["tloss"].shape == (3,) and torch.isfinite(seen["tloss"]).all()
    assert seen["labelled"] == {key: trainer.metrics[key] for key in trainer.label_loss_items()}
    assert list(seen["labelled"]) == ["train/box_loss", "train/cls_loss", "train/dfl_loss"]
    assert seen["loaders"] == [2, 1] and trainer.wdir == trainer.best.parent


def test_what_published_callbacks_read_of_a_validator_is_there(
    train_tiny, finder_weights, drawn_dataset, tmp_path
):
    seen = []

    def look(validator):
        seen.append(
            (validator.args.imgsz, validator.device.type, len(validator.dataloader), validator.settings.conf)
        )

    train_tiny(("on_val_start", look), epochs=1)
    yolo = YOLO(finder_weights)
    yolo.val(data=drawn_dataset, imgsz=96, batch=2, device="cpu", project=tmp_path, plots=False, conf=0.25,
             callbacks=[("on_val_end", look)])  # fmt: skip
    assert seen == [(64, "cpu", 1, None), (64, "cpu", 1, None), (96, "cpu", 3, 0.25)]
    assert yolo.validator.dataloader is None, "its images are not kept in memory"


def test_what_published_callbacks_read_of_a_predictor_is_there(finder_weights, sample_image):
    seen = []
    yolo = YOLO(finder_weights)
    yolo.add_callback(
        "on_predict_start", lambda p: seen.append((len(p.dataset), p.model.names, p.device.type))
    )
    yolo.predict([sample_image] * 2, imgsz=96, device="cpu")
    assert seen == [(2, yolo.names, "cpu")]


@pytest.mark.parametrize("kind", [Trainer, Validator, Predictor])
def test_other_names_are_answered_with_what_to_use(kind):
    engine = object.__new__(kind)
    assert kind.ELSEWHERE
    for name, instead in kind.ELSEWHERE.items():
        with pytest.raises(AttributeError) as caught:
            getattr(engine, name)
        assert str(caught.value) == (
            f"{kind.__name__.lower()}.{name}: there is no such attribute here; use {instead}"
        )
    assert not hasattr(engine, "scheduler")


def test_a_misspelt_attribute_is_answered_with_the_nearest():
    with pytest.raises(
        AttributeError, match=r"^engine\.callback: there is no such attribute now; did you mean 'callbacks'"
    ):
        Engine().callback  # noqa: B018

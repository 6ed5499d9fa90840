"""The default callbacks of trainings and validations, and those the user gives in their place."""

import csv
import logging

import pytest

from detector import YOLO
from detector.callbacks import CSVLogger, EarlyStopping, Pictures, ProgressBar, Report, RunStatus
from detector.callbacks.builtin import sample_images
from detector.callbacks.registry import CallbackRegistry
from detector.settings import TrainSettings
from detector.training.default_callbacks import add_default_callbacks


class Miscount:
    """Adds a metric that the callbacks before it don't see."""

    def on_fit_epoch_end(self, trainer):
        trainer.metrics["my/miscount"] = 3.0


def kinds(*given, **settings):
    registry = CallbackRegistry()
    for callback in given:
        registry.add(callback)
    add_default_callbacks(registry, TrainSettings(plugins=False, loggers="none", **settings))
    return [known for known in registry.objects if type(known) is not Miscount], registry


@pytest.mark.parametrize(
    "given",
    [CSVLogger(), ProgressBar(every=1), EarlyStopping(patience=3), Pictures(0.9), RunStatus(9), Report()],
)
def test_a_default_callback_is_replaced_by_one_of_its_kind(given):
    found, _ = kinds(given)
    assert [known for known in found if isinstance(known, type(given))] == [given]
    assert len(found) == 6


def test_a_derived_class_replaces_a_default_callback():
    class Mine(CSVLogger):
        """One more."""

    mine = Mine()
    found, _ = kinds(mine)
    assert [known for known in found if isinstance(known, CSVLogger)] == [mine]


def test_a_replaced_default_is_called_in_its_place():
    mine = CSVLogger()
    _, registry = kinds(mine, Miscount())
    owners = [type(fn.__self__).__name__ for fn in registry["on_fit_epoch_end"]]
    assert owners == ["Miscount", "CSVLogger", "ProgressBar", "EarlyStopping", "RunStatus"]


def test_a_csv_logger_that_is_given_writes_every_row_once(train_tiny, tmp_path):
    train_tiny(CSVLogger(), Miscount(), epochs=2)
    with (tmp_path / "train/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["my/miscount"] for row in rows] == ["3", "3"]


def test_a_progress_bar_that_is_given_reports_every_epoch_once(train_tiny, caplog):
    caplog.set_level(logging.INFO, logger="detector")
    train_tiny(ProgressBar(every=1), epochs=1, verbose=True)
    assert sum("epoch 1/1" in line for line in caplog.messages) == 1
    assert "ProgressBar: yours is used in place of the default" in caplog.messages


def test_a_validation_draws_by_the_callback_that_is_given_in_place_of_the_default(
    finder_weights, drawn_dataset, tmp_path, monkeypatch
):
    thresholds = []
    found_boxes = sample_images.found_boxes
    monkeypatch.setattr(
        sample_images, "found_boxes", lambda b, p, conf: thresholds.append(conf) or found_boxes(b, p, conf)
    )
    YOLO(finder_weights).val(
        data=drawn_dataset,
        imgsz=96,
        device="cpu",
        verbose=False,
        project=tmp_path,
        callbacks=[Pictures(conf=0.9)],
    )
    assert set(thresholds) == {0.9}

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detector import YOLO
from detector.engine.loaders import (
    TrainingData,
    located_data,
    make_val_loader,
    num_workers,
    open_data,
    read_split,
)
from detector.errors import DataError, SettingsError
from detector.settings import TrainSettings


def settings(data, **changes):
    return TrainSettings.parse({"data": data, "imgsz": 64, "workers": 0} | changes)


def test_a_missing_data_set_is_asked_for():
    with pytest.raises(DataError, match=r"data= is missing: name a data set, such as data=coco8\.yaml"):
        open_data(settings(None))


def test_a_class_that_is_not_there_is_refused(drawn_dataset):
    with pytest.raises(SettingsError, match=r"classes=6: drawn\.yaml has classes 0-5"):
        open_data(settings(drawn_dataset, classes=[0, 6]))


def test_fraction_keeps_the_first_training_images_and_all_others(drawn_dataset):
    given = settings(drawn_dataset, fraction=0.3)
    config = open_data(given)
    train, val = (read_split(config, split, given) for split in ("train", "val"))
    assert list(train.paths) == [str(path) for path in config.split_images("train")[:2]]
    assert len(val) == 4


def test_rare_classes_weigh_more_and_absent_ones_as_the_mean():
    data = TrainingData.__new__(TrainingData)
    data.train_annotations = SimpleNamespace(class_counts=lambda: np.array([1, 4, 0]))
    assert data.class_weights(0.0) is None
    weights = data.class_weights(0.5)
    assert weights.tolist() == pytest.approx([4 / 3, 2 / 3, 1.0])  # 1 : 1/2, and 3/4 between them


def test_loaders_have_the_batches_of_the_settings(drawn_dataset):
    data = TrainingData(settings(drawn_dataset))
    data.make_loaders(3, torch.device("cpu"))
    assert len(data.train_loader) == 3 and len(data.val_loader) == 1  # validation takes six images per batch
    data.close()


def test_an_epoch_has_the_images_and_steps_of_balance_and_background(drawn_dataset, caplog):
    caplog.set_level("INFO")
    data = TrainingData(settings(drawn_dataset, classes=[0], background=0.2, balance=1.0))
    counts = np.diff(data.train_annotations.offsets)
    objects = int((counts > 0).sum())
    assert 0 < objects < 8 and len(data.visits) == objects + int(objects * 0.25)
    data.make_loaders(2, torch.device("cpu"))
    assert len(data.train_loader) == -(-len(data.visits) // 2)
    indices = [index for batch in data.train_loader.batches(0) for index in batch.indices]
    assert len(indices) == len(data.visits)
    assert sum(counts[index] == 0 for index in indices) == int(objects * 0.25)
    assert f"background=0.2: {int(objects * 0.25)} of the {len(data.visits)} images per epoch" in caplog.text
    assert "balance=1 changes nothing" in caplog.text  # there is one class
    data.close()


def test_validation_is_square_without_rect(drawn_dataset):
    given = settings(drawn_dataset)
    annotations = read_split(open_data(given), "val", given)
    loader = make_val_loader(annotations, given, 4, 0, torch.device("cpu"), rect=False)
    (batch,) = loader
    assert batch.images.shape == (4, 3, 64, 64)


@pytest.mark.parametrize(
    ("workers", "device", "expected"), [(3, "cpu", 3), ("auto", "cpu", 0), ("auto", "cuda", 8)]
)
def test_workers_are_chosen_for_the_device(workers, device, expected, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert num_workers(workers, torch.device(device)) == expected


def test_a_path_of_a_data_set_is_saved_so_that_it_is_found_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "my.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert located_data("my.yaml") == str(tmp_path / "my.yaml")
    assert located_data(Path("my.yaml")) == str(tmp_path / "my.yaml")
    assert located_data("coco8.yaml") == "coco8.yaml"
    assert located_data(None) is None
    assert located_data("x" * 5000) == "x" * 5000


def test_weights_validate_from_another_folder_than_they_were_trained_in(
    train_tiny, drawn_dataset, tmp_path, monkeypatch
):
    monkeypatch.chdir(drawn_dataset.parent)
    best = train_tiny(data=drawn_dataset.name, epochs=1).trainer.best
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    metrics = YOLO(best).val(project=tmp_path, plots=False, workers=0, device="cpu")
    assert metrics.num_images == 4

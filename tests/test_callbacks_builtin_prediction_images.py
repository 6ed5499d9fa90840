from types import SimpleNamespace

import cv2
import pytest
import torch
from support.training import plain_trainer, play

from detector.callbacks.builtin.prediction_images import PredictionImages
from detector.data.batch import Batch
from detector.errors import CallbackError


class Recorder:
    """A logger that keeps what it is given."""

    def __init__(self):
        self.images = []

    def log_images(self, images, step):
        self.images.append((images, step))


def make_batch(names):
    count = len(names)
    return Batch(
        images=torch.full((count, 3, 64, 96), 128, dtype=torch.uint8),
        boxes=torch.tensor([[[8.0, 8, 40, 40]]]).repeat(count, 1, 1),
        labels=torch.zeros(count, 1, dtype=torch.int64),
        paths=names,
        indices=list(range(count)),
        ratios=torch.ones(count, 2),
        pads=torch.zeros(count, 2),
        sizes=torch.tensor([[64, 96]]).repeat(count, 1),
    )


def play_epoch(callback, folder, epoch, batches):
    """Play an epoch's validation over batches of named images; return what the logger was given."""
    logger = Recorder()

    def validate(trainer):
        for names in batches:
            batch = make_batch(names)
            preds = [torch.tensor([[50.0, 10, 90, 50, 0.9, 0]])] * len(names)
            callback.on_val_batch_end(SimpleNamespace(batch=batch, preds=preds, names={0: "disc"}))

    trainer = plain_trainer(start_epoch=epoch, save_dir=folder, loggers=[logger])
    play(callback, [None], trainer, watch={"on_train_epoch_end": validate})
    return logger.images


def test_truth_is_at_the_left_and_what_was_found_at_the_right(tmp_path):
    logged = play_epoch(PredictionImages(count=1), tmp_path, 2, [["a.jpg", "b.jpg"]])
    path = tmp_path / "predictions/epoch3.jpg"
    assert logged == [({"predictions": path}, 3)]
    drawn = cv2.imread(str(path)).astype(int)
    assert drawn.shape == (64, 192, 3)
    colourful = (drawn.max(2) - drawn.min(2)) > 60
    left, right = colourful[:, :96], colourful[:, 96:]
    assert left[38:43, 10:30].any()  # the lower edge of the true box
    assert right[48:53, 60:80].any()  # that of the detection
    assert not left[48:53, 60:80].any()
    assert not right[38:43, 10:30].any()


def test_images_are_taken_from_several_batches(tmp_path):
    callback = PredictionImages(count=3)
    play_epoch(callback, tmp_path, 0, [["a.jpg", "b.jpg"], ["c.jpg", "d.jpg"], ["e.jpg"]])
    assert cv2.imread(str(tmp_path / "predictions/epoch1.jpg")).shape == (128, 2 * 192, 3)  # 2 x 2, twice


def test_only_every_nth_epoch_is_drawn(tmp_path):
    callback = PredictionImages(every=2)
    for epoch in range(4):
        play_epoch(callback, tmp_path, epoch, [["a.jpg"]])
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["epoch2.jpg", "epoch4.jpg"]


def test_an_epoch_without_validation_has_none(tmp_path):
    assert play_epoch(PredictionImages(), tmp_path, 0, []) == []
    assert not (tmp_path / "predictions").exists()


def test_a_training_writes_one_image_per_epoch(train_tiny, tmp_path):
    logger = Recorder()
    listen = ("on_train_start", lambda trainer: setattr(trainer, "loggers", [logger]))
    train_tiny(listen, PredictionImages(count=2), batch=1)
    folder = tmp_path / "train/predictions"
    assert sorted(path.name for path in folder.iterdir()) == ["epoch1.jpg", "epoch2.jpg"]
    assert [step for _, step in logger.images] == [1, 2]


@pytest.mark.parametrize("arguments", [{"every": 0}, {"count": 0}, {"conf": -1}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(CallbackError, match=r"PredictionImages\(.*\): expected a"):
        PredictionImages(**arguments)

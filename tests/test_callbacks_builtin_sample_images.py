import errno
from types import SimpleNamespace

import cv2
import pytest
import torch

from detector import drawing
from detector.callbacks import Pictures
from detector.data.batch import Batch
from detector.errors import CallbackError


def make_batch():
    return Batch(
        images=torch.full((1, 3, 64, 96), 128, dtype=torch.uint8),
        boxes=torch.tensor([[[8.0, 8, 40, 40]]]),
        labels=torch.zeros(1, 1, dtype=torch.int64),
        paths=["a.jpg"],
        indices=[0],
        ratios=torch.ones(1, 2),
        pads=torch.zeros(1, 2),
        sizes=torch.tensor([[64, 96]]),
    )


def predicted(callback, folder, score):
    """Play a final validation with one detection of class 0; return whether its lower edge is drawn."""
    preds = [torch.tensor([[50.0, 10, 90, 50, score, 0]])]
    validator = SimpleNamespace(
        final=True, save_dir=folder, batch=make_batch(), preds=preds, names={0: "disc"}
    )
    callback.on_val_start(validator)
    callback.on_val_batch_end(validator)
    drawn = cv2.imread(str(folder / "val_batch0_pred.jpg"))  # 64 x 96 px, enlarged
    assert drawn.shape[1] == 320
    edge = drawn[50 * 320 // 96, 200:260].astype(int)
    return bool(abs(edge - 128).max() > 30)  # the image is grey, its JPEG nearly so


@pytest.mark.parametrize(
    ("conf", "score", "is_drawn"), [(0.25, 0.3, True), (0.25, 0.2, False), (0.1, 0.2, True)]
)
def test_detections_from_conf_on_are_drawn(tmp_path, conf, score, is_drawn):
    assert predicted(Pictures(conf), tmp_path, score) == is_drawn


def test_labels_and_predictions_of_the_first_batches_of_the_final_validation_are_drawn(tmp_path):
    callback = Pictures()
    validator = SimpleNamespace(
        final=False, save_dir=tmp_path, batch=make_batch(), preds=[torch.zeros(0, 6)], names={0: "disc"}
    )
    callback.on_val_start(validator)
    callback.on_val_batch_end(validator)
    assert list(tmp_path.iterdir()) == []
    validator.final = True
    for _ in range(5):
        callback.on_val_batch_end(validator)
    expected = [f"val_batch{n}_{kind}.jpg" for n in range(3) for kind in ("labels", "pred")]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected


@pytest.mark.parametrize("conf", [-0.1, "0.25", None])
def test_a_bad_conf_is_refused(conf):
    with pytest.raises(CallbackError, match=r"Pictures\(conf=.*\): expected a number >= 0"):
        Pictures(conf)


def test_a_training_continues_without_images_that_can_not_be_written(
    train_tiny, tmp_path, caplog, monkeypatch
):
    written = drawing.replace_file

    def fail(path, data):
        if path.suffix in (".jpg", ".png"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, data)

    monkeypatch.setattr(drawing, "replace_file", fail)
    model = train_tiny(epochs=1, plots=True)
    assert model.metrics is not None
    assert "The run continues without labels.jpg." in caplog.text
    assert "The run continues without train_batch0.jpg." in caplog.text
    assert "The run continues without its curves." in caplog.text

import pytest

from detector import YOLO
from detector.callbacks.builtin.progress_bar import summary
from detector.training.auto import batch_for, epochs_for


@pytest.mark.parametrize(("images", "batch"), [(1, 8), (319, 8), (320, 16), (10**6, 16)])
def test_a_small_data_set_has_small_batches(images, batch):
    assert batch_for(images) == batch


@pytest.mark.parametrize(("images", "epochs"), [(1, 300), (100, 300), (200, 150), (300, 100), (10**6, 50)])
def test_fewer_images_have_more_epochs(images, epochs):
    assert epochs_for(images) == epochs


def test_what_was_chosen_is_said_and_a_resumed_run_keeps_to_it(train_tiny, tiny_model, tmp_path):
    said, plans = [], []

    def look(trainer):
        said.append(summary(trainer).splitlines()[-1])
        plans.append((trainer.epochs, trainer.batch_size))

    def interrupt(trainer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tiny(("on_train_start", look), ("on_fit_epoch_end", interrupt), epochs="auto", batch="auto")
    assert said == ["recipe: 300 epochs of 1 batches of 8; MuSGD, lr0 0.02 "
                    "(epochs, batch, optimizer, lr0 chosen for 8 images and 300 steps)"]  # fmt: skip
    yolo = YOLO(tiny_model)
    yolo.add_callback("on_train_start", look)
    yolo.add_callback("on_fit_epoch_end", lambda trainer: setattr(trainer, "stop", True))
    yolo.train(resume=tmp_path / "train")
    assert plans == [(300, 8)] * 2


def test_what_was_given_is_not_said_to_be_chosen(train_tiny):
    said = []
    settings = {"optimizer": "AdamW", "lr0": 0.001, "epochs": 1, "batch": 8}
    train_tiny(("on_train_start", lambda trainer: said.append(summary(trainer).splitlines()[-1])), **settings)
    assert said == ["recipe: 1 epochs of 1 batches of 8; AdamW, lr0 0.001"]

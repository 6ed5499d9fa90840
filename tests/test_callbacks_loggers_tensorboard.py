"""TensorBoard's event file, read back with TensorBoard's own reader."""

import logging

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector import YOLO
from detector.callbacks.loggers.tensorboard import TensorBoardLogger
from detector.errors import DataError


def read(folder):
    reader = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    reader.Reload()
    return reader


def text(reader, tag):
    return reader.Tensors(tag)[-1].tensor_proto.string_val[0].decode()


def test_the_event_file_holds_the_whole_run(train_logged, tmp_path, caplog):
    caplog.set_level(logging.INFO, "detector.callbacks.loggers")
    seen = train_logged(tensorboard=True, project=tmp_path / "runs")
    reader = read(tmp_path / "runs/train")
    tags = reader.Tags()
    assert {tag for tag in tags["scalars"] if not tag.startswith("best/")} == set(seen[0])
    for tag in seen[0]:
        values = reader.Scalars(tag)
        assert [event.step for event in values] == [1, 2]
        assert [event.value for event in values] == pytest.approx([row[tag] for row in seen], rel=1e-6)
    assert [event.step for event in reader.Scalars("best/mAP50-95")] == [2]
    table = text(reader, "settings")
    assert "\n| epochs | 2 |" in table and "\n| model/parameters | " in table
    (image,) = reader.Images("pictures/results")
    assert image.encoded_image_string == (tmp_path / "runs/train/results.png").read_bytes()
    assert (image.step, image.width, image.height) == (2, 60, 40)
    assert text(reader, "weights") == str(tmp_path / "runs/train/weights/best.pt")
    assert text(reader, "state") == "finished: all 2 epochs are done"
    assert caplog.messages[-1] == f"TensorBoard: tensorboard --logdir {tmp_path / 'runs'}"


def test_a_broken_run_keeps_its_epochs(train_logged, tmp_path):
    def fail(trainer):
        if trainer.epoch == 1:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        train_logged(("on_train_batch_end", fail), tensorboard=True)
    reader = read(tmp_path / "train")
    assert [event.step for event in reader.Scalars("train/box_loss")] == [1]
    assert text(reader, "state") == "failed: RuntimeError: mine"


def test_a_run_that_breaks_in_its_first_epoch_says_so(train_logged, tmp_path):
    def stop(trainer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_logged(("on_train_batch_end", stop), tensorboard=True)
    reader = read(tmp_path / "train")
    assert text(reader, "state") == "killed: Ctrl-C" and "| epochs | 2 |" in text(reader, "settings")


def test_a_resumed_training_continues_its_curves(train_logged, tiny_model, tmp_path):
    """What an interrupted run had written of epochs that are trained once more is not shown twice."""

    def late(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt  # after the loggers, before the epoch is saved

    logger = TensorBoardLogger()

    def add_last(trainer):  # loggers come after all that is added before training
        trainer.add_callback("on_fit_epoch_end", late)

    with pytest.raises(KeyboardInterrupt):
        train_logged(logger, ("on_train_start", add_last), epochs=3)
    assert [event.step for event in read(tmp_path / "train").Scalars("train/box_loss")] == [1, 2]
    yolo = YOLO(tiny_model)
    yolo.add_callback(TensorBoardLogger())
    yolo.train(resume=tmp_path / "train")
    reader = read(tmp_path / "train")
    assert [event.step for event in reader.Scalars("train/box_loss")] == [1, 2, 3]
    assert text(reader, "state") == "finished: all 3 epochs are done"
    assert len(list((tmp_path / "train").glob("events.out.tfevents.*"))) == 2


def test_a_run_that_could_not_begin_leaves_no_folder(train_logged, tmp_path):
    with pytest.raises(DataError):
        train_logged(tensorboard=True, data=tmp_path / "none.yaml", project=tmp_path / "runs")
    assert not (tmp_path / "runs/train").exists()


def test_the_file_is_there_before_the_first_epoch_and_a_folder_that_cant_be_written_is_known(
    train_logged, tmp_path, caplog
):
    seen = []
    train_logged(
        ("on_train_epoch_start", lambda t: seen.append(list(t.save_dir.glob("events*")))), tensorboard=True, epochs=1,
        project=tmp_path / "runs",
    )  # fmt: skip
    assert len(seen[0]) == 1
    logger = TensorBoardLogger()
    train_logged(
        ("on_pretrain_routine_end", lambda t: setattr(logger, "folder", tmp_path / "gone")),
        ("on_train_epoch_start", lambda t: seen.append(logger.is_broken)), logger, epochs=1, project=tmp_path / "runs",
    )  # fmt: skip
    assert seen[1] is True and "TensorBoard failed and is left out of the rest of this run" in caplog.text


def test_texts_and_histograms_are_written_as_such(train_logged, tmp_path):
    def log_all(trainer):
        (logger,) = trainer.loggers
        logger.log_text("my/note", "hello", 1)
        logger.log_histogram("my/values", torch.tensor([[0.0, 1.0], [1.0, float("nan")]]), 1)

    train_logged(("on_train_end", log_all), tensorboard=True, epochs=1, project=tmp_path / "runs")
    reader = read(tmp_path / "runs/train")
    assert text(reader, "my/note") == "hello"
    (event,) = reader.Histograms("my/values")
    found = event.histogram_value
    assert event.step == 1 and (found.min, found.max, found.num) == (0, 1, 3)
    assert [count for count in found.bucket if count] == [1, 2] and found.bucket_limit[-1] == 1


def test_a_full_disk_ends_the_log_and_not_the_training(train_tiny, caplog, monkeypatch):
    logger = TensorBoardLogger()

    def no_space(data):
        raise OSError(28, "No space left on device")

    def fill(trainer):
        if trainer.epoch == 1:
            monkeypatch.setattr(logger.writer, "write", no_space)

    yolo = train_tiny(("on_train_epoch_start", fill), logger, plugins=False, loggers="none")
    assert yolo.metrics is not None
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith(
        "TensorBoard failed and is left out of the rest of this run: OSError: [Errno 28]"
    )

import copy
import logging
import pickle
import sys

import cv2
import numpy as np
import pytest
import torch
from support.models import write_tiny

from detector import YOLO
from detector.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from detector.errors import CheckpointError, SettingsError


def test_it_says_what_it_is(tiny_model, capsys):
    yolo = YOLO(tiny_model)
    assert repr(yolo) == f"YOLO({str(tiny_model)!r}, 80 classes)"
    assert yolo.device == torch.device("cpu") and yolo.names[79] == "class_79" and not yolo.trained
    info = yolo.info(64)
    assert info.parameters == sum(p.numel() for p in yolo.model.parameters())
    assert capsys.readouterr().out == f"{info}\n"


def test_load_takes_the_weights_of_another_checkpoint(trained, tiny_model):
    yolo = YOLO(tiny_model)
    assert yolo.load(trained.source) is yolo and yolo.trained
    mine, theirs = yolo.model.state_dict(), trained.model.state_dict()
    assert torch.equal(mine["model.0.conv.weight"], theirs["model.0.conv.weight"])
    class_rows = next(key for key in mine if key.endswith("cv3.0.2.weight"))
    assert mine[class_rows].shape != theirs[class_rows].shape  # 80 classes, none of them named as the six


def test_weights_of_which_nothing_fits_are_refused_and_nothing_is_changed(tiny_model, tmp_path):
    yolo = YOLO(tiny_model)
    before = {key: value.clone() for key, value in yolo.model.state_dict().items()}
    other = YOLO(write_tiny(tmp_path / "other.yaml"))
    content = {
        "model": other.model.config.to_dict(), "settings": {}, "epoch": 0, "metrics": {},
        "weights": {f"elsewhere.{key}": value for key, value in other.model.state_dict().items()},
    }  # fmt: skip
    save_checkpoint(tmp_path / "other.pt", content)
    with pytest.raises(
        CheckpointError, match=r"other\.pt: no weight fits this architecture; load it with YOLO"
    ):
        yolo.load(tmp_path / "other.pt")
    assert not yolo.trained
    assert all(torch.equal(value, before[key]) for key, value in yolo.model.state_dict().items())


def test_names_are_for_exported_files(tiny_model):
    with pytest.raises(SettingsError, match="names= and imgsz= are for exported files"):
        YOLO(tiny_model, names=["a"])


def test_messages_do_nothing_to_the_terminal(capsys, monkeypatch):
    from detector.messages import StderrHandler

    handler = StderrHandler()
    handler.emit(
        logging.LogRecord("detector", logging.INFO, "a.py", 1, "class %s\nnext", ("\x1b[2Jevil",), None)
    )
    assert capsys.readouterr().err == "class \\x1b[2Jevil\nnext\n"


def opened_again(yolo):
    """Copies of a model, by pickle and by copy."""
    return pickle.loads(pickle.dumps(yolo)), copy.deepcopy(yolo), copy.copy(yolo)


def test_a_model_pickles_and_copies_before_and_after_prediction_and_training(
    trained, sample_image, train_tiny
):
    opened_again(YOLO(trained.source))
    found = trained.predict(sample_image, imgsz=96, verbose=False)[0]
    for again in opened_again(trained):
        assert not again.predictor and again.trained
        assert torch.equal(
            again.predict(sample_image, imgsz=96, verbose=False)[0].boxes.data, found.boxes.data
        )
    done = train_tiny(model=trained, epochs=1)
    weights = done.model.state_dict()
    for again in opened_again(done):
        assert not again.trainer and again.source == done.source
        assert all(torch.equal(value, weights[key]) for key, value in again.model.state_dict().items())


def test_an_exported_model_pickles_and_copies_after_prediction(exported, sample_image, monkeypatch, tmp_path):
    yolo = YOLO(exported(format="torchscript"))
    found = yolo.predict(sample_image, verbose=False)[0]
    copies = opened_again(yolo)
    monkeypatch.chdir(tmp_path)
    for again in copies:
        assert torch.equal(again.predict(sample_image, verbose=False)[0].boxes.data, found.boxes.data)


def test_results_and_metrics_pickle_and_copy(trained, sample_image):
    result = trained.predict(sample_image, imgsz=96, verbose=False)[0]
    for again in opened_again(result):
        assert torch.equal(again.boxes.data, result.boxes.data) and again.names == result.names


def test_to_moves_the_model_and_its_later_runs(trained, sample_image):
    assert trained.to(torch.device("cpu")) is trained and trained.fuse() is trained
    trained.predict(sample_image, imgsz=96, verbose=False)
    assert trained.predictor.args.device == "cpu" and trained.device == torch.device("cpu")
    with pytest.raises(SettingsError, match="device=cuda:99: this machine has"):
        trained.to("cuda:99")


def test_info_may_be_silent(trained, capsys):
    assert trained.info(verbose=False).layers > 10
    assert capsys.readouterr().out == ""


def test_a_model_opens_with_the_task_of_a_copied_call(tiny_model):
    assert YOLO(tiny_model, task="detect", verbose=True).task == "detect"
    with pytest.raises(SettingsError, match="task=segment: only detection is available"):
        YOLO(tiny_model, task="segment")


def test_a_class_that_the_model_does_not_have_is_refused(trained, exported, sample_image):
    for yolo in (trained, YOLO(exported(format="torchscript"))):
        with pytest.raises(SettingsError, match="classes=9: the model has classes 0-5"):
            yolo.predict(sample_image, classes=[0, 9], verbose=False)


def test_weights_without_names_are_loaded_whole(trained, tmp_path):
    content = load_checkpoint(trained.source)
    del content["model"]["names"]
    save_checkpoint(tmp_path / "nameless.pt", content)
    again = YOLO(trained.source)
    for parameter in again.model.parameters():
        parameter.data.zero_()
    again.load(tmp_path / "nameless.pt")
    weights = again.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in trained.model.state_dict().items())


def test_settings_that_change_the_metrics_of_a_training_are_those_of_a_later_val(
    train_tiny, drawn_dataset, tmp_path
):
    done = train_tiny(epochs=1, conf=0.25, iou=0.5, max_det=7, agnostic_nms=True)
    again = YOLO(done.trainer.best)
    again.val(imgsz=64, workers=0, plots=False, project=tmp_path)
    kept = again.validator.suppression
    assert (kept.conf, kept.iou, kept.max_det, kept.agnostic) == (0.25, 0.5, 7, True)
    again.val(imgsz=64, workers=0, plots=False, project=tmp_path, iou=0.6, conf=None)
    assert (again.validator.suppression.conf, again.validator.suppression.iou) == (0.001, 0.6)


def test_a_list_of_results_that_keeps_much_memory_says_so_once(trained, tmp_path, caplog, monkeypatch):
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setattr("detector.yolo.MUCH_MEMORY", 2 * 64 * 64 * 3)
    images = [cv2.imread(str(tmp_path / "0.png"))] * 4
    trained.predict(images, imgsz=64, verbose=False)
    list(trained.predict(tmp_path, imgsz=64, verbose=False, stream=True))
    assert not caplog.messages
    trained.predict(tmp_path, imgsz=64, verbose=False)
    assert len(caplog.messages) == 1 and "predict(stream=True)" in caplog.text


def test_a_program_without_stderr_trains_and_predicts(train_tiny, sample_image, monkeypatch):
    root, package = logging.getLogger(), logging.getLogger("detector")
    for logger in (root, package):  # as in a program that has not set up logging
        monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(package, "propagate", True)
    monkeypatch.setattr(sys, "stderr", None)
    done = train_tiny(epochs=1, verbose=True)
    done.predict(sample_image, imgsz=64)
    assert len(package.handlers) == 1


def test_an_engine_before_its_first_run_says_what_to_use_instead(tiny_model):
    model = YOLO(tiny_model)
    assert not any((model.trainer, model.validator, model.predictor, model.exporter))
    with pytest.raises(
        AttributeError, match=r"^model\.trainer\.add_callback: there is no trainer before the first model\."
    ):
        model.trainer.add_callback("on_train_end", print)
    with pytest.raises(AttributeError, match=r"settings are arguments of train"):
        model.trainer.epochs = 3
    with pytest.raises(AttributeError, match=r"^model\.predictor\.results: there is no predictor before"):
        print(model.predictor.results)
    again = pickle.loads(pickle.dumps(copy.deepcopy(model.trainer)))
    assert not again and repr(again) == "no trainer yet"

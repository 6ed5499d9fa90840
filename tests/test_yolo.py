import logging

import pytest
import torch
from support.models import write_tiny

from detector import YOLO
from detector.checkpoints.checkpoint import save_checkpoint
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
    from detector.yolo import _Stderr

    handler = _Stderr()
    handler.emit(
        logging.LogRecord("detector", logging.INFO, "a.py", 1, "class %s\nnext", ("\x1b[2Jevil",), None)
    )
    assert capsys.readouterr().err == "class \\x1b[2Jevil\nnext\n"

"""Habits from elsewhere: settings files, calls and attribute reads that users of comparable trainers bring along."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from detector.cli import main
from detector.errors import SettingsError
from detector.settings import SETTINGS_OF, TrainSettings

SAME, OTHER_COMMAND, NO_EFFECT = "the same setting", "a setting of another command", "taken, no effect"

# Name, documented default (https://docs.ultralytics.com/usage/cfg/ and the pages of its modes), what a training does.
THEIR_SETTINGS = [
    ("task", "detect", NO_EFFECT), ("mode", "train", NO_EFFECT), ("model", None, SAME), ("data", None, SAME),
    ("epochs", 100, SAME), ("time", None, SAME), ("patience", 100, SAME), ("batch", 16, SAME),
    ("imgsz", 640, SAME), ("save", True, SAME), ("save_period", -1, SAME), ("cache", False, SAME),
    ("device", None, SAME), ("workers", 8, SAME), ("project", None, SAME), ("name", None, SAME),
    ("exist_ok", False, SAME), ("pretrained", True, SAME), ("optimizer", "auto", SAME), ("verbose", True, SAME),
    ("seed", 0, SAME), ("deterministic", True, SAME), ("single_cls", False, SAME), ("rect", False, SAME),
    ("cos_lr", False, SAME), ("close_mosaic", 10, SAME), ("resume", False, SAME), ("amp", True, SAME),
    ("fraction", 1.0, SAME), ("profile", False, NO_EFFECT), ("freeze", None, SAME), ("multi_scale", False, SAME),
    ("compile", False, NO_EFFECT), ("overlap_mask", True, NO_EFFECT), ("mask_ratio", 4, NO_EFFECT),
    ("dropout", 0.0, NO_EFFECT), ("val", True, SAME), ("split", "val", SAME),
    ("save_json", False, OTHER_COMMAND), ("save_hybrid", False, NO_EFFECT), ("conf", None, SAME), ("iou", 0.7, SAME),
    ("max_det", 300, SAME), ("half", False, NO_EFFECT), ("dnn", False, NO_EFFECT), ("plots", True, SAME),
    ("end2end", None, NO_EFFECT), ("source", None, OTHER_COMMAND), ("vid_stride", 1, NO_EFFECT),
    ("stream_buffer", False, NO_EFFECT), ("visualize", False, NO_EFFECT), ("augment", False, NO_EFFECT),
    ("agnostic_nms", False, SAME), ("classes", None, SAME), ("retina_masks", False, NO_EFFECT),
    ("embed", None, NO_EFFECT), ("show", False, OTHER_COMMAND), ("save_frames", False, NO_EFFECT),
    ("save_txt", False, OTHER_COMMAND), ("save_conf", False, OTHER_COMMAND), ("save_crop", False, OTHER_COMMAND),
    ("show_labels", True, OTHER_COMMAND), ("show_conf", True, OTHER_COMMAND), ("show_boxes", True, OTHER_COMMAND),
    ("line_width", None, OTHER_COMMAND), ("format", "torchscript", NO_EFFECT), ("keras", False, NO_EFFECT),
    ("optimize", False, NO_EFFECT), ("int8", False, NO_EFFECT), ("dynamic", False, OTHER_COMMAND),
    ("simplify", True, OTHER_COMMAND), ("opset", None, OTHER_COMMAND), ("workspace", None, NO_EFFECT),
    ("nms", False, NO_EFFECT), ("lr0", 0.01, SAME), ("lrf", 0.01, SAME), ("momentum", 0.937, SAME),
    ("weight_decay", 0.0005, SAME), ("warmup_epochs", 3.0, SAME), ("warmup_momentum", 0.8, SAME),
    ("warmup_bias_lr", 0.1, SAME), ("box", 7.5, SAME), ("cls", 0.5, SAME), ("cls_pw", 0.0, SAME), ("dfl", 1.5, SAME),
    ("pose", 12.0, NO_EFFECT), ("kobj", 1.0, NO_EFFECT), ("rle", 1.0, NO_EFFECT), ("angle", 1.0, NO_EFFECT),
    ("nbs", 64, SAME), ("hsv_h", 0.015, SAME), ("hsv_s", 0.7, SAME), ("hsv_v", 0.4, SAME), ("degrees", 0.0, SAME),
    ("translate", 0.1, SAME), ("scale", 0.5, SAME), ("shear", 0.0, SAME), ("perspective", 0.0, SAME),
    ("flipud", 0.0, SAME), ("fliplr", 0.5, SAME), ("bgr", 0.0, SAME), ("mosaic", 1.0, SAME), ("mixup", 0.0, SAME),
    ("cutmix", 0.0, SAME), ("copy_paste", 0.0, SAME), ("copy_paste_mode", "flip", NO_EFFECT),
    ("auto_augment", "randaugment", NO_EFFECT), ("erasing", 0.4, NO_EFFECT), ("crop_fraction", 1.0, NO_EFFECT),
    ("augmentations", None, NO_EFFECT), ("cfg", None, NO_EFFECT), ("tracker", "botsort.yaml", NO_EFFECT),
    ("save_dir", "runs/detect/train", NO_EFFECT),
]  # fmt: skip

# Name, a value that asks for something, what the refusal says.
ON = [
    ("augment", True, "there is no test-time augmentation"), ("half", True, "use amp=fp16"),
    ("task", "segment", "only task=detect"),
    ("mode", "track", "the method or the command says"), ("dnn", True, "format=onnx"), ("profile", True, "benchmark"),
    ("embed", [3], "forward hook"), ("vid_stride", 2, "extract frames"), ("visualize", True, "callback"),
    ("end2end", True, "nms=false"), ("compile", True, "val, predict and benchmark take compile="),
    ("image_weights", True, "use balance= .* or cls_pw="),
]  # fmt: skip


def test_every_setting_of_the_table_is_there_once():
    names = [name for name, _, _ in THEIR_SETTINGS]
    assert len(names) == len(set(names)) == 113


def test_a_settings_file_at_default_values_is_taken_whole():
    settings = TrainSettings.parse({name: value for name, value, _ in THEIR_SETTINGS})
    unused = {text.partition("=")[0] for text in settings.unused}
    assert unused == {name for name, _, effect in THEIR_SETTINGS if effect is not SAME}
    assert (settings.device, settings.project, settings.multi_scale, settings.nms) == (
        "auto",
        "runs",
        0.0,
        None,
    )
    assert settings.cache is False and settings.warmup_bias_lr == 0.1


def test_a_settings_file_that_switches_copy_paste_and_cutmix_on_is_taken():
    theirs = {name: value for name, value, _ in THEIR_SETTINGS}
    settings = TrainSettings.parse(theirs | {"copy_paste": 0.3, "copy_paste_mode": "mixup", "cutmix": 1})
    assert (settings.copy_paste, settings.cutmix) == (0.3, 1.0)
    assert {"copy_paste_mode=mixup"} == {text for text in settings.unused if "copy" in text or "cut" in text}
    off = TrainSettings.parse({"copy_paste": False, "cutmix": None})
    assert (off.copy_paste, off.cutmix) == (0.0, 0.0)
    with pytest.raises(SettingsError, match="copy_paste=2: expected float >= 0 and <= 1"):
        TrainSettings.parse({"copy_paste": 2})


@pytest.mark.parametrize("engine", ["train", "val", "predict", "export"])
def test_the_same_file_serves_every_command(engine):
    assert (
        SETTINGS_OF[engine]
        .parse({}, {name: value for name, value, _ in THEIR_SETTINGS if name != "imgsz"})
        .unused
    )


@pytest.mark.parametrize(("name", "value", "instead"), ON)
def test_what_is_switched_on_and_not_here_is_refused_with_what_to_use(name, value, instead):
    with pytest.raises(SettingsError, match=f"^{name}=.*: not available in train; .*{instead}"):
        TrainSettings.parse({name: value})
    with pytest.raises(SettingsError, match=f"^{name}="):
        TrainSettings.parse({"task": "detect", "mode": "train"} | {name: value})


def test_a_copied_call_takes_settings_of_another_command_only_at_their_defaults():
    assert SETTINGS_OF["predict"].parse({"epochs": 100, "half": False}).unused == ["epochs=100", "half=false"]
    with pytest.raises(SettingsError, match="'epochs' belongs to train, not to predict"):
        SETTINGS_OF["predict"].parse({"epochs": 3})
    with pytest.raises(SettingsError, match="'boxes' is called 'show_boxes' here"):
        SETTINGS_OF["predict"].parse({"boxes": False})


@pytest.mark.parametrize(
    ("engine", "key", "given", "kept"),
    [
        ("train", "device", torch.device("cpu"), "cpu"), ("train", "device", torch.device("cuda", 1), "cuda:1"),
        ("train", "device", None, "auto"), ("train", "device", "", "auto"), ("train", "project", None, "runs"),
        ("train", "imgsz", np.int64(64), 64), ("train", "imgsz", torch.tensor(64), 64), ("train", "imgsz", 64.0, 64),
        ("val", "imgsz", (64, 64), 64), ("val", "imgsz", [64], 64), ("predict", "imgsz", np.array([64, 96]), [64, 96]),
        ("train", "name", 0, "0"), ("train", "name", Path("mine"), "mine"), ("train", "multi_scale", False, 0.0),
        ("export", "format", "ONNX", "onnx"), ("train", "amp", "BF16", "bf16"), ("train", "optimizer", "sgd", "SGD"),
        ("train", "lr0", np.float64(0.25), 0.25), ("train", "lr0", Decimal("0.25"), 0.25),
        ("train", "lr0", Fraction(1, 4), 0.25), ("train", "lr0", np.array(0.25), 0.25),
        ("train", "freeze", (0, "cv2"), [0, "cv2"]), ("train", "freeze", False, None),
        ("val", "classes", range(2), [0, 1]),
        ("val", "classes", np.array([0, 2]), [0, 2]), ("val", "classes", {3}, [3]),
        ("val", "classes", np.int32(3), [3]),
        ("train", "scale", np.array([0.5, 1.5]), (0.5, 1.5)), ("train", "plots", np.bool_(False), False),
        ("train", "plots", 0, False), ("train", "batch", np.int64(4), 4),
        ("predict", "names", {0: "a", 1: "b"}, ["a", "b"]),
    ],
)  # fmt: skip
def test_the_same_value_in_another_python_type_is_the_same_value(engine, key, given, kept):
    settings = SETTINGS_OF[engine].parse({key: given})
    assert getattr(settings, key) == kept and type(getattr(settings, key)) is type(kept)
    setattr(settings, key, given)
    assert getattr(settings, key) == kept and type(getattr(settings, key)) is type(kept)


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("imgsz", [64, 96, 3], r"imgsz=\[64,96,3\]: expected one side or \[height, width\]"),
        ("epochs", 2.5, "epochs=2.5: expected int | auto"), ("epochs", "3", "epochs='3': expected int | auto"),
        ("classes", ["0"], r"classes=\['0'\]: expected list of int | none"),
        ("multi_scale", True, "multi_scale=true: expected a fraction of the input size; try multi_scale=0.5"),
        ("plots", 2, "plots=2: expected true | false"), ("name", True, "name=true: expected text"),
    ],
)  # fmt: skip
def test_another_value_stays_refused(key, given, message):
    with pytest.raises(SettingsError, match=message):
        TrainSettings.parse({key: given})


def test_a_cfg_file_holds_settings_of_all_commands(tmp_path, capsys, trained):
    cfg = tmp_path / "mine.yaml"
    cfg.write_text(yaml.safe_dump({"epochs": 7, "conf": 0.5, "half": True, "augment": False}))
    (tmp_path / "images").mkdir()
    trained.predict(np.zeros((64, 64, 3), np.uint8), cfg=cfg, project=tmp_path)
    assert trained.predictor.args.conf == 0.5
    assert trained.predictor.args.unused == ["augment=false", "epochs=7", "half=true"]
    assert main(["predict", f"cfg={cfg}", "model=x.pt", "epoch=3"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "error: unknown setting 'epoch'; see: detector predict --help"
    )

"""Starter weights: what a training of a bare architecture begins with."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from detector import YOLO
from detector.checkpoints import starter
from detector.errors import CheckpointError, SettingsError
from detector.files.digest import file_sha256
from detector.nn.config import load_model_config

LINE = "starting from the starter weights; pretrained=false for random ones"


@pytest.fixture
def starters(tiny_model, tmp_path, monkeypatch):
    """Path of starter weights of the tiny architecture, made with four classes."""
    monkeypatch.setattr(starter, "FOLDER", tmp_path / "starters")
    starter.FOLDER.mkdir()
    torch.manual_seed(5)
    return YOLO(named(tmp_path, "a, b, c, d", tiny_model.read_text())).save(starter.starter_path("tinyn"))


def named(folder, names, table):
    """Write an architecture `tiny` with class names."""
    path = folder / "named/tiny.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"names: [{names}]\n{table}")
    return path


def taken(train_tiny, weights, **settings):
    """Train, and return which tensors of a file the training began with, and its trainer."""
    first = {}

    def note(trainer):
        first.update({name: value.clone() for name, value in trainer.model.state_dict().items()})

    trainer = train_tiny(("on_train_start", note), epochs=1, **settings).trainer
    theirs = YOLO(weights).model.state_dict()
    same = {name for name, value in theirs.items() if value.is_floating_point() and first[name].equal(value)}
    return {name for name in same if name.endswith("conv.weight")}, trainer


@pytest.mark.parametrize("given", [{}, {"pretrained": "starter"}])
def test_a_bare_architecture_starts_from_them(starters, train_tiny, caplog, given):
    caplog.set_level(logging.INFO, "detector")
    names, trainer = taken(train_tiny, starters, **given)
    assert {f"model.{i}.conv.weight" for i in range(5)} <= names
    assert trainer.origin["name"] == "starter-tinyn.safetensors"
    assert caplog.text.count(LINE) == (not given)


def test_random_ones_where_they_are_asked_for_or_weights_are_there(starters, train_tiny, caplog):
    caplog.set_level(logging.INFO, "detector")
    names, trainer = taken(train_tiny, starters, pretrained=False)
    assert (names, trainer.origin) == ({"model.5.dfl.conv.weight"}, None)  # the same in every network
    trained = YOLO(trainer.final_weights)
    _, again = taken(train_tiny, starters, model=trained)
    assert again.origin["name"] == "best.pt" and again.origin["chain"] == []
    assert LINE not in caplog.text


def test_another_architecture_of_the_name_has_none(starters, tiny_model, train_tiny):
    tiny_model.write_text(tiny_model.read_text().replace("Conv, [24, 3, 2]", "Conv, [40, 3, 2]"))
    trainer = train_tiny(model=tiny_model, epochs=1).trainer
    assert trainer.origin is None
    with pytest.raises(SettingsError, match="starter weights for tinyn, not for tinyn"):
        train_tiny(model=tiny_model, pretrained="starter")


def test_where_there_are_none_the_models_are_named(starters, tiny_dual_model, train_tiny):
    with pytest.raises(SettingsError, match=r"for tinyn, not for tiny_dualn; .*pretrained=false"):
        train_tiny(model=tiny_dual_model, pretrained="starter")


def test_a_damaged_file_is_an_error(starters, train_tiny):
    starters.write_bytes(starters.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="starter-tinyn"):
        train_tiny()


@pytest.mark.parametrize("path", sorted(starter.FOLDER.glob("*.safetensors")), ids=lambda path: path.stem)
def test_what_is_shipped_is_what_its_card_says(path):
    model = path.stem.removeprefix("starter-")
    content = starter.read_starter_weights(load_model_config(model, 3))
    card = json.loads(path.with_suffix(".json").read_text())["file"]
    assert (card["sha256"], card["bytes"]) == (file_sha256(path), path.stat().st_size)
    assert content["origin"]["licence"] == card["licence"] == "Apache-2.0"
    assert all(bool(value.isfinite().all()) for value in content["weights"].values())
    assert f"sha256: {card['sha256']}" in path.with_suffix(".md").read_text()


@pytest.mark.parametrize("model", ["yolov8n", "yolo11n", "yolo26n"])
def test_the_smallest_network_of_every_family_has_them(model):
    assert starter.starter_path(model).is_file()

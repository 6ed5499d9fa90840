"""Pretraining on scenes of drawn motifs, and its benchmark, on very little."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from support.teachers import Maps

from detector import YOLO
from detector.checkpoints.checkpoint import read_weights
from detector.files.digest import file_sha256

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def starter(tiny_model, monkeypatch, capsys):
    """Return the module, and a function that runs it for 3 epochs of 2 images."""
    monkeypatch.syspath_prepend(ROOT)
    from tools import starter

    monkeypatch.setattr(starter, "VAL_SCENES", 1)
    monkeypatch.setattr(starter, "MIN_EPOCHS", 3)

    def run(output, *arguments):
        sizes = {"--model": tiny_model, "--images": 6, "--imgsz": 64, "--batch": 2, "--classes": 4}
        words = [str(word) for pair in sizes.items() for word in pair]
        settings = ["device=cpu", "workers=0", "verbose=false", "plugins=false"]
        code = starter.main([*words, "--output", str(output), *settings, *arguments])
        return code, capsys.readouterr()

    return starter, run


def watched(epochs, last=None):
    """Return what makes a model that notes the epochs it trains, and is interrupted in the epoch `last`."""

    def note(trainer):
        epochs.append(trainer.epoch)
        if trainer.epoch == last:
            raise KeyboardInterrupt

    def make(name):
        yolo = YOLO(name)
        yolo.add_callback("on_train_batch_start", note)
        return yolo

    return make


@pytest.mark.parametrize("further", [[], ["--teacher"]])
def test_an_interrupted_pretraining_resumes_to_the_same_bytes(starter, tmp_path, monkeypatch, further):
    module, started = starter
    monkeypatch.setattr(module, "FeatureTeacher", partial(module.FeatureTeacher, teacher=Maps()))

    def run(output, *arguments):
        return started(output, *further, *arguments)

    code, printed = run(tmp_path / "whole")
    whole = tmp_path / "whole/starter-tiny.safetensors"
    assert (code, printed.out.splitlines()[-1]) == (0, str(whole))
    epochs: list[int] = []
    monkeypatch.setattr(module, "YOLO", watched(epochs, last=1))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "twice")
    assert not (tmp_path / "twice/starter-tiny.safetensors").exists()
    monkeypatch.setattr(module, "YOLO", watched(epochs))
    assert run(tmp_path / "twice")[0] == 0
    assert epochs == [0, 1, 1, 2]
    first, second = (read_weights(tmp_path / name / whole.name)["weights"] for name in ("whole", "twice"))
    assert all(first[name].equal(second[name]) for name in first) and len(first) == len(second)

    before = whole.read_bytes()
    assert run(tmp_path / "whole")[0] == 0  # complete: writes the same file again
    assert whole.read_bytes() == before

    code, printed = run(tmp_path / "whole", "--images", "9")
    assert code == 2 and "was begun with --images 6" in printed.err


def test_the_weights_and_their_card_say_what_they_are_and_start_a_training(starter, tmp_path, train_tiny):
    _, run = starter
    assert run(tmp_path / "made")[0] == 0
    weights = tmp_path / "made/starter-tiny.safetensors"
    content = read_weights(weights)
    assert {str(value.dtype) for value in content["weights"].values()} == {"torch.float16", "torch.int64"}
    assert (content["origin"]["name"], content["origin"]["licence"]) == (weights.name, "Apache-2.0")
    assert str(tmp_path) not in json.dumps({key: content[key] for key in ("settings", "metrics", "origin")})

    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["file"]["sha256"] == file_sha256(weights)
    assert card["recipe"]["images"] == 6
    assert card["recipe"]["images seen"] == 2 * (content["epoch"] + 1)
    assert "further settings" not in card["recipe"]
    assert f"sha256: {card['file']['sha256']}" in weights.with_suffix(".md").read_text()
    assert "not for detection as they are" in card["limits"]

    trained = train_tiny(pretrained=weights, epochs=1)
    assert trained.ckpt["origin"]["licence"] is None  # its owner's to choose
    links = {link["name"]: link["licence"] for link in trained.ckpt["origin"]["chain"]}
    assert links[weights.name] == "Apache-2.0"


def test_a_second_pretraining_begins_with_the_first_ones_weights(starter, tmp_path, train_tiny):
    _, run = starter
    assert run(tmp_path / "first")[0] == 0
    weights = tmp_path / "first/starter-tiny.safetensors"
    first = json.loads(weights.with_suffix(".json").read_text())
    first["ingredients"]["teacher"] = "somebody"
    weights.with_suffix(".json").write_text(json.dumps(first))
    code, printed = run(tmp_path / "second", "--weights", str(weights), "--seed", "1")
    assert code == 0, printed.err
    made = tmp_path / "second" / weights.name
    links = [link["name"] for link in read_weights(made)["origin"]["chain"]]
    assert links == ["best.pt", weights.name, "best.pt"]
    card = json.loads(made.with_suffix(".json").read_text())
    assert card["ingredients"]["weights before"].startswith(
        f"{weights.name} (SHA-256 {file_sha256(weights)[:8]}"
    )
    assert card["ingredients"]["teacher"] == "somebody"  # what is in the first is in the second
    assert card["recipe of the weights before"] == first["recipe"]
    assert str(tmp_path) not in json.dumps(card)

    weights.with_suffix(".json").write_text("{}")
    code, printed = run(tmp_path / "third", "--weights", str(weights))
    assert code == 2 and "starter-tiny.json next to it is not its model card" in printed.err
    code, printed = run(tmp_path / "third", "--weights", str(train_tiny(epochs=1).trainer.best))
    assert code == 2 and "licence of best.pt is not stated" in printed.err
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        (("--images", "2"), "--images 2: expected 3 or more"),
        (("--classes", "301"), "--classes 301: expected 1 to 300"),
    ],
)
def test_wrong_numbers_are_refused(starter, tmp_path, capsys, wrong, answer):
    with pytest.raises(SystemExit):
        starter[1](tmp_path / "made", *wrong)
    assert answer in capsys.readouterr().err


def test_a_setting_that_the_licence_or_the_scenes_depend_on_is_refused(starter, tmp_path):
    code, printed = starter[1](tmp_path / "made", "transforms=mine.py:change", "pretrained=yolo11n.pt")
    assert code == 2
    assert printed.err == "pretrained, transforms: set by the pretraining and its options; leave them out\n"


def test_the_card_names_every_other_setting_that_changes_what_is_learned(starter, tmp_path):
    words = ["box=0", "cls=0", "dfl=0", "fitness=-val/loss"]  # a network that learns nothing of the scenes
    assert starter[1](tmp_path / "made", *words)[0] == 0
    recipe = json.loads((tmp_path / "made/starter-tiny.json").read_text())["recipe"]
    assert recipe["further settings"] == {"fitness": "-val/loss", "box": 0, "cls": 0, "dfl": 0}
    assert recipe["images seen"] == 6  # of equals the last epoch is the best

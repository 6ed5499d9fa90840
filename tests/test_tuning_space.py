import optuna
import pytest

from detector.errors import SettingsError
from detector.settings import TrainSettings
from detector.tuning.space import load_space, tunable


def test_a_space_file_is_read_and_drawn_from(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "lr0: {log: [1e-4, 0.1], first: 1e-2}\nmosaic: {uniform: [0, 1, 0.25]}\nimgsz: {int: [64, 128, 32]}\n"
        "optimizer: {choice: [SGD, AdamW]}\ncos_lr: {choice: [true, false]}\n"
    )
    space = load_space(path)
    assert space.plain["lr0"] == {"log": [0.0001, 0.1]}
    assert space.first() == {"lr0": 0.01, "mosaic": 1.0, "cos_lr": False}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        drawn = space.suggest(study.ask())
        assert 0.0001 <= drawn["lr0"] <= 0.1 and drawn["mosaic"] * 4 in range(5)
        assert drawn["imgsz"] in (64, 96, 128) and drawn["optimizer"] in ("SGD", "AdamW")
        TrainSettings.parse(drawn)


def test_the_packaged_space_varies_what_matters_around_the_defaults():
    space = load_space(None)
    assert {"optimizer", "lr0", "weight_decay", "box", "cls", "mosaic", "scale"} <= set(space.parameters)
    assert not {"flipud", "fliplr", "momentum", "batch", "imgsz", "epochs"} & set(space.parameters)
    defaults = {name: TrainSettings.model_fields[name].default for name in space.parameters}
    assert space.first() == defaults | {"lr0": 0.01}


def test_the_packaged_space_leaves_alone_what_was_given():
    assert "lr0" not in load_space(None, ["lr0", "data"]).parameters
    with pytest.raises(
        SettingsError, match="lr0 is to be varied, but is also given a value; leave one of them out"
    ):
        load_space({"lr0": {"log": [0.01, 0.1]}}, ["lr0"])
    with pytest.raises(SettingsError, match="every setting in it was given a value"):
        load_space(None, tunable())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"mosiac": {"uniform": [0, 1]}}, "unknown setting 'mosiac'; did you mean 'mosaic'?"),
        ({"data": {"choice": ["a", "b"]}}, "data can't be tuned"),
        ({"seed": {"int": [0, 9]}}, "seed can't be tuned"),
        ({"lr0": {"logg": [1, 2]}}, "lr0: logg: expected one of uniform, log, int, choice; did you mean 'log'?"),
        ({"lr0": {}}, "lr0: nothing: expected one of uniform, log, int, choice, such as lr0"),
        ({"lr0": 0.1}, "lr0: 0.1: expected {kind: values}"),
        ({"lr0": {"log": [0.1, 0.01]}}, r"lr0: log=\[0.1,0.01\]: expected minimum and maximum"),
        ({"lr0": {"log": [0, 0.1]}}, "expected a minimum above 0"),
        ({"lr0": {"log": [0.01, float("inf")]}}, "expected minimum and maximum"),
        ({"lr0": {"uniform": [0.1, 0.5, 0.3]}}, "1.33333 steps; expected a whole number of them"),
        ({"mosaic": {"uniform": [0, 1.5]}}, "mosaic=1.5: expected float >= 0 and <= 1"),
        ({"imgsz": {"int": [64, 128]}}, "expected a multiple of 32"),
        ({"epochs": {"uniform": [3, 9]}}, r"epochs: takes no fractions; write epochs: {int: \[3,9\]}"),
        ({"epochs": {"int": [3, 9.5]}}, "expected whole numbers"),
        ({"optimizer": {"choice": ["SGD", "AdamV"]}}, "optimizer=AdamV: expected one of .*did you mean 'Adam'"),
        ({"optimizer": {"choice": ["SGD", "SGD"]}}, "a value is there twice"),
        ({"scale": {"choice": [[0.5, 1.5]]}}, "expected a list of at most 100 numbers, texts, true, false and null"),
        ({"lr0": {"log": [0.001, 0.01], "first": 1}}, r"lr0: first=1: expected a value of log=\[0.001,0.01\]"),
        ({}, "expected lines of 'setting: {kind: values}'"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_one_clear_sentence(entry, message):
    with pytest.raises(SettingsError, match=message) as caught:
        load_space(entry)
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).startswith("space: ")


def test_every_wrong_entry_is_reported_and_the_file_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lr: {log: [1, 2]}\nbox: {log: [0, 1]}\n")
    with pytest.raises(SettingsError) as caught:
        load_space(path)
    assert [line.startswith(f"{path}: ") for line in str(caught.value).splitlines()] == [True, True]
    with pytest.raises(SettingsError, match="can't be read"):
        load_space(tmp_path / "none.yaml")
    path.write_text("lr0: {log: [")
    with pytest.raises(SettingsError, match="is not YAML"):
        load_space(path)

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from detector.errors import SettingsError
from detector.fields import type_text
from detector.files.folders import resource_dir
from detector.reference import default_yaml, settings_markdown
from detector.settings import SETTINGS_OF, PredictSettings, TrainSettings, ValSettings, fold_of

BATCH = "expected auto, a whole number >= 1, -1, or a fraction of GPU memory in 0..1; try batch=16"
SCALE = "expected a number in 0..1 or two numbers, 0 < minimum <= maximum; try scale=0.5"


def test_defaults_are_valid():
    for kind in SETTINGS_OF.values():
        assert kind.parse({}) == kind()


def test_unknown_settings_are_named_all_at_once_with_the_nearest():
    with pytest.raises(SettingsError) as caught:
        TrainSettings.parse({"epoch": 3, "lr": 0.1, "imgsz": 650})
    assert str(caught.value).splitlines() == [
        "unknown setting 'epoch'; did you mean 'epochs'?",
        "unknown setting 'lr'; did you mean 'lrf'?",
        "imgsz=650: expected a multiple of 32; try imgsz=640",
    ]


def test_a_setting_of_another_engine_is_recognised():
    with pytest.raises(SettingsError, match="'epochs' belongs to train, not to predict"):
        PredictSettings.parse({"epochs": 3})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": "three"}, "epochs=three: expected int | auto; the default is epochs=100"),
        ({"epochs": True}, "epochs=true: expected int | auto; the default is epochs=100"),
        ({"epochs": 0}, "epochs=0: expected auto or a whole number >= 1; try epochs=100"),
        ({"close_mosaic": 2.5}, "close_mosaic=2.5: expected a whole number of epochs, or a part of the run in 0..1; "
                                "try close_mosaic=10"),
        ({"batch": 0}, f"batch=0: {BATCH}"),
        ({"batch": 2.5}, f"batch=2.5: {BATCH}"),
        ({"workers": -1}, "workers=-1: expected auto or a whole number >= 0; try workers=auto"),
        ({"mosaic": 1.5}, "mosaic=1.5: expected float >= 0 and <= 1; the default is mosaic=1.0"),
        ({"scale": [1, 0.5]}, f"scale=[1,0.5]: {SCALE}"),
        ({"amp": "fast"}, "amp=fast: expected true | false | auto | bf16 | fp16 | fp32; the default is amp=auto"),
    ],
)  # fmt: skip
def test_a_bad_value_gets_one_sentence(given, message):
    with pytest.raises(SettingsError) as caught:
        TrainSettings.parse(given)
    assert str(caught.value) == message


def test_optimizer_names_ignore_case_and_get_a_hint():
    assert TrainSettings.parse({"optimizer": "adamw"}).optimizer == "AdamW"
    with pytest.raises(SettingsError, match="did you mean 'AdamW'"):
        TrainSettings.parse({"optimizer": "AdmW"})


def test_predict_takes_one_side_or_two():
    assert PredictSettings.parse({"imgsz": (640, 320)}).imgsz == [640, 320]
    with pytest.raises(SettingsError, match=r"try imgsz=\[640,320\]"):
        PredictSettings.parse({"imgsz": [640, 333]})


def test_changes_by_attribute_are_checked_too():
    settings = TrainSettings()
    settings.mosaic = 0.5
    with pytest.raises(ValueError, match="less than or equal to 1"):
        settings.mosaic = 7


def test_one_class_may_stand_for_a_list():
    assert TrainSettings.parse({"classes": 3}).classes == [3]


def test_every_setting_is_documented():
    for kind in SETTINGS_OF.values():
        for name, field in kind.model_fields.items():
            assert field.description, name
            assert "theme" in field.json_schema_extra, name
            assert "any" not in type_text(field) or name == "source", name


def test_the_written_files_are_up_to_date():
    """`make cfg docs` writes them."""
    cfg = resource_dir("cfg")
    assert (cfg / "default.yaml").read_text(encoding="utf-8") == default_yaml()
    docs = cfg.parent / "docs" / "settings.md"
    if docs.exists():  # not in an installed package
        assert docs.read_text(encoding="utf-8") == settings_markdown()
    content = yaml.safe_load(default_yaml())
    assert {k: content[k] for k in ("epochs", "imgsz", "amp", "lr0")} == {
        "epochs": 100, "imgsz": 640, "amp": "auto", "lr0": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "kept"),
    [(None, "none"), ("none", "none"), ("mlflow, comet", ["mlflow", "comet"]), (["wandb"], ["wandb"])],
)
def test_loggers_are_auto_none_or_names(given, kept):
    assert TrainSettings.parse({"loggers": given}).loggers == kept


def test_a_value_of_any_length_is_shown_on_one_line():
    loop: list[object] = []
    loop.append(loop)
    for value in ("x" * 100_000, list(range(100_000)), b"x" * 100_000, loop):
        with pytest.raises(SettingsError) as caught:
            TrainSettings.parse({"epochs": value})
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr0", math.inf, "lr0=inf: expected a finite number, float | none > 0"),
        ("weight_decay", math.nan, "weight_decay=nan: expected"),
        ("batch", math.inf, "batch=inf: expected"),
        ("close_mosaic", math.inf, "close_mosaic=inf: expected"),
        ("scale", (0.5, math.inf), "scale=[0.5,inf]: expected"),
        ("time", math.inf, "time=inf: expected"),
        ("cls_pw", 10.0, "cls_pw=10.0: expected float >= 0 and <= 2"),
    ],
)
def test_a_number_that_is_not_finite_or_absurd_is_refused_at_the_start(key, value, message):
    with pytest.raises(SettingsError) as caught:
        TrainSettings.parse({key: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "names"), [("cat", ["cat"]), ("cat, dog", ["cat", "dog"]), (["cat"], ["cat"])]
)
def test_one_class_name_is_a_list_of_one(given, names):
    assert PredictSettings.parse({"names": given}).names == names


def test_a_number_that_no_file_can_hold_is_refused_at_once():
    with pytest.raises(SettingsError, match=r"patience=1000.*: expected a smaller number"):
        TrainSettings.parse({"patience": 10**700})


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (Path("a.yaml"), Path("a.yaml")),
        (("a.yaml", 2024), ["a.yaml", "2024"]),
        (
            [Path("a"), {"train": Path("b"), "names": ("x", "y")}],
            [Path("a"), {"train": "b", "names": ["x", "y"]}],
        ),
        ({"train": ["a", Path("b")], "names": {np.int64(0): "x"}}, {"train": ["a", "b"], "names": {0: "x"}}),
    ],
)
def test_data_is_one_set_or_a_list_of_them(data, plain):
    for kind in ("train", "val", "export", "benchmark", "check", "convert"):
        settings = SETTINGS_OF[kind].parse({"data": data})
        assert settings.data == plain
        assert (
            SETTINGS_OF[kind].parse(yaml.safe_load(yaml.safe_dump(settings.to_dict()))).to_dict()
            == settings.to_dict()
        )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "data=[]: the list is empty; name data sets in it, such as data=[a.yaml,b.zip]"),
        (
            [["a"], "b"],
            "data=[[a],b]: a list in a list; expected one list of data sets, such as data=[a.yaml,b.zip]",
        ),
        (
            ["a", None],
            "data=[a,none]: none is not a data set; expected paths or names, such as data=[a.yaml,b.zip], or",
        ),
        (["a", " "], "data=[a, ]:   is not a data set; expected paths or names"),
        ([True], "data=[true]: true is not a data set; expected paths or names"),
        ({"train": {1, 2}}, "{1, 2} in it can't be in a data YAML; expected texts, numbers, lists and dicts"),
        ([{"train": object}], "<class 'object'> in it can't be in a data YAML"),
        ({("a",): "b"}, "('a',) can't be a key of a data YAML; expected texts, or ids of classes"),
        (object(), "expected text | path | {key: value} | list of text | path | {key: value} | none"),
    ],
)
def test_data_that_can_not_be_is_refused_in_one_sentence(data, message):
    with pytest.raises(SettingsError) as caught:
        TrainSettings.parse({"data": data})
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_dict_that_contains_itself_is_refused():
    data = {"train": "a"}
    data["names"] = data
    with pytest.raises(SettingsError, match="nested more than 20 levels deep, or contains itself"):
        TrainSettings.parse({"data": data})


def test_what_a_file_brings_along_neither_downloads_nor_draws():
    settings = TrainSettings.parse({})
    stored = {"train": "a", "download": "https://x/y.zip", "drawn": {"train": 2}}
    settings.inherit({"data": ["b", stored]})
    assert settings.data == ["b", {"train": "a"}]


@pytest.mark.parametrize(
    ("given", "value"),
    [(True, True), (False, False), (1, True), (0, False), (0.2, 0.2), (np.float32(0.5), 0.5), (None, True)],
)
def test_val_is_a_switch_or_a_part(given, value):
    found = TrainSettings.parse({"val": given}).val
    assert found == value and isinstance(found, type(value))


@pytest.mark.parametrize("given", [1.5, -0.1, 2, "many"])
def test_a_val_that_is_neither_is_refused(given):
    with pytest.raises(SettingsError, match=f"^val={given}: expected true"):
        TrainSettings.parse({"val": given})


@pytest.mark.parametrize("split", ["0/5", "6/5", "1/1", "2/", "a/b", "2/5/7", "02/5", "vla", "2 / 5"])
def test_a_split_that_is_none_is_refused(split):
    for kind, allowed in (("train", "val"), ("val", "val, test, train"), ("benchmark", "val, test, train")):
        with pytest.raises(
            SettingsError, match=rf"^split={split}: expected {allowed}, or a fold k/n of the images"
        ):
            SETTINGS_OF[kind].parse({"split": split})


def test_folds_are_splits():
    assert TrainSettings.parse({"split": "2/5"}).split == ValSettings.parse({"split": "2/5"}).split == "2/5"
    assert (fold_of("2/5"), fold_of("10/10"), fold_of("val")) == ((2, 5), (10, 10), None)


def test_a_part_and_a_fold_are_not_given_together():
    with pytest.raises(
        SettingsError, match=r"^val=0\.2 and split=2/5 both name images to validate on; give one"
    ):
        TrainSettings.parse({"val": 0.2, "split": "2/5"})

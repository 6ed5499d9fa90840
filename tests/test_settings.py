import math

import pytest
import yaml

from detector.errors import SettingsError
from detector.fields import type_text
from detector.files.folders import resource_dir
from detector.reference import default_yaml, settings_markdown
from detector.settings import SETTINGS_OF, PredictSettings, TrainSettings

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

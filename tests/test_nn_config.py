from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detector.errors import ModelError
from detector.nn.config import BLOCKS, ModelConfig, load_model_config
from detector.nn.model import DetectionModel

TINY: dict[str, Any] = {
    "nc": 2,
    "scales": {"n": [0.5, 0.25, 1024], "s": [0.5, 0.5, 1024]},
    "reg_max": 4,
    "backbone": [
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 2, "Conv", [64, 3]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 2, "C2f", [128, True]],
    ],
    "head": [
        [-1, 1, "Upsample", [2]],
        [[-1, 2], 1, "Concat", []],
        [-1, 1, "C3", [64]],
        [[7, 4], 1, "Detect", []],
    ],
}


def write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(TINY | changes))
    return path


def with_row(index: int, row: Any) -> dict[str, Any]:
    rows = [*TINY["backbone"], *TINY["head"]]
    rows[index] = row
    return {"backbone": rows, "head": []}


@pytest.mark.parametrize("model", ["yolo11s.yaml", "yolo11s", Path("yolo11s.yaml")])
def test_a_letter_chooses_the_size_of_a_shipped_family(model: str | Path) -> None:
    config = load_model_config(model)
    assert (config.name, config.scale, config.width, config.num_classes) == ("yolo11s", "s", 0.5, 80)


def test_a_family_without_letter_gives_its_first_size() -> None:
    assert load_model_config("yolo26.yaml").name == "yolo26n"


def test_own_file_builds_and_runs_at_its_own_strides(tmp_path: Path) -> None:
    model = DetectionModel(load_model_config(write(tmp_path / "mine.yaml"))).eval()
    assert model.strides == (4, 8)
    preds = model(torch.zeros(1, 3, 32, 64))["one2many"]
    assert model.decode(preds).shape == (1, 6, 8 * 16 + 4 * 8)


@pytest.mark.parametrize(
    ("file", "asked", "scale"),
    [
        ("mine.yaml", "mine.yaml", "n"),  # no letter: the first size
        ("mine.yaml", "mines.yaml", "s"),  # there is no mines.yaml
        ("mine.yaml", "mines", "s"),
        ("mine-s.yaml", "mine-s.yaml", "s"),
        ("net2s.yaml", "net2s.yaml", "s"),
        ("buses.yaml", "buses.yaml", "n"),  # just a word
    ],
)
def test_the_name_of_an_own_file_chooses_the_size(tmp_path: Path, file: str, asked: str, scale: str) -> None:
    write(tmp_path / file)
    assert load_model_config(tmp_path / asked).scale == scale


def test_file_in_the_working_directory_goes_before_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "yolo11.yaml")
    assert load_model_config("yolo11s").num_classes == 2


def test_table_without_sizes_is_taken_as_it_is(tmp_path: Path) -> None:
    plain = {key: value for key, value in TINY.items() if key != "scales"}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(plain))
    config = load_model_config(tmp_path / "plain.yaml")
    assert [layer.channels for layer in config.layers()[:3]] == [64, 64, 64]


def test_repeated_simple_blocks_follow_each_other(tmp_path: Path) -> None:
    rows = with_row(2, [-1, 4, "Conv", [128, 3]])
    model = DetectionModel(load_model_config(write(tmp_path / "mine.yaml", **rows)))
    assert [conv.conv.in_channels for conv in model.model[2]] == [16, 32]  # 4 * depth 0.5


def test_class_names_come_from_the_file_or_from_the_caller(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yaml", nc=2, names={0: "cat", 1: "dog"})
    assert load_model_config(file).names == ("cat", "dog")
    assert load_model_config(file, num_classes=3).names == ("class_0", "class_1", "class_2")
    assert DetectionModel(load_model_config(file, names=["bus"])).names == {0: "bus"}
    with pytest.raises(ModelError, match="num_classes=3, but 1 names"):
        load_model_config(file, num_classes=3, names=["bus"])


def test_rows_spelled_as_in_other_yolo_tables_are_read(tmp_path: Path) -> None:
    head = [
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 1, "C3k2", [64, False]],
        [[7, 4], 1, "Detect", ["nc"]],
    ]
    config = load_model_config(write(tmp_path / "mine.yaml", head=head, end2end=True))
    assert config.dual_head and config.class_branch == "depthwise"
    assert list(DetectionModel(config)(torch.zeros(1, 3, 32, 32))) == ["one2many", "one2one"]


@pytest.mark.parametrize("name", ["yolov8m", "yolo11x", "yolo26n"])
def test_config_survives_as_plain_data(name: str) -> None:
    config = load_model_config(name, names=["cat", "dog"])
    plain = yaml.safe_load(yaml.safe_dump(config.to_dict()))
    assert ModelConfig.from_dict(plain) == config
    assert ModelConfig.from_dict(plain).layers() == config.layers()


def test_config_without_sizes_survives_as_plain_data(tmp_path: Path) -> None:
    plain = {key: value for key, value in TINY.items() if key != "scales"}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(plain))
    config = load_model_config(tmp_path / "plain.yaml")
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_plain_data_is_checked_on_the_way_back() -> None:
    data = load_model_config("yolov8n").to_dict()
    with pytest.raises(ModelError, match=r"best.pt: unknown 'depht', missing 'depth'; expected exactly"):
        ModelConfig.from_dict({("depht" if k == "depth" else k): v for k, v in data.items()}, "best.pt")
    data["rows"][1][2] = "Cnov"
    with pytest.raises(ModelError, match=r"best.pt: row 1 .*unknown block 'Cnov'; did you mean 'Conv'\?"):
        ModelConfig.from_dict(data, "best.pt")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([-1, 1, "C2", [64]], r"mine.yaml: row 7 .*unknown block 'C2'.*allowed are Conv, .*Detect"),
        ([-1, 1, "C3"], r"row 7 .*expected \[from, repeats, block, \[arguments\]\]"),
        ("C3", r"row 7 C3: expected \[from"),
        ([9, 1, "C3", [64]], r"row 7 .*from=9; expected earlier layers \(0 to 6\) or -1 and below"),
        (["a", 1, "C3", [64]], r"from='a'"),
        ([-1, 0, "C3", [64]], r"repeats=0; expected a whole number from 1"),
        ([[-1, 2], 1, "C3", [64]], r"C3 reads one layer"),
        ([-1, 1, "C3", 64], r"arguments=64; expected a list"),
        (
            [-1, 1, "C3", []],
            r"0 arguments; C3 takes \[channels_out, shortcut=true, expansion=0.5, kernel=1\]",
        ),
        ([-1, 1, "C3", [64, 3]], r"shortcut=3; expected true or false; C3 takes"),
        ([-1, 1, "C3", [64, True, -1]], r"expansion=-1; expected a number above 0"),
        ([-1, 1, "Conv", [64.5]], r"channels_out=64.5; expected a whole number from 1"),
        ([-1, 1, "Detect", []], r"Detect in rows \[7, 8\] of 9; expected it once"),
    ],
)
def test_bad_row_is_named_with_what_is_allowed(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model_config(write(tmp_path / "mine.yaml", **with_row(7, row)))


def test_joining_maps_of_different_size_is_an_error(tmp_path: Path) -> None:
    rows = with_row(6, [[-1, 1, 0], 1, "Concat", []])
    with pytest.raises(ModelError, match=r"mine.yaml: row 6 .*joins maps of strides \[2, 4\]"):
        load_model_config(write(tmp_path / "mine.yaml", **rows))


def test_arguments_torch_refuses_are_reported_with_their_row(tmp_path: Path) -> None:
    rows = with_row(7, [-1, 1, "Conv", [64, 3, 1, 7]])
    with pytest.raises(ModelError, match=r"row 7 .*can't be built: .*divisible"):
        DetectionModel(load_model_config(write(tmp_path / "mine.yaml", **rows)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regmax": 4}, r"unknown key 'regmax'; did you mean 'reg_max'\?; allowed are nc, names"),
        ({"reg_max": 0}, r"reg_max=0; expected a whole number from 1"),
        ({"dual_head": "yes"}, r"dual_head='yes'; expected true or false"),
        ({"class_branch": "deep"}, r"class_branch='deep'; expected one of plain, depthwise"),
        ({"nc": "two"}, r"nc='two'; expected a whole number"),
        ({"names": ["cat"]}, r"nc=2, but names lists 1"),
        ({"names": {1: "cat", 2: "dog"}}, r"names has the keys \[1, 2\]; expected 0 to 1"),
        ({"names": []}, r"names=\[\]; expected a list of class names"),
        ({"names": {}, "nc": None}, r"names=\{\}; expected a list of class names"),
        ({"names": "cat"}, r"names='cat'; expected a list of class names"),
        ({"scales": {}}, r"scales=\{\}; expected size: \[depth, width, maximum channels\]"),
        ({"scales": {"n": [1, 2]}}, r"size n: \[1, 2\]; expected \[depth, width, maximum channels\]"),
        ({"head": "Detect"}, r"head='Detect'; expected rows"),
        ({"head": []}, r"Detect in rows \[\] of 5"),
    ],
)
def test_bad_table_is_an_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model_config(write(tmp_path / "mine.yaml", **changes))


def test_all_that_is_wrong_in_a_table_is_reported_at_once(tmp_path: Path) -> None:
    changes = {"regmax": 4, "nc": 0, "end2end": 1, "class_branch": ["deep"]}
    with pytest.raises(ModelError) as raised:
        load_model_config(write(tmp_path / "mine.yaml", **changes))
    problems = [line.removeprefix(f"{tmp_path / 'mine.yaml'}: ") for line in str(raised.value).splitlines()]
    assert problems[0].startswith("unknown key 'regmax'; did you mean 'reg_max'?; allowed are nc, names")
    assert problems[1:] == [
        "nc=0; expected a whole number from 1.",
        "end2end=1; expected true or false.",
        "class_branch=['deep']; expected one of plain, depthwise.",
    ]


def test_all_bad_rows_are_reported_at_once(tmp_path: Path) -> None:
    rows = with_row(0, [-1, 1, "Cnov", [64]])
    rows["backbone"][7] = [-1, 0, "C3", [64]]
    with pytest.raises(ModelError, match=r"row 0 .*unknown block 'Cnov'(.|\n)*row 7 .*repeats=0; expected"):
        load_model_config(write(tmp_path / "mine.yaml", **rows))


def test_missing_model_suggests_a_shipped_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model 'yolo12n'; did you mean '.*'\?; expected .*yolo26x"):
        load_model_config("yolo12n")
    with pytest.raises(ModelError, match=r"is not an architecture; expected a .yaml file"):
        load_model_config(tmp_path / "model.pth")


def test_unreadable_yaml_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("backbone: [")
    with pytest.raises(ModelError, match=r"mine.yaml: not readable as YAML"):
        load_model_config(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text("- 1")
    with pytest.raises(ModelError, match="expected keys such as backbone and head, found list"):
        load_model_config(tmp_path / "mine.yaml")


def test_every_block_can_be_written_in_a_row(tmp_path: Path) -> None:
    for block in set(BLOCKS) - {"Upsample", "Concat"}:
        rows = with_row(2, [-1, 1, block, [64]])
        model = DetectionModel(load_model_config(write(tmp_path / "mine.yaml", **rows))).eval()
        assert model(torch.zeros(1, 3, 32, 32))["one2many"].boxes.shape == (1, 16, 80)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nc": 2_000_000_000}, "2,000,000,000 classes; at most 100,000 are read"),
        ({"reg_max": 10**9}, "1,000,000,000 as a number of a layer; at most 100,000 are read"),
        (with_row(2, [-1, 10**7, "Conv", [64, 3]]), "repeats=10000000; expected"),
        ({"scales": {"n": [10, 0.25, 1024]}} | with_row(2, [-1, 1000, "Conv", [64, 3]]), "layers; at most"),
        ({"scales": {"n": [10, 0.25, 1024]}} | with_row(4, [-1, 1000, "C2f", [128]]), "layers; at most"),
        (
            {"scales": {"n": [1, 100, 1e12]}} | with_row(2, [-1, 1, "Conv", [10**9, 3]]),
            "as a number of a layer; at most",
        ),
        (with_row(2, [-1, 1, "Conv", [64, 10**6]]), "1,000,000 as a number of a layer; at most"),
        ({"scales": {"n": [1, 1, 1e12]}} | with_row(2, [-1, 2, "Conv", [90000, 90]]), "weights; at most"),
    ],
)
def test_an_architecture_that_would_fill_the_memory_is_refused_at_once(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        load_model_config(write(tmp_path / "huge.yaml", **changes))
    assert message in str(caught.value)

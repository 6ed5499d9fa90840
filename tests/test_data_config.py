from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.exports import EXPORTS

from detector.data.config import is_at_hand, load_data_config, located
from detector.errors import DataError

Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Write a data YAML next to two images of train and val."""

    def writer(text: str, name: str = "my.yaml") -> Path:
        for split in ("train", "val"):
            folder = tmp_path / "images" / split
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / "b.png"), np.zeros((8, 8, 3), np.uint8))
            cv2.imwrite(str(folder / "a.jpg"), np.zeros((8, 8, 3), np.uint8))
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return writer


SPLITS = "train: images/train\nval: images/val\n"


def error_of(data: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_data_config(data)
    return str(caught.value)


def test_a_drawn_dataset_is_read(drawn_dataset: Path) -> None:
    config = load_data_config(drawn_dataset)
    assert config.names == {0: "disc", 1: "square", 2: "triangle", 3: "star", 4: "ring", 5: "cross"}
    assert config.num_classes == 6
    assert config.root == drawn_dataset.parent / "data"
    assert len(config.split_images("train")) == 8
    assert len(config.split_images("val")) == 4
    assert config.describe() == f"drawn: 6 classes, {drawn_dataset.parent / 'data'}"


def test_the_folder_of_the_yaml_is_the_default_root(write: Writer, tmp_path: Path) -> None:
    config = load_data_config(write(SPLITS + "names: [cat, dog]"))
    assert config.root == tmp_path
    assert [path.name for path in config.split_images("val")] == ["a.jpg", "b.png"]
    assert load_data_config(tmp_path) == config
    assert load_data_config(str(tmp_path / "my.yaml")) == config


def test_path_is_relative_to_the_yaml_not_to_the_working_folder(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("")
    (tmp_path / "elsewhere").mkdir()
    yaml = write("path: ../\n" + SPLITS + "nc: 1", name="elsewhere/my.yaml")
    monkeypatch.chdir(tmp_path / "images")
    config = load_data_config("../elsewhere/my.yaml")
    assert config.root == tmp_path
    assert config.yaml_path == yaml


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [cat, 7]", {0: "cat", 1: "7"}),
        ("names: {1: dog, 0: cat}", {0: "cat", 1: "dog"}),
        ("names: {'1': dog, '0': cat}", {0: "cat", 1: "dog"}),
        ("nc: 2", {0: "class_0", 1: "class_1"}),
        ("nc: 2\nnames: [a, b]", {0: "a", 1: "b"}),
        ("names: {0: a, 2: b}", {0: "a", 1: "class_1", 2: "b"}),
    ],
)
def test_names_are_a_list_a_map_or_a_count(write: Writer, names: str, expected: dict[int, str]) -> None:
    assert load_data_config(write(SPLITS + names)).names == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SPLITS + "names: {0: a, '0': b}",
            "names has the ids 0, '0'; expected whole numbers from 0, each once.",
        ),
        (SPLITS + "names: {x: a}", "names has the ids x; expected whole numbers from 0, each once."),
        (SPLITS + "names: {2000000000: a}", "names has the ids 2000000000; expected whole numbers from 0"),
        (SPLITS + "names: {}", "names: {}; expected a list of class names or a map from id to name."),
        (SPLITS + "names: [yes, b]", "names: True can't be a class name; put it in quotes."),
        (SPLITS + "nc: 3\nnames: [a, b]", "nc is 3, but names has 2; leave nc out or correct one."),
        (
            SPLITS + "nc: many",
            "nc: 'many'; expected a whole number of classes, 1 or more and at most 100,000.",
        ),
        (
            SPLITS + "nc: 2000000000",
            "nc: 2000000000; expected a whole number of classes, 1 or more and at most",
        ),
        (SPLITS + "nc: 1\nchannels: 2", "channels: 2; expected 1 (grey) or 3 (colour)"),
        (SPLITS + "nc: 1\nvalidation: images/val", "both val and validation are given; keep val"),
        ("train: 3\nval: images/val\nnc: 1", "train: 3; expected a path or a list of paths."),
        (SPLITS + "nc: 1\npath: [a]", "path: ['a']; expected a folder."),
        ("just text", "expected keys such as path, train, val and names."),
        ("a: [1,", "is not a YAML file: while parsing a flow node"),
        ("train: images/train\nval: gone\nnc: 1\nstand_in: clip art", "expected `drawn`, or leave it out."),
        (
            SPLITS + "nc: 1\ndownload: [{address: x}]",
            "expected an https:// address, or url, into and sha256.",
        ),
        (SPLITS + "nc: 1\ndownload: {url: 'https://x/y.zip', into: ../up}", "leaves the data set's folder."),
        (SPLITS + "nc: 1\npath: x\ndrawn: {train: many}", "drawn: {'train': 'many'}; expected whole numbers"),
        (
            SPLITS + "nc: 1\npath: x\ndrawn: {train: 2000000000, val: 1}",
            "drawn asks for 2,000,000,001 images to draw; at most 100,000",
        ),
        (
            SPLITS + "nc: 1\npath: x\ndrawn: {val: 1, size: 1000000}",
            "drawn asks for 1,000,000 px of an image's side; at most 4,096",
        ),
        (SPLITS + "nc: 1\npath: x\ndrawn: {trian: 1}", "expected train, val, test, size, seed."),
    ],
)
def test_mistakes_in_the_file_are_named(write: Writer, text: str, message: str) -> None:
    yaml = write(text)
    found = error_of(yaml)
    assert str(yaml) in found
    assert message in found


def test_every_mistake_is_named_at_once(write: Writer) -> None:
    yaml = write("train: 3\npath: [a]\nnames: {x: a}\nnc: 0\nchannels: 4\nstand_in: art")
    assert error_of(yaml).splitlines() == [
        f"{yaml}:",
        "  path: ['a']; expected a folder",
        "  train: 3; expected a path or a list of paths",
        "  names has the ids x; expected whole numbers from 0, each once",
        "  nc: 0; expected a whole number of classes, 1 or more and at most 100,000",
        "  channels: 4; expected 1 (grey) or 3 (colour); convert images that have others",
        "  stand_in: 'art'; expected `drawn`, or leave it out",
    ]


def test_unknown_keys_are_warned_of_once(write: Writer, caplog: pytest.LogCaptureFixture) -> None:
    config = load_data_config(write(SPLITS + "nmes: [a]\nnc: 1\nx: 3"))
    assert config.names == {0: "class_0"}
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.endswith(
        "my.yaml: keys that are not known are not used: 'nmes', 'x'; did you mean 'names'?"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "nc: 2\nnames: {0: a, 3: b}",
            "nc is 2, but names has 4, as the ids go to 3 and 2 of them have no name; leave",
        ),
        ("nc: 1\nnames: ['0', 1, 2.5]", "nc is 1, but names has 3; leave nc out or correct one."),
        ("names: 5", "names: 5; expected a list of class names or a map from id to name."),
        ("names: cat", "names: 'cat'; expected a list of class names or a map from id to name."),
        ("names: [cat, null]", "names: None can't be a class name; put it in quotes."),
        ("names: {0.0: cat}", "names has the ids 0.0; expected whole numbers from 0, each once."),
    ],
)
def test_names_that_can_not_be_are_shown(write: Writer, text: str, message: str) -> None:
    assert message in error_of(write(SPLITS + text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat\ndog\n", ["cat", "dog"]),
        ("7\n1e3\ntrue\n", ["7", "1e3", "true"]),
        ("\ufeffcat\r\n\r\ndog\r\n\r\n", ["cat", "class_1", "dog"]),
        (" big cat \n", ["big cat"]),
    ],
)
def test_a_class_file_has_a_name_per_line(tmp_path: Path, text: str, expected: list[str]) -> None:
    for folder, name in (("images", "a.png"), ("images", "b.png"), ("labels", "a.txt")):
        (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / folder / name).touch()
    (tmp_path / "set/classes.txt").write_text(text, encoding="utf-8", newline="")
    assert load_data_config(tmp_path / "set").names == dict(enumerate(expected))


def test_a_dict_has_the_keys_of_a_data_yaml_and_paths_from_the_current_folder(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("")
    data = {
        "path": tmp_path.name,
        "train": "images/train",
        "val": ["images/val"],
        "names": {0: "cat", "1": 7},
    }
    monkeypatch.chdir(tmp_path.parent)
    config = load_data_config(data)
    assert (config.root, config.name) == (tmp_path, tmp_path.name)
    assert config.names == {0: "cat", 1: "7"}
    assert is_at_hand(data)
    monkeypatch.chdir(tmp_path)
    without = {"train": "images/train", "names": ["cat"]}
    assert {path.parent for path in load_data_config(without).split_images("train")} == {
        tmp_path / "images/train"
    }
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir("empty")
    assert not is_at_hand(data) and not is_at_hand(without)


def test_a_dict_means_the_same_in_another_folder_once_it_is_located(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    sets = [{"train": "images/train", "names": ["cat"]}, {"path": "images", "train": "train", "nc": 1}]
    expected = [load_data_config(data).split_images("train") for data in sets]
    places = [located(data) for data in sets]
    assert [data["path"] for data in places] == [str(tmp_path), str(tmp_path / "images")]
    monkeypatch.chdir("elsewhere")
    assert [load_data_config(data).split_images("train") for data in places] == expected


def test_a_drawn_set_of_a_dict_is_located_where_it_was_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"path": "pics", "train": "images/train", "val": "images/val", "names": ["disc", "star"]}
    drawn = data | {"drawn": {"train": 2, "val": 1, "size": 64}}
    assert not is_at_hand(drawn)
    config = load_data_config(drawn)
    assert is_at_hand(drawn)
    assert located(drawn | {"download": "https://x/y.zip"}) == data | {"path": str(config.root)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"trian": "a", "val": "b", "x": 1},
            "data={...}:\n  train is missing\n  keys that are not known: trian, x; did you mean 'train'?",
        ),
        (
            {"train": "a", "val": "b", "nmes": ["a"]},
            "data={...}: keys that are not known: nmes; did you mean 'names'?",
        ),
        (
            {"train": 3, "names": []},
            "data={...}:\n  train: 3; expected a path or a list of paths\n  names: []; expected",
        ),
        ({"train": "gone", "nc": 1}, "/data={...}: val: "),
    ],
)
def test_mistakes_in_a_dict_are_named(data: dict[str, object], message: str) -> None:
    found = error_of(data)
    message = message.replace("trian, x", "'trian', 'x'").replace("nmes;", "'nmes';")
    assert found.startswith(message) or (message.startswith("/") and message in found)


def test_lists_are_at_hand_if_all_sets_are(write: Writer, tmp_path: Path) -> None:
    yaml = write(SPLITS + "nc: 1")
    assert is_at_hand([yaml, {"path": str(tmp_path), "train": "images/train", "nc": 1}])
    assert not is_at_hand([yaml, "gone.yaml"]) and not is_at_hand([])
    assert "data=gone.yaml: " in error_of([yaml, "gone.yaml"])
    assert error_of([]) == "data=[]: the list is empty; name data sets in it."


def test_folders_and_archives_are_at_hand_once_they_can_be_read(tmp_path: Path) -> None:
    EXPORTS["pascal_voc"](tmp_path / "set")
    (tmp_path / "empty").mkdir()
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "set")
    assert is_at_hand(tmp_path / "set") and not is_at_hand(tmp_path / "empty")
    assert not is_at_hand(packed)
    load_data_config(packed)
    assert is_at_hand(packed)


def test_classes_without_names_in_any_file_are_asked_for(write: Writer, tmp_path: Path) -> None:
    yaml = write(SPLITS)
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text("0 .5 .5 .1 .1")
    assert "the classes have no names: YOLO label files only have ids. Write the names into" in error_of(yaml)


def test_without_a_validation_split_one_is_cut(write: Writer, caplog: pytest.LogCaptureFixture) -> None:
    config = load_data_config(write("train: [images/train, images/val]\nnc: 1"))
    train, val = (set(config.split_images(split)) for split in ("train", "val"))
    assert train and val and not train & val


def test_tags_that_would_run_code_are_refused(write: Writer, tmp_path: Path) -> None:
    found = error_of(write(f"names: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']"))
    assert "is not a YAML file: could not determine a constructor" in found
    assert not (tmp_path / "made").exists()


def test_validation_lists_files_and_notes_are_read(write: Writer, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("./images/train/a.jpg\nimages/val/b.png\n\n")
    yaml = write(
        "train: [images/train, images/val/a.jpg]\nvalidation: list.txt\ntest:\nnc: 1\nroboflow: {version: 1}"
    )
    config = load_data_config(yaml)
    assert set(config.splits) == {"train", "val"}
    assert config.split_images("train") == [
        *(tmp_path / "images/train" / name for name in ("a.jpg", "b.png")),
        tmp_path / "images/val/a.jpg",
    ]
    assert config.split_images("val") == [tmp_path / "images/train/a.jpg", tmp_path / "images/val/b.png"]


def test_a_split_that_is_missing_or_empty_is_an_error(write: Writer, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    config = load_data_config(write("train: gone\nval: images/val\ntest: none\nnc: 1"))
    with pytest.raises(DataError, match=f"{tmp_path}/gone does not exist"):
        config.split_images("train")
    with pytest.raises(DataError, match=f"no images for test; looked in {tmp_path}/none"):
        config.split_images("test")
    with pytest.raises(DataError, match=r"split=vall: .* has train, val, test; did you mean 'val'"):
        config.split_images("vall")


def test_missing_images_without_download_name_the_folder_looked_for(write: Writer, tmp_path: Path) -> None:
    found = error_of(write("path: data\ntrain: shots/train\nval: shots/val\nnc: 1"))
    assert found == f"{tmp_path}/my.yaml: val: {tmp_path}/data/shots/val does not exist."


def test_entries_that_point_outside_the_export_are_found_with_a_warning(
    write: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_data_config(write("train: ../images/train\nval: ../images/val\nnc: 1"))
    assert config.splits["val"] == [tmp_path / "images/val"]
    assert f"{tmp_path.parent}/images/val does not exist; using {tmp_path}/images/val" in caplog.text


@pytest.mark.parametrize(
    "download", ["bash get_data.sh", "|\n  import os\n  os.remove('x')", "ftp://host/a.zip"]
)
def test_commands_and_code_are_never_run(write: Writer, tmp_path: Path, download: str) -> None:
    ready = load_data_config(write(SPLITS + f"nc: 1\ndownload: {download}"))
    assert len(ready.split_images("val")) == 2  # nothing is missing, so it does not matter
    found = error_of(write(f"path: data\nval: v\ntrain: t\nnc: 1\ndownload: {download}"))
    assert f"val: {tmp_path}/data/v does not exist" in found
    assert "commands and code in a data file are never run" in found


def test_unknown_names_list_what_is_packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = error_of("shape.yaml")
    assert f"data=shape.yaml: {tmp_path}/shape.yaml does not exist; did you mean 'shapes'?" in found
    assert "or one of coco, coco128, coco8, shapes." in found
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text("nc: 1")
    assert "has several YAML files (a.yaml, b.yml); name one of them" in error_of(tmp_path)


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DETECTOR_DATASETS", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


@pytest.mark.parametrize("data", ["coco8", "coco8.yaml"])
def test_coco8_is_used_where_it_lies(datasets: Path, data: str) -> None:
    for split in ("train", "val"):
        (datasets / "coco8/images" / split).mkdir(parents=True)
        cv2.imwrite(str(datasets / "coco8/images" / split / "x.jpg"), np.zeros((9, 9, 3), np.uint8))
    config = load_data_config(data)
    assert config.root == datasets / "coco8"
    assert not config.stand_in
    assert config.num_classes == 80
    assert (config.names[0], config.names[79]) == ("person", "toothbrush")
    assert config.split_images("train") == [datasets / "coco8/images/train/x.jpg"]
    assert [entry.name for entry in datasets.iterdir()] == ["coco8"]


def test_without_a_network_coco8_is_placeholder_data_and_says_so(
    datasets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_data_config("coco8")
    assert config.stand_in
    assert config.root == datasets / "coco8-drawn-stand-in"
    assert [len(config.split_images(split)) for split in ("train", "val")] == [4, 4]
    assert not (datasets / "coco8").exists()
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert f"coco8: NOT THE REAL IMAGES. Synthetic images in {config.root} replace them; " in warnings[0]
    assert "DETECTOR_OFFLINE is set" in warnings[0]
    assert "SYNTHETIC IMAGES, not the real ones" in config.describe()
    assert load_data_config("coco8") == config  # drawn once, warned of each time


def test_without_the_network_coco128_is_an_error(datasets: Path) -> None:
    found = error_of("coco128")
    assert f"val: {datasets}/coco128/images/train2017 does not exist and could not be downloaded" in found
    assert "DETECTOR_OFFLINE is set" in found
    assert f"put the data in {datasets}/coco128 yourself" in found


def test_a_folder_that_lacks_its_val_images_is_left_alone(datasets: Path) -> None:
    (datasets / "coco128").mkdir(parents=True)
    (datasets / "coco128/mine.txt").write_text("keep")
    found = error_of("coco128")
    assert f"{datasets}/coco128 exists, but val: {datasets}/coco128/images/train2017 does not" in found
    assert [file.name for file in (datasets / "coco128").iterdir()] == ["mine.txt"]


def test_a_read_only_datasets_folder_is_never_written(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    datasets.mkdir()
    datasets.chmod(0o555)
    config = load_data_config("coco8")
    assert config.root == tmp_path / "home/.cache/detector/datasets/coco8-drawn-stand-in"
    assert f"{datasets} can't be written; using {config.root}" in caplog.text
    assert list(datasets.iterdir()) == []
    datasets.chmod(0o755)


@pytest.mark.parametrize(
    "path", ["{home}/.config/autostart", "~/.config/autostart", "../out", ".", "link/in"]
)
@pytest.mark.parametrize(
    "source", ["download: https://192.0.2.1/a.zip", "stand_in: drawn", "drawn: {train: 1, val: 1}"]
)
def test_a_data_yaml_fills_no_folder_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, source: str
) -> None:
    home, place = tmp_path / "home", tmp_path / "sets"
    (home / ".config/autostart").mkdir(parents=True)  # there and empty
    place.mkdir()
    (place / "link").symlink_to(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DETECTOR_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.setattr("detector.data.config.fetch_dataset", lambda *_: pytest.fail("it was downloaded"))
    yaml = place / "evil.yaml"
    yaml.write_text(f"path: {path.format(home=home)}\ntrain: a/train\nval: a/val\nnc: 1\n{source}\n")
    before = sorted(tmp_path.rglob("*"))
    found = error_of(yaml)
    if path != "." or not source.startswith("download"):
        assert f"may only fill folders in {tmp_path}/datasets or next to itself" in found
    assert sorted(tmp_path.rglob("*")) == before


DRAWN = "path: pics\ntrain: images/train\nval: images/val\nnames: [disc, star]\n"


def test_a_drawn_set_is_drawn_once_and_again_when_its_settings_change(write: Writer, tmp_path: Path) -> None:
    first = load_data_config(write(DRAWN + "drawn: {train: 2, val: 1, size: 64}"))
    assert first.root.parent == tmp_path
    assert first.root.name.startswith("pics-")
    assert [len(first.split_images(split)) for split in ("train", "val")] == [2, 1]
    stamps = [file.stat().st_mtime_ns for file in sorted(first.root.rglob("*.*"))]
    assert load_data_config(tmp_path / "my.yaml") == first
    assert [file.stat().st_mtime_ns for file in sorted(first.root.rglob("*.*"))] == stamps
    second = load_data_config(write(DRAWN + "drawn: {train: 2, val: 1, size: 64, seed: 1}"))
    assert second.root != first.root


def test_a_drawn_set_needs_a_separate_folder(write: Writer) -> None:
    found = error_of(write(SPLITS + "nc: 1\ndrawn: {train: 1, val: 1}"))
    assert "expected whole numbers, and a folder as `path:`" in found


@pytest.mark.parametrize(("name", "count"), [("shapes", 6), ("coco8", 80), ("coco128", 80), ("coco", 80)])
def test_packaged_files_are_right(name: str, count: int, datasets: Path) -> None:
    from detector.data import config as module

    path = module._find_yaml(name)
    config = module._described(path, module.read_data_yaml(path))
    assert len(config.names) == count
    assert config.root == datasets / name
    assert all(archive.url.startswith("https://") for archive in config.download)
    assert {"train", "val"} <= set(config.splits)


def test_a_linked_data_yaml_is_where_the_link_is(write: Writer, tmp_path: Path) -> None:
    yaml = write(SPLITS + "nc: 1")
    (tmp_path / "blobs").mkdir()
    yaml.rename(tmp_path / "blobs/0f3a")
    yaml.symlink_to("blobs/0f3a")
    for data in (yaml, tmp_path):
        config = load_data_config(data)
        assert (config.root, config.name) == (tmp_path, "my")
        assert len(config.split_images("train")) == 2


def test_a_link_elsewhere_to_a_data_yaml_next_to_its_images_finds_them(write: Writer, tmp_path: Path) -> None:
    yaml = write(SPLITS + "nc: 1")
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk/short.yaml").symlink_to(yaml)
    assert load_data_config(tmp_path / "desk/short.yaml").root == tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "train: images\\train\nval: .\\images\\val\n",
        "path: D:\\sets\\cats\ntrain: images\\train\nval: images\\val\n",
        "path: /home/ann/cats\ntrain: images/train\nval: images/val\n",
        "path: ../cats\ntrain: images/train\nval: images/val\n",
        "train: /content/cats/images/train\nval: /content/cats/images/val\n",
        "train: project/images/train\nval: project/images/val\n",
        "train: data/images/train\nval: data/images/val\ntest: data/images/test\n",
    ],
)
def test_folders_of_another_system_or_machine_are_found_next_to_the_yaml(
    write: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    config = load_data_config(write(text + "nc: 1"))
    assert config.split_images("train")[0] == tmp_path / "images/train/a.jpg"
    assert config.split_images("val")[0] == tmp_path / "images/val/a.jpg"
    assert ("does not exist; using" in caplog.text) == (text.count(".\\") != 1)


@pytest.mark.parametrize(
    "lines",
    [
        "./images/train/a.jpg\r\n./images/train/b.png\r\n",
        ".\\images\\train\\a.jpg\r\n.\\images\\train\\b.png\r\n",
        "data/images/train/a.jpg\ndata/images/train/b.png\n",
        "/home/ann/cats/images/train/a.jpg\n/home/ann/cats/images/train/b.png\n",
        "D:\\cats\\images\\train\\a.jpg\nD:\\cats\\images\\train\\b.png\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("place", ["train.txt", "lists/train.txt"])
def test_lists_of_any_system_editor_and_place_are_read(
    write: Writer, tmp_path: Path, lines: str, encoding: str, place: str
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(lines.encode(encoding))
    config = load_data_config(write(f"train: {place}\nval: images/val\nnc: 1"))
    assert config.split_images("train") == [tmp_path / "images/train" / name for name in ("a.jpg", "b.png")]


def test_a_data_yaml_may_begin_with_a_byte_order_mark(write: Writer, tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        write("").write_bytes((SPLITS + "names: [Bär]").encode(encoding))
        assert load_data_config(tmp_path / "my.yaml").names == {0: "Bär"}


def test_an_image_named_twice_counts_once(
    write: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "list.txt").write_text("images/val/a.jpg\n./images/val/a.jpg\nimages/val/b.png\n")
    config = load_data_config(write("train: [images/train, images/train/a.jpg]\nval: list.txt\nnc: 1"))
    assert [path.name for path in config.split_images("train")] == ["a.jpg", "b.png"]
    assert [path.name for path in config.split_images("val")] == ["a.jpg", "b.png"]
    assert f"{tmp_path}/my.yaml: val names 1 images more than once; each counts once" in caplog.messages


@pytest.mark.parametrize(
    "text",
    [
        "path: pics\ntrain: images/train\nval: images/val\nnc: 1\ndrawn: {train: 2, val: 1, size: 64}\n",
        "train: ../images/train\nval: ../images/val\nnc: 1\n",
        "path: D:\\sets\\cats\ntrain: images\\train\nval: images\\val\nnc: 1\n",
        SPLITS + "nc: 1\n",
    ],
)
def test_looking_whether_a_set_is_at_hand_makes_and_says_nothing(
    write: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = write(text)
    before = sorted(tmp_path.rglob("*"))
    assert is_at_hand(path) == ("drawn" not in text)
    assert (caplog.text, sorted(tmp_path.rglob("*"))) == ("", before)
    load_data_config(path)
    assert is_at_hand(path)


def test_a_placeholder_a_mistake_and_missing_training_images_are_not_at_hand(
    datasets: Path, write: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    assert not is_at_hand("coco8")
    assert load_data_config("coco8").stand_in
    assert len(caplog.records) == 1
    assert not is_at_hand("coco8")
    assert not is_at_hand("coco9")
    assert not is_at_hand("x" * 5000)
    assert not is_at_hand(write("train: gone\nval: images/val\nnc: 1"))
    assert len(caplog.records) == 1

"""Files that chance made: whatever is in them, the answer is data or one of this package's errors.

`FUZZ_EXAMPLES=5000 pytest tests/test_fuzz.py` looks longer than the suite does.
"""

from __future__ import annotations

import copy
import csv
import functools
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from support.exports import EXPORTS
from support.ultralytics_files import ultralytics_network, write_program, write_ultralytics

from detector.checkpoints.checkpoint import read_weights, save_checkpoint
from detector.checkpoints.network import build_network, read_config
from detector.checkpoints.safetensors_file import write_tensor_file
from detector.cli import parse_value, read_cfg
from detector.data import images
from detector.data.annotations import build_annotations
from detector.data.config import load_data_config
from detector.data.formats.coco import parse_coco, read_coco
from detector.data.formats.datumaro import read_datumaro
from detector.data.formats.table import is_table, read_table
from detector.data.formats.voc import parse_voc
from detector.data.formats.yolo import parse_labels, read_yolo
from detector.data.images import image_size
from detector.errors import DataError, DetectorError, SettingsError
from detector.files.archives import unpack
from detector.files.safe_yaml import YamlError, parse_yaml
from detector.nn.model import DetectionModel, load_model_config

hypothesis = pytest.importorskip("hypothesis")
hypothesis.configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir(), "hypothesis"))
st = hypothesis.strategies
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(hypothesis.HealthCheck),
)

# ---- damage -------------------------------------------------------------------------------------------

Cut = tuple[int, int, bytes]


def damaged(whole: bytes, cuts: list[Cut]) -> bytes:
    """Replace stretches of a file by other bytes; places count from 0 to 1 << 20 along the file."""
    content = bytearray(whole)
    for place, length, new in cuts:
        start = place * len(content) >> 20
        content[start : start + length] = new
    return bytes(content)


CUTS = st.lists(
    st.tuples(
        st.integers(0, (1 << 20) - 1), st.sampled_from([0, 1, 1, 1, 4, 100, 1 << 30]), st.binary(max_size=8)
    ),
    max_size=6,
)

# ---- labels -------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.sampled_from(["0", "1", "0.5", "-1", "nan", "inf", "1e400", "1e300", "-0.0", "1_0", "٣", "x", ""]),
    st.floats(0, 1).map(repr),
    st.floats().map(repr),
    st.integers().map(str),
)
COORDINATES = st.one_of(NUMBERS, *[st.floats(0, 1).map(repr)] * 20)
CLASSES = st.sampled_from(["0", "1", "1.0", "2", "-1", "0.5", "1000000000000"]) | NUMBERS
ROWS = st.tuples(CLASSES, st.lists(COORDINATES, min_size=4, max_size=9)).map(
    lambda row: " ".join([row[0], *row[1]])
)
LABELS = st.lists(ROWS | st.lists(NUMBERS, max_size=9).map(" ".join), max_size=5).map("\n".join)


@SETTINGS
@hypothesis.given(st.one_of(LABELS, st.text()))
def test_label_text_is_rows_or_a_message_with_its_line(text: str) -> None:
    try:
        rows = parse_labels(text)
    except ValueError as error:
        assert str(error).startswith("line ")
    else:
        table = np.array(list(rows), np.float64).reshape(-1, 5)
        assert np.isfinite(table).all()
        assert (table[:, 0] >= 0).all()
        assert (np.abs(table[:, 1:]) <= 1.1).all()


def test_an_enormous_class_id_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((16, 16, 3), np.uint8))
    (tmp_path / "a.txt").write_text("1e300 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match="line 1: class 1e\\+300"):
        build_annotations(read_yolo([tmp_path / "a.png"]), {0: "a"})


@SETTINGS
@hypothesis.given(st.one_of(LABELS.map(str.encode), st.binary()))
def test_label_files_are_read_or_named(tmp_path_factory: Any, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("labels")
    cv2.imwrite(str(folder / "a.png"), np.zeros((16, 16, 3), np.uint8))
    (folder / "a.txt").write_bytes(content)
    try:
        found = build_annotations(read_yolo([folder / "a.png"]), {0: "a", 1: "b"})
    except DataError as error:
        assert f"{folder}/a.txt" in str(error)
    else:
        assert set(found.labels.tolist()) <= {0, 1}


# ---- other formats of labels ----------------------------------------------------------------------------

FILE_NAMES = [
    "a.png",
    "a",
    ".",
    "..",
    "/",
    "a.png/b.png",
    "C:\\",
    "a\\b",
    "a\0b.png",
    "\ud800.png",
    "x" * 300 + ".png",
]
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(FILE_NAMES),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png", "height": 16, "width": 16}],
    "categories": [{"id": 3, "name": "a"}, {"id": 9, "name": "b"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 9, "segmentation": {"size": [16, 16], "counts": [5, 9, 242]}},
        {"id": 3, "image_id": 1, "category_id": 9, "segmentation": {"size": [16, 16], "counts": "PQ31"}},
        {"id": 4, "image_id": 1, "category_id": 9, "segmentation": [[1, 1, 5, 1, 5, 9]]},
    ],
}
DATUMARO: dict[str, Any] = {
    "categories": {"label": {"labels": [{"name": "a"}, {"name": "b"}]}},
    "items": [
        {
            "id": "a",
            "annotations": [
                {"type": "bbox", "label_id": 0, "bbox": [1, 2, 3, 4]},
                {"type": "polygon", "label_id": 1, "points": [1, 1, 5, 1, 5, 9]},
            ],
            "image": {"path": "a.png", "size": [16, 16]},
        }
    ],
}


def places_in(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where the values of a JSON document are: the keys and indices that lead to each."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, inner in inside for found in places_in(inner, (*place, key)))]


def changes_of(content: Any, *more: tuple[Any, ...]) -> Any:
    """Return a strategy: a document some of whose values, or those at other places, are replaced by any others."""
    places = st.sampled_from([*places_in(content)[1:], *more])

    def change(changes: list[tuple[tuple[Any, ...], Any]]) -> Any:
        changed = copy.deepcopy(content)
        for place, value in changes:
            inner: Any = changed
            try:
                for key in place[:-1]:
                    inner = inner[key]
                inner[place[-1]] = value
            except (KeyError, IndexError, TypeError):  # an earlier change replaced it
                continue
        return changed

    return st.lists(st.tuples(places, JSON_VALUES), min_size=1, max_size=3).map(change)


COCO_CHANGES = changes_of(COCO, ("categories", 0, "supercategory"), ("annotations", 0, "difficult"))


@SETTINGS
@hypothesis.given(COCO_CHANGES)
def test_coco_content_is_arrays_or_a_message(content: Any) -> None:
    try:
        found = parse_coco(content, "my.json")
    except DataError as error:
        assert str(error).startswith("my.json")
    else:
        assert np.isfinite(found.boxes).all()
        assert len(found.boxes) == len(found.image) == len(found.classes)


@pytest.mark.parametrize(
    ("read", "contents"),
    [(read_coco, COCO_CHANGES), (read_datumaro, changes_of(DATUMARO))],
    ids=["coco", "datumaro"],
)
@SETTINGS
@hypothesis.given(data=st.data())
def test_label_files_of_any_values_are_read_or_named(
    tmp_path_factory: Any, read: Any, contents: Any, data: Any
) -> None:
    folder = tmp_path_factory.mktemp("values")
    cv2.imwrite(str(folder / "a.png"), np.zeros((16, 16, 3), np.uint8))
    (folder / "x.json").write_text(json.dumps(data.draw(contents)))
    try:
        build_annotations(read(folder / "x.json"), {0: "a", 1: "b"})
    except DataError as error:
        assert f"{folder}" in str(error)
        str(error).encode()


@SETTINGS
@hypothesis.given(CUTS)
def test_damaged_coco_files_are_read_or_named(tmp_path_factory: Any, cuts: list[Cut]) -> None:
    folder = tmp_path_factory.mktemp("coco")
    cv2.imwrite(str(folder / "a.png"), np.zeros((16, 16, 3), np.uint8))
    (folder / "x.json").write_bytes(damaged(json.dumps(COCO).encode(), cuts))
    try:
        build_annotations(read_coco(folder / "x.json"), {0: "a", 1: "b"})
    except DataError as error:
        assert f"{folder}" in str(error)


VOC = (
    b"<annotation><size><width>16</width><height>16</height></size><object><name>a</name><difficult>0</difficult>"
    b"<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>12</ymax></bndbox></object></annotation>"
)


@SETTINGS
@hypothesis.given(st.one_of(CUTS.map(lambda cuts: damaged(VOC, cuts)), st.binary()))
def test_voc_files_are_rows_or_a_message(content: bytes) -> None:
    try:
        found = parse_voc(content)
    except ValueError as error:
        assert str(error)
    else:
        assert np.isfinite([row.box for row in found.rows]).all()


CSV_TABLE = b"filename,class,xmin,ymin,xmax,ymax\na.png,a,1,2,9,12\na.png,b,3,4,9,12\n"


@SETTINGS
@hypothesis.given(st.one_of(CUTS.map(lambda cuts: damaged(CSV_TABLE, cuts)), st.binary()))
def test_tables_are_read_or_named(tmp_path_factory: Any, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("table")
    cv2.imwrite(str(folder / "a.png"), np.zeros((16, 16, 3), np.uint8))
    (folder / "x.csv").write_bytes(content)
    if not is_table(folder / "x.csv"):
        return
    try:
        build_annotations(read_table(folder / "x.csv"), {0: "a", 1: "b"})
    except DataError as error:
        assert f"{folder}" in str(error)


CELLS = st.one_of(
    NUMBERS,
    JSON_VALUES.map(json.dumps),
    st.sampled_from([*FILE_NAMES, "[1, 2, 3, 4]"]),
    st.text(max_size=8),
)


@pytest.mark.parametrize("header", [["image_id", "label", "bbox"], ["xmin", "ymin", "xmax", "ymax", "path"]])
@SETTINGS
@hypothesis.given(data=st.data())
def test_tables_of_any_values_are_read_or_named(tmp_path_factory: Any, header: list[str], data: Any) -> None:
    folder = tmp_path_factory.mktemp("cells")
    cv2.imwrite(str(folder / "a.png"), np.zeros((16, 16, 3), np.uint8))
    good = dict.fromkeys(header, "1") | {"image_id": "a.png", "path": "a.png", "bbox": "[1, 2, 3, 4]"}
    rows = st.lists(st.fixed_dictionaries({key: st.just(good[key]) | CELLS for key in header}), max_size=3)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header)
    writer.writeheader()
    writer.writerows(data.draw(rows))
    (folder / "x.csv").write_bytes(text.getvalue().encode("utf-8", "replace"))
    assert is_table(folder / "x.csv")
    try:
        build_annotations(read_table(folder / "x.csv"), {0: "a", 1: "1", 2: "object"})
    except DataError as error:
        assert f"{folder}" in str(error)


# ---- YAML ---------------------------------------------------------------------------------------------

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.binary(max_size=5),
    st.sampled_from([".", "..", "/", "~", "~nobody/x", "a\0b", "x" * 300, "https://", "train", "images/val"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LEAVES, inner, max_size=4),
    max_leaves=12,
)
DATA_KEYS = (
    "path",
    "train",
    "val",
    "test",
    "names",
    "nc",
    "channels",
    "download",
    "stand_in",
    "drawn",
    "minival",
)
DATA = st.one_of(
    st.fixed_dictionaries(
        {"train": LEAVES, "val": LEAVES, "nc": st.integers(1, 3)},
        optional={key: VALUES for key in DATA_KEYS if key not in ("train", "val", "nc", "drawn")},
    ),
    st.dictionaries(st.one_of(st.sampled_from(DATA_KEYS), LEAVES), VALUES, max_size=8),
)
YAML_TEXT = st.one_of(
    st.text(),
    st.text(alphabet="{}[]&*a!?:,-|>#%@`'\"~=<0123456789 \n\t."),
    VALUES.map(lambda value: yaml.dump(value)),
)


@SETTINGS
@hypothesis.given(YAML_TEXT)
def test_yaml_text_is_data_or_a_message(text: str) -> None:
    try:
        parse_yaml(text)
    except YamlError as error:
        assert str(error)
        assert "\n" not in str(error)


@SETTINGS
@hypothesis.given(
    st.one_of(DATA.map(lambda value: yaml.dump(value).encode()), YAML_TEXT.map(str.encode), st.binary())
)
def test_a_data_yaml_is_a_data_set_or_an_error(tmp_path_factory: Any, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("data")
    (folder / "a.yaml").write_bytes(content)
    try:
        config = load_data_config(folder / "a.yaml")
        for split in config.splits:
            config.split_images(split)
    except DataError as error:
        assert str(error)
    assert [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")] == ["a.yaml"]


@SETTINGS
@hypothesis.given(st.one_of(VALUES.map(lambda value: yaml.dump(value).encode()), YAML_TEXT.map(str.encode)))
def test_settings_and_architectures_are_read_or_an_error(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("cfg") / "a.yaml"
    path.write_bytes(content)
    for read in (load_model_config, lambda file: read_cfg(str(file))):
        with pytest.raises(DetectorError) if read is load_model_config else _or(SettingsError):
            read(path)


class _or:  # noqa: N801
    """Let an error of a kind through, or none."""

    def __init__(self, kind: type[Exception]) -> None:
        self.kind = kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, self.kind)


@SETTINGS
@hypothesis.given(st.text())
def test_any_word_of_the_command_line_has_a_value(text: str) -> None:
    parse_value(text)


# ---- images -------------------------------------------------------------------------------------------

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8)
IMAGES = {
    suffix: cv2.imencode(suffix, IMAGE)[1].tobytes()
    for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp", ".jp2", ".gif", ".avif")
}


@pytest.mark.parametrize("suffix", IMAGES)
@SETTINGS
@hypothesis.given(CUTS)
def test_damaged_images_are_decoded_or_named(tmp_path_factory: Any, suffix: str, cuts: list[Cut]) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    content = damaged(IMAGES[suffix], cuts)
    path.write_bytes(content)
    size = image_size(content)
    if size is not None and size[0] * size[1] > 10_000_000:
        return  # allowed, and slow to try
    try:
        image = images.read_image(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
    assert images.measure_image(str(path))[0] == 0 or size is not None


@SETTINGS
@hypothesis.given(st.sampled_from([*IMAGES.values()]).map(lambda whole: whole[:16]), st.binary(max_size=200))
def test_any_header_has_a_size_or_none(start: bytes, rest: bytes) -> None:
    size = image_size(start + rest)
    assert size is None or (size[0] > 0 and size[1] > 0)


# ---- weights ------------------------------------------------------------------------------------------

TABLE = """
scales: {n: [1.0, 1.0, 16]}
reg_max: 1
backbone: [[-1, 1, Conv, [8, 3, 8]], [-1, 1, Conv, [8, 3, 2]], [-1, 1, Conv, [8, 3, 2]]]
head: [[[0, 1, 2], 1, Detect, []]]
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One small good file of every kind."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "tiny.yaml").write_text(TABLE)
    model = DetectionModel(load_model_config(folder / "tiny.yaml", names=["a", "b"]))
    content = {"settings": {}, "epoch": 1, "metrics": {}, "model": model.config.to_dict()}
    content["weights"] = model.state_dict()
    save_checkpoint(folder / "own.pt", content)
    with (folder / "own.safetensors").open("wb") as file:
        write_tensor_file(file, {"format": "detector/1", **content})
    write_ultralytics(folder / "ultralytics.pt", ultralytics_network(model))
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".yaml"}


def open_all(path: Path) -> None:
    """Read a file of weights as far as to a network."""
    content = read_weights(path)
    build_network(read_config(content["model"], path), content["weights"], path)


@pytest.mark.parametrize("name", ["own.pt", "own.safetensors", "ultralytics.pt"])
@SETTINGS
@hypothesis.given(CUTS)
def test_damaged_weights_are_read_or_refused(
    tmp_path_factory: Any, weights: Any, name: str, cuts: list[Cut]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz-{name}"
    path.write_bytes(damaged(weights[name], cuts))
    answers(open_all, path)


@pytest.mark.parametrize("name", ["own.pt", "ultralytics.pt"])
@SETTINGS
@hypothesis.given(CUTS)
def test_damaged_programs_in_good_containers_are_read_or_refused(
    tmp_path_factory: Any, weights: Any, name: str, cuts: list[Cut]
) -> None:
    good = tmp_path_factory.getbasetemp() / f"good-{name}"
    good.write_bytes(weights[name])
    with zipfile.ZipFile(good) as archive:
        entries = {entry.rpartition("/")[2]: archive.read(entry) for entry in archive.namelist()}
    program = damaged(entries.pop("data.pkl"), cuts)
    storages = {key: numbers for key, numbers in entries.items() if key.isdecimal()}
    path = tmp_path_factory.getbasetemp() / f"fuzz-program-{name}"
    answers(open_all, write_program(path, program, storages))


@SETTINGS
@hypothesis.given(
    st.lists(st.sampled_from([bytes([n]) for n in range(256)] + [b"cos\nsystem\n"]), max_size=60)
)
def test_any_program_is_refused(tmp_path_factory: Any, steps: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz-steps.pt"
    with pytest.raises(DetectorError):
        open_all(write_program(path, b"".join(steps) + b"."))


@SETTINGS
@hypothesis.given(
    st.dictionaries(st.sampled_from(["model", "weights", "epoch", "settings", "metrics"]), VALUES)
)
def test_own_files_of_any_content_are_refused(
    tmp_path_factory: Any, weights: Any, changes: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz-content.pt"
    path.write_bytes(weights["own.pt"])
    content = torch.load(path, weights_only=True)
    part = changes.pop("model", None)
    content |= changes | ({"model": content["model"] | part} if isinstance(part, dict) else {})
    torch.save(content, path)
    answers(open_all, path)


# ---- archives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
@SETTINGS
@hypothesis.given(CUTS)
def test_damaged_archives_are_unpacked_or_refused(
    tmp_path_factory: Any, suffix: str, cuts: list[Cut]
) -> None:
    folder = tmp_path_factory.mktemp("archives")
    path = folder / f"a{suffix}"
    path.write_bytes(damaged(archive_of(suffix), cuts))
    answers(lambda file: unpack(file, folder / "out", max_bytes=10_000_000), path)
    assert {entry.name for entry in folder.iterdir()} <= {path.name, "out"}


def archive_of(suffix: str) -> bytes:
    """Return a small archive."""
    import tarfile

    buffer = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images/a.txt", "hello" * 30)
            archive.writestr("b.txt", b"")
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if suffix == ".tar.gz" else "w") as bundle:
            entry = tarfile.TarInfo("images/a.txt")
            entry.size = 150
            bundle.addfile(entry, io.BytesIO(b"hello" * 30))
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@SETTINGS
@hypothesis.given(st.sampled_from(sorted(EXPORTS)), CUTS)
def test_a_damaged_archive_of_a_data_set_is_read_or_refused(
    tmp_path_factory: Any, suffix: str, export: str, cuts: list[Cut]
) -> None:
    path = tmp_path_factory.mktemp("sets") / f"set{suffix}"
    path.write_bytes(damaged(archive_of_set(suffix, export), cuts))
    try:
        config = load_data_config(path)
        for split in config.present_splits():
            build_annotations(config.read_labels(split), config.names)
    except DetectorError as error:
        assert "Traceback" not in str(error)


@functools.cache
def archive_of_set(suffix: str, export: str) -> bytes:
    """Return an archive of a small data set as a labelling tool exports it."""
    with tempfile.TemporaryDirectory() as folder:
        EXPORTS[export](Path(folder, "set"))
        made = shutil.make_archive(str(Path(folder, "made")), suffix.removeprefix("."), Path(folder, "set"))
        return Path(made).read_bytes()


def answers(read: Callable[[Path], Any], path: Path) -> None:
    """Read a file; an error must be one of this package's, of one line, that names the file."""
    try:
        read(path)
    except DetectorError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)

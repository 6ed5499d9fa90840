"""Damaged exported files: each is noticed before it predicts."""

import random
import shutil

import pytest
from support.disk import damaged

from detector import YOLO
from detector.errors import ExportError
from detector.runtimes.checksum import PLACE, require_intact, write_checksum

PLACES = 40


def copied(path, target):
    shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)
    return target


@pytest.mark.parametrize(
    "name",
    [
        "onnx",
        "torchscript",
        "ncnn",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("openvino", "pt2", "executorch")),
    ],
)
def test_a_damaged_exported_file_never_predicts(name, exported, tmp_path):
    good = exported(format=name)
    assert require_intact(good)
    path = copied(good, tmp_path / good.name)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    draw = random.Random(0)
    for number in range(PLACES):
        file = draw.choice(files)
        content = file.read_bytes()
        file.write_bytes(damaged(content, draw) if number % 4 else content[: draw.randrange(len(content))])
        with pytest.raises(ExportError) as caught:
            YOLO(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
        file.write_bytes(content)
    assert YOLO(path).names


def test_the_checksum_is_that_of_the_network_whatever_lies_next_to_it(exported, tmp_path):
    path = copied(exported(format="ncnn"), tmp_path / "my_ncnn")
    (path / "notes.txt").write_text("x")
    assert require_intact(path)
    metadata = YOLO(path).exported.metadata
    assert metadata["checksum"].startswith("detector-sha256:") and metadata["checksum"] != PLACE
    (path / "model.ncnn.bin").write_bytes((path / "model.ncnn.bin").read_bytes() + b"\0")
    with pytest.raises(ExportError, match=r"my_ncnn: is damaged: cut short, or changed after it was written"):
        YOLO(path)


def test_a_file_without_a_checksum_is_opened_and_one_that_lost_it_is_not(tmp_path):
    for name in ("a.onnx", "empty.onnx"):
        (tmp_path / name).write_bytes(b"other tools" * name.startswith("a"))
        assert not require_intact(tmp_path / name)
        with pytest.raises(ExportError, match="its checksum is not where its metadata says"):
            write_checksum(tmp_path / name)

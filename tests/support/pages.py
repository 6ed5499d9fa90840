"""The documentation's code: its blocks, the commands in them, and a folder that has what they name."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import onnx
import pytest

from detector import YOLO
from detector.data.drawn import draw_scene
from detector.settings import CommandSettings
from support.models import write_tiny

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# ([\w.]+\.\w+)\b")

SMALL: Mapping[str, Any] = {
    "imgsz": 64, "epochs": 2, "batch": 4, "trials": 2, "count": 2, "repeats": 1, "workers": 0, "device": "cpu",
    "processes": None, "plots": False, "verbose": False, "loggers": "none", "plugins": False,
}  # fmt: skip
WHILE_RESUMED = ("workers", "plots", "verbose", "loggers", "plugins")


@dataclass(frozen=True)
class Block:
    """A block of code of a page; `line` is that of its fence."""

    page: str
    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if its first line is a comment with one."""
        found = FILE_NAME.match(self.text)
        return found[1] if found else None


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page, in its order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(page, text[: m.start()].count("\n") + 1, m[1], m[2]) for m in BLOCK.finditer(text)]


def commands_of(block: Block) -> Iterator[list[str]]:
    """Yield the words of each command of a block of shell; a loop is its first round."""
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        command: list[str] = []
        loop: dict[str, str] = {}
        for word in [*lexer, ";"]:
            if not set(word) <= set(";&|"):
                command.append(word)
                continue
            if command[:1] == ["for"]:
                loop[f"${command[1]}"] = command[3]
            elif command not in ([], ["done"]):
                words = command[1:] if command[0] == "do" else command
                yield [_looped(each, loop) for each in words]
            command = []


def _looped(word: str, loop: Mapping[str, str]) -> str:
    for name, value in loop.items():
        word = word.replace(name, value)
    return word


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that is run be small, whatever its settings say; these are checked before."""
    real = CommandSettings.parse.__func__

    def parse(cls: Any, given: Mapping[str, Any], in_file: Mapping[str, Any] | None = None) -> Any:
        settings = real(cls, given, in_file)
        small = {key: value for key, value in SMALL.items() if key in cls.model_fields}
        if given.get("resume"):
            small = {key: small[key] for key in WHILE_RESUMED} | {"epochs": 3}
        elif getattr(settings, "freeze", None):
            small["freeze"] = 2
        return real(cls, {**given, **small}, in_file)

    monkeypatch.setattr(CommandSettings, "parse", classmethod(parse))


def write_desk(folder: Path, drawn_dataset: Path) -> None:
    """Fill a folder with what the pages name: data, models, images and a run, all of them small."""
    shutil.copytree(drawn_dataset.parent / "data", folder / "shapes")
    six = drawn_dataset.read_text().replace("path: data", "path: shapes")
    for name in ("shapes.yaml", "coco8.yaml", "bccd.yaml", "raccoon.yaml"):
        (folder / name).write_text(six)
    two = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
    for name in ("mydata", "second"):
        shutil.copytree(folder / "shapes", folder / name)
        for path in (folder / name / "labels").rglob("*.txt"):
            rows = path.read_text().splitlines()
            path.write_text("".join(f"{int(row[0]) % 2}{row[1:]}\n" for row in rows))
    (folder / "second/data.yaml").write_text(two)
    (folder / "shapes/data.yaml").write_text(six.replace("path: shapes\n", ""))
    shutil.make_archive(str(folder / "export"), "zip", folder / "shapes")
    (folder / "mydata.yaml").write_text(f"path: mydata\n{two}")
    for name in ("yolo11n.yaml", "yolov8n.yaml"):
        write_tiny(folder / name)
    (folder / "newimages").mkdir()
    for index, path in enumerate(("street.jpg", "newimages/1.jpg", "newimages/2.jpg")):
        cv2.imwrite(str(folder / path), draw_scene(seed=0, index=index, size=160)[0])
    shutil.copytree(ROOT / "examples", folder / "examples")
    for page in PAGES:
        for block in blocks_of(page):
            if block.file and block.language in ("python", "yaml"):
                place = folder / "mydata" if block.file == "mydata.yaml" else folder  # as README.md has it
                (place / block.file).write_text(block.text)


def write_run(folder: Path) -> None:
    """Train a tiny model in the folder, twice, and put its weights where the pages have them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_small(patch)
        for lr0 in (0.01, 0.005):
            model = YOLO("yolo11n.yaml")
            model.train(data="mydata", epochs=2, lr0=lr0)
        for name in ("best.pt", "yolov8n.pt", "yolo11n.pt", "theirs.pt"):
            shutil.copy(model.trainer.best, name)
        shutil.copy(YOLO("runs/train/weights/best.pt").export(format="onnx"), "best.onnx")
        model = onnx.load(YOLO("theirs.pt").export(format="onnx", dynamic=True))
        del model.metadata_props[:]  # as of another tool
        onnx.save(model, "theirs.onnx")

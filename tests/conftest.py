"""Fixtures shared by all tests: a small data set drawn by the package itself, no network."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from detector.data.drawn import FORMS, make_drawn_dataset


@pytest.fixture(autouse=True, scope="session")
def _signals() -> None:
    """Let signals arrive: a shell starts what it puts into the background with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _private_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests from the user's data sets and caches, and from the network."""
    home = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DETECTOR_DATASETS", str(home / "datasets"))
    monkeypatch.setenv("DETECTOR_OFFLINE", "1")
    for variable in ("DETECTOR_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def _no_loggers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the installed loggers out of trainings, save in their own tests."""
    if "loggers" not in request.path.name:
        monkeypatch.setattr("detector.callbacks.loggers.find_spec", lambda name: None)


@pytest.fixture(scope="session")
def drawn_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a data YAML: 8 training and 4 validation scenes of 160 px, six classes. Don't change it."""
    folder = tmp_path_factory.mktemp("drawn")
    names = list(FORMS[:6])
    make_drawn_dataset(folder / "data", {"train": 8, "val": 4}, names, seed=0, size=160)
    listed = "".join(f"  {number}: {name}\n" for number, name in enumerate(names))
    yaml = folder / "drawn.yaml"
    yaml.write_text(f"path: data\ntrain: images/train\nval: images/val\nnames:\n{listed}", encoding="utf-8")
    return yaml


TINY = """
scales:
  n: [1.0, 1.0, 64]
reg_max: {reg_max}
dual_head: {dual_head}
class_branch: depthwise
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [24, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [[2, 3, 4], 1, Detect, []]
"""


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """Path of a model YAML: five convolutions and a head, for tests of the engines."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.format(reg_max=16, dual_head="false"), encoding="utf-8")
    return path


@pytest.fixture
def tiny_dual_model(tmp_path: Path) -> Path:
    """Path of a model YAML with two heads and plain distances, as in YOLO26."""
    path = tmp_path / "tiny_dual.yaml"
    path.write_text(TINY.format(reg_max=1, dual_head="true"), encoding="utf-8")
    return path


def make_finder(folder: Path, dual: bool = False) -> Path:
    """Save a tiny untrained model that finds different things in different places; returns the path."""
    import torch

    from detector import YOLO
    from detector.data.letterbox import letterbox_batch
    from detector.engine.parity import drawn_pictures

    text = TINY.format(reg_max=1 if dual else 16, dual_head=str(dual).lower())
    (folder / "tiny.yaml").write_text(f"names: [{', '.join(FORMS[:6])}]\n{text}")
    torch.manual_seed(0)
    yolo = YOLO(folder / "tiny.yaml")
    head = yolo.model.head
    for name, branch in head.named_children():
        for level in branch if name.endswith("cv3") else ():
            torch.nn.init.normal_(level[-1].weight)
            torch.nn.init.constant_(level[-1].bias, -6)
        for level in branch if name.endswith("cv2") else ():
            torch.nn.init.normal_(level[-1].weight, std=0.2)
    for module in yolo.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # averages over all that follows
    with torch.no_grad():
        images, _ = letterbox_batch(drawn_pictures((192, 192)), (192, 192))
        yolo.model.train()(images.contiguous().float() / 255)
    return yolo.save(folder / "best.pt")


@pytest.fixture
def any_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every int8 file pass its proof: an untrained network does not survive 256 steps."""
    from detector.engine import parity

    loose = {**parity.TOLERANCES, "int8": parity.Tolerance(1e9, 1.0, 0.0)}
    monkeypatch.setattr(parity, "TOLERANCES", loose)

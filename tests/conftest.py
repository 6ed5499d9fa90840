"""Fixtures shared by all tests: a small synthetic data set that the package generates, no network."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.models import make_finder, write_tiny
from support.training import draw_results, train

from detector import YOLO
from detector.data.drawn import FORMS, make_drawn_dataset
from detector.exporters import parity
from detector.exporters.parity import synthetic_images

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks PyPI for newer versions when it is imported


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


@pytest.fixture(autouse=True)
def _no_look_at_the_data(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is said of eight images out of trainings, save in the tests of it: others count what is said."""
    if "first_look" not in request.path.name:
        monkeypatch.setattr("detector.engine.loaders.first_look", lambda *_: [])


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


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """Path of a model YAML: five convolutions and a head, for tests of the engines."""
    return write_tiny(tmp_path / "tiny.yaml")


@pytest.fixture
def tiny_dual_model(tmp_path: Path) -> Path:
    """Path of a model YAML with two heads and plain distances, as in YOLO26."""
    return write_tiny(tmp_path / "tiny_dual.yaml", dual=True)


@pytest.fixture
def train_tiny(tiny_model: Path, drawn_dataset: Path, tmp_path: Path) -> Callable[..., YOLO]:
    """Train the tiny model on `drawn_dataset`; see `support.training.train`. Every argument can be given."""

    def train_tiny(*callbacks: Any, model: YOLO | Path = tiny_model, **settings: Any) -> YOLO:
        return train(model, *callbacks, **({"data": drawn_dataset, "project": tmp_path} | settings))

    return train_tiny


@pytest.fixture
def train_logged(train_tiny: Callable[..., YOLO]) -> Callable[..., list[dict[str, float]]]:
    """Like `train_tiny`, with the named loggers only, and a results.png to log; return each epoch's metrics."""

    def train_logged(*callbacks: Any, **settings: Any) -> list[dict[str, float]]:
        seen: list[dict[str, float]] = []
        note = ("on_fit_epoch_end", lambda trainer: seen.append(dict(trainer.metrics)))
        quiet = {"plugins": False, "loggers": "none"}
        train_tiny(note, ("on_train_end", draw_results), *callbacks, **(quiet | settings))
        return seen

    return train_logged


@pytest.fixture(scope="session")
def finder_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of weights with one head that find different things, untrained. Don't change it."""
    return make_finder(tmp_path_factory.mktemp("finder"))


@pytest.fixture(scope="session")
def dual_finder_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise with two heads."""
    return make_finder(tmp_path_factory.mktemp("dual_finder"), dual=True)


@pytest.fixture
def trained(finder_weights: Path, tmp_path: Path) -> YOLO:
    """A model of `finder_weights`, as best.pt in the test's own folder."""
    return YOLO(shutil.copy(finder_weights, tmp_path / "best.pt"))


@pytest.fixture
def dual(dual_finder_weights: Path, tmp_path: Path) -> YOLO:
    """A model of `dual_finder_weights`, as dual.pt in the test's own folder."""
    return YOLO(shutil.copy(dual_finder_weights, tmp_path / "dual.pt"))


@pytest.fixture(scope="session")
def exported(finder_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export `finder_weights` for 96 px with some options; the same ones once only. Don't change the files."""
    done: dict[tuple[tuple[str, Any], ...], Path] = {}

    def export(**options: Any) -> Path:
        key = tuple(sorted(options.items()))
        if key not in done:
            folder = tmp_path_factory.mktemp("exported")
            done[key] = YOLO(finder_weights).export(folder=folder, imgsz=96, verbose=False, **options)
        return done[key]

    return export


@pytest.fixture
def sample_image() -> NDArray[np.uint8]:
    """An image that is not square."""
    return synthetic_images((192, 192))[0][:150]


@pytest.fixture
def any_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every int8 file pass its parity check: an untrained network does not survive 256 steps."""
    loose = {**parity.TOLERANCES, "int8": parity.Tolerance(1e9, 1.0, 0.0)}
    monkeypatch.setattr(parity, "TOLERANCES", loose)

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import pytest

from detector import YOLO
from detector.errors import CheckpointError, DataError, SettingsError
from detector.files.folders import cache_dir, datasets_dir, expand_home, is_offline, resource_dir

ROOT = Path(__file__).resolve().parents[1]


def test_the_cache_follows_detector_cache_then_xdg_then_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir("labels") == tmp_path / ".cache/detector/labels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir("weights") == tmp_path / "xdg/detector/weights"
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "own"))
    assert cache_dir("downloads") == tmp_path / "own/downloads"


def test_on_windows_the_cache_lies_in_localappdata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_dir("labels").parts[-4:-2] != ("local", "detector")
    monkeypatch.setattr("sys.platform", "win32")
    assert cache_dir("labels") == tmp_path / "local/detector/labels"


def test_home_and_relative_folders_are_expanded_and_empty_is_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for variable, folder in (("DETECTOR_CACHE", cache_dir), ("DETECTOR_DATASETS", lambda _: datasets_dir())):
        tail = Path("labels") if variable == "DETECTOR_CACHE" else Path()
        monkeypatch.setenv(variable, "~/kept")
        assert folder("labels") == tmp_path / "home/kept" / tail
        monkeypatch.setenv(variable, "kept")
        assert folder("labels") == tmp_path / "kept" / tail
        monkeypatch.setenv(variable, "")
        assert folder("labels").is_relative_to(tmp_path / "home/.cache/detector")


def test_data_sets_lie_in_the_cache_unless_they_have_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path))
    monkeypatch.setenv("DETECTOR_DATASETS", str(tmp_path / "sets"))
    assert datasets_dir() == tmp_path / "sets"
    monkeypatch.delenv("DETECTOR_DATASETS")
    assert datasets_dir() == tmp_path / "datasets"


def test_every_cache_follows_detector_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels' index, weights by name and images by address, each asked for where it is made."""
    from detector.checkpoints import published
    from detector.data import sources
    from detector.data.label_cache import label_cache_path
    from detector.files import download

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTOR_CACHE", "kept")
    monkeypatch.delenv("DETECTOR_OFFLINE")
    places = [label_cache_path("images", ["a.jpg"])]

    def fetch(url: str, destination: Path, **_: int) -> Path:
        places.append(destination)
        return destination

    monkeypatch.setattr(download, "download", fetch)
    monkeypatch.setattr(published, "download", fetch)
    published.resolve_weights("yolo11n.pt")
    sources.open_source("https://host/street.jpg")
    folders = [place.relative_to(tmp_path / "kept").parts[0] for place in places]
    assert folders == ["labels", "weights", "downloads"]


@pytest.mark.parametrize(("value", "offline"), [("", False), ("0", False), ("No", False), ("1", True)])
def test_offline_is_yes_or_no(monkeypatch: pytest.MonkeyPatch, value: str, offline: bool) -> None:
    monkeypatch.setenv("DETECTOR_OFFLINE", value)
    assert is_offline() == offline


def test_the_docs_list_every_variable_that_is_read() -> None:
    """Those named where the environment is asked, and names with the prefix of a tool that has many."""
    asked = re.compile(
        r'(?:environ(?:ment)?\.(?:get|pop)|getenv|_folder)\(\s*"(\w+)"|environ\[\s*"(\w+)"'
        r'|"(\w+)" (?:not )?in os\.environ'
        r'|\b((?:DETECTOR|XDG|MLFLOW|WANDB|COMET)_[A-Z_]+)(?="|=)'
    )
    read = set()
    for path in (ROOT / "detector").rglob("*.py"):
        for groups in asked.findall(path.read_text(encoding="utf-8")):
            read.update(name for name in groups if name)
    assert {"DETECTOR_CACHE", "XDG_CACHE_HOME", "DISPLAY", "NETRC", "COMET_AUTO_LOG_CODE"} <= read
    table = (ROOT / "docs/environment.md").read_text(encoding="utf-8").partition("| variable |")[2]
    rows = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == read


def test_packaged_folders_are_found() -> None:
    assert (resource_dir("cfg") / "default.yaml").is_file()
    assert (resource_dir("datasets") / "coco8.yaml").is_file()


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An account of a container: no HOME, no passwd entry; returns its folder for temporary files."""
    if sys.platform == "win32":
        pytest.skip("accounts of Windows have a home")

    def no_entry(_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME")
    for name in ("getpwuid", "getpwnam"):
        monkeypatch.setattr(f"pwd.{name}", no_entry)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_an_account_without_home_keeps_its_caches_in_a_temporary_folder_of_its_own(no_home: Path) -> None:
    folder = cache_dir("labels").parent
    assert folder.parent == no_home and folder.stat().st_mode & 0o777 == 0o700
    assert expand_home("~/a.jpg") == Path("~/a.jpg")
    folder.rmdir()
    folder.symlink_to(no_home)
    with pytest.raises(
        SettingsError, match=r"this account has no home, and .* can't be used; set DETECTOR_CACHE"
    ):
        cache_dir("labels")


def test_without_home_what_lies_there_does_not_exist(no_home: Path, tiny_model: Path) -> None:
    with pytest.raises(CheckpointError, match="do not exist"):
        YOLO("~/best.pt")
    with pytest.raises(DataError, match="does not exist"):
        YOLO(tiny_model).predict("~/street.jpg")
    with pytest.raises(DataError, match="mine"):
        YOLO(tiny_model).train(data="~/mine.yaml", project=no_home)

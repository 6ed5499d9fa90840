from __future__ import annotations

import logging
from pathlib import Path

import pytest

from detector.checkpoints import published
from detector.checkpoints.published import resolve_weights
from detector.errors import CheckpointError, DataError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and an empty cache."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "here"


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses fetched; every one gives a small file."""
    addresses: list[str] = []

    def fetch(url: str, destination: Path, **limits: int) -> Path:
        assert limits == {"max_bytes": 1 << 30}
        addresses.append(url)
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(b"weights")
        return destination

    monkeypatch.setattr(published, "download", fetch)
    monkeypatch.delenv("DETECTOR_OFFLINE")
    return addresses


def test_a_known_name_is_fetched_once_and_its_licence_is_said_once(
    here: Path, fetched: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    paths = [resolve_weights("yolo26n.pt") for _ in range(3)]
    assert paths == [here.parent / "cache" / "weights" / "yolo26n.pt"] * 3
    assert fetched == ["https://github.com/ultralytics/assets/releases/download/v8.4.0/yolo26n.pt"]
    warned = [record for record in caplog.records if "AGPL-3.0" in record.message]
    assert [record.levelno for record in warned] == [logging.WARNING]
    assert list(here.iterdir()) == []


def test_a_file_that_exists_comes_first(here: Path, fetched: list[str]) -> None:
    (here / "yolo11n.pt").write_bytes(b"mine")
    assert resolve_weights("yolo11n.pt").read_bytes() == b"mine"
    assert not fetched


def test_offline_says_what_to_fetch_and_where_to_put_it(here: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"'yolov8n.pt' are neither at .* DETECTOR_OFFLINE is set"
    ) as caught:
        resolve_weights("yolov8n.pt")
    assert "https://github.com/ultralytics/assets/releases" in str(caught.value)
    assert "AGPL-3.0" in str(caught.value)


def test_a_failed_download_is_one_sentence(
    here: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(url: str, destination: Path, **_: int) -> Path:
        raise DataError(f"downloading {url} failed: no route to host.")

    monkeypatch.setattr(published, "download", fail)
    with pytest.raises(CheckpointError, match=r"can't be fetched: downloading .* no route to host"):
        resolve_weights("yolov8n.pt")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("yolo26q.pt", "did you mean 'yolo26"),
        ("folder/yolo26n.pt", ""),
        ("best.pt", ""),
        ("yolo26n.pth", "did you"),
    ],
)
def test_other_files_are_never_fetched(here: Path, fetched: list[str], asked: str, hint: str) -> None:
    with pytest.raises(CheckpointError, match="do not exist") as caught:
        resolve_weights(asked)
    assert hint in str(caught.value)
    assert not fetched

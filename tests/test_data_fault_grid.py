import shutil

import cv2
import numpy as np
import pytest
from support.spoiled import FAULTS, make_healthy

from detector.cli import main
from detector.data import fault_grid
from detector.data.doctor import check
from detector.data.fault_grid import choose_cases, draw_faults
from detector.data.findings import Case, Report
from detector.errors import DataError

PLANTED = ("random_bytes", "box_over_the_edge", "box_nearly_twice", "image_grey", "class_never_used")


@pytest.fixture
def spoiled(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))
    root = make_healthy(tmp_path / "set")
    rng = np.random.default_rng(1)
    for name in PLANTED:  # in five different images
        FAULTS[name](root, rng)
    return root


def test_the_worst_is_drawn_first_with_its_boxes_and_what_it_is(spoiled, tmp_path, monkeypatch):
    drawn = []
    mosaic = fault_grid.mosaic
    monkeypatch.setattr(
        fault_grid, "mosaic", lambda *given, **rest: drawn.append(given) or mosaic(*given, **rest)
    )
    path = draw_faults(check(spoiled), tmp_path / "faults.png")
    ((_, boxes, labels, _, names, titles, *_),) = drawn
    assert [title.split(":")[0] for title in titles] == [
        "error image-unreadable", "warning box-outside", "warning box-twice", "note image-grey",
    ]  # fmt: skip
    assert [len(found) for found in boxes] == [0, 1, 2, 0]
    assert names[int(labels[2][0])] == "box-twice"
    assert cv2.imread(str(path)).shape == (960, 960, 3)


def test_of_many_cases_every_kind_is_shown():
    report = Report("data")
    for number in range(10):
        paths = [f"{number}-{n}.jpg" for n in range(9)]
        report.add("warning", f"kind{number}", "", "what", paths, cases=[Case(path) for path in paths])
    chosen = choose_cases(report)
    assert len(chosen) == 24
    assert [case.path for _, case in chosen][:4] == ["0-0.jpg", "0-1.jpg", "0-2.jpg", "1-0.jpg"]
    assert {finding.kind for finding, _ in chosen} == {f"kind{n}" for n in range(10)}


def test_the_command_writes_a_file_only_if_asked_and_overwrites_none(spoiled, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*.jpg"))
    assert main(["check", f"data={spoiled}"]) == 3
    assert sorted(tmp_path.rglob("*.jpg")) == before
    place = tmp_path / "faults.jpg"
    assert main(["check", f"data={spoiled}", f"grid={place}"]) == 3
    assert place.exists()
    assert f"grid: {place}" in capsys.readouterr().err
    content = place.read_bytes()
    assert main(["check", f"data={spoiled}", f"grid={place}"]) == 3
    assert "is there already; nothing is overwritten" in capsys.readouterr().err
    assert place.read_bytes() == content


def test_nothing_is_written_where_there_is_nothing_to_show(spoiled, tmp_path):
    assert draw_faults(Report("data"), tmp_path / "none.jpg") is None
    assert not (tmp_path / "none.jpg").exists()
    with pytest.raises(DataError, match=r"images of suffix '.txt' can't be written; try faults.jpg"):
        draw_faults(check(spoiled), tmp_path / "faults.txt")
    shutil.rmtree(spoiled)

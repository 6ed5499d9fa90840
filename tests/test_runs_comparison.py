import json

import cv2
import pytest
from support.runs import write_run

from detector.cli import main
from detector.errors import DataError, SettingsError
from detector.runs.comparison import chart_text, compare_runs, comparison_text, short_names
from detector.runs.comparison_plot import plot_comparison


@pytest.fixture
def two(tmp_path):
    """Two runs of 3 and 5 epochs; the second is better by 0.1, and has one class more."""
    first = write_run(tmp_path / "a", 3, settings={"lr0": 0.01})
    return [
        first,
        write_run(tmp_path / "b", 5, offset=0.1, settings={"lr0": 0.02}, names=("cat", "dog", "owl")),
    ]


def test_what_differs_is_found(two):
    found = compare_runs(two)
    assert found.settings() == {"epochs": [3, 5], "lr0": [0.01, 0.02]} and found.facts() == {}
    assert found.best()["metrics/mAP50-95"] == [0.5, 0.6] and found.best()["epoch"] == [3, 5]
    assert found.class_values() == {
        "cat": [0.5, pytest.approx(0.6)], "dog": [pytest.approx(0.4), pytest.approx(0.5)],
        "owl": [None, pytest.approx(0.4)],
    }  # fmt: skip
    assert found.curve(0, "train/box_loss")[0] == [1, 2, 3] and found.problems == []


def test_classes_that_differ_the_most_come_first(tmp_path):
    runs = [write_run(tmp_path / name) for name in "ab"]
    for run, values in zip(runs, ((0.5, 0.5, 0.5), (0.4, 0.8, 0.51)), strict=True):
        rows = [{"class": name, "mAP50-95": value} for name, value in zip("xyz", values, strict=True)]
        (run / "classes.json").write_text(json.dumps(rows))
    assert list(compare_runs(runs).class_values()) == ["y", "x", "z"]
    lines = [line.split() for line in comparison_text(compare_runs(runs)).splitlines()]
    assert ["y", "0.500", "0.800", "+0.300"] in lines and ["x", "0.500", "0.400", "-0.100"] in lines


def test_the_text_has_settings_metrics_curves_and_classes(two):
    lines = comparison_text(compare_runs(two)).splitlines()
    assert lines[:2] == ["A  a  finished, 3 of 3 epochs", "B  b  finished, 5 of 5 epochs"]
    assert [line.split() for line in lines if line.startswith("lr0")] == [["lr0", "0.01", "0.02"]]
    assert ["metrics/mAP50-95", "0.500", "0.600"] in [line.split() for line in lines]
    assert [line.split() for line in lines if line.startswith("cat")] == [["cat", "0.500", "0.600", "+0.100"]]
    chart = [line for line in lines if "|" in line]
    assert chart[0].endswith("B") and "A" not in chart[0] and chart[-1].split("|")[1].startswith("A")


def test_runs_that_agree_are_said_to(tmp_path):
    found = compare_runs([write_run(tmp_path / name) for name in "ab"])
    text = comparison_text(found)
    assert "no setting differs" in text and "per class" not in text
    assert "*" in chart_text(found, "AB") and "A" not in chart_text(found, "AB").replace("mAP", "")


def test_runs_of_other_data_are_not_compared_without_a_word(tmp_path):
    data = {"name": "birds.yaml", "fingerprint": "ff", "train_images": 8, "val_images": 4, "classes": 2}
    found = compare_runs([write_run(tmp_path / "a"), write_run(tmp_path / "b", data=data)])
    assert found.problems == [
        "the runs were trained on different data: their metrics are not those of the same images"
    ]
    assert found.facts()["data name"] == ["pets.yaml", "birds.yaml"]


def test_the_image_is_drawn_and_out_none_draws_none(two, tmp_path, capsys):
    path = plot_comparison(compare_runs(two), tmp_path / "out.png")
    image = cv2.imread(str(path))
    assert image.shape[1] > 1000 and len({tuple(pixel) for pixel in image[::7, ::7].reshape(-1, 3)}) > 10
    assert main(["compare", *map(str, two), f"out={tmp_path / 'mine.jpg'}"]) == 0
    assert (
        capsys.readouterr().err == f"curves: {tmp_path / 'mine.jpg'}\n" and (tmp_path / "mine.jpg").is_file()
    )
    assert main(["compare", *map(str, two), "out=none"]) == 0
    assert capsys.readouterr().err == ""


def test_as_json(two, capsys):
    assert main(["compare", *map(str, two), "out=none", "json=true"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == {"epochs": [3, 5], "lr0": [0.01, 0.02]}
    assert found["curves"]["metrics/mAP50-95"][0] == {
        "1": pytest.approx(1 / 6),
        "2": pytest.approx(1 / 3),
        "3": 0.5,
    }


def test_names_of_strangers_do_nothing_to_a_terminal_or_the_image(tmp_path, capsys):
    odd = "\x1b[31m$x^{$ 猫 <script>" + "y" * 300_000
    runs = [
        write_run(tmp_path / name, offset=o, names=(odd, "b")) for name, o in (("a\x1b[2J$", 0), ("猫", 0.1))
    ]
    assert main(["compare", *map(str, runs), f"out={tmp_path / 'out.png'}"]) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and len(out) < 10_000 and (tmp_path / "out.png").is_file()


def test_runs_without_epochs_have_no_curves(tmp_path):
    runs = [write_run(tmp_path / name, best=None) for name in "ab"]
    for run in runs:
        (run / "metrics.jsonl").unlink()
        (run / "classes.json").write_text("broken")
    found = compare_runs(runs)
    assert chart_text(found, "AB") == "" and len(found.problems) == 2
    with pytest.raises(SettingsError, match="no run has ended an epoch"):
        plot_comparison(found, tmp_path / "out.png")


def test_names_are_as_short_as_they_can_be():
    assert short_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert short_names(["x/train", "y/train"]) == ["x/train", "y/train"]
    assert short_names(["x/train", "x/train"])[0].endswith("x/train (1)")


def test_one_run_too_many_and_no_run_are_refused(two, tmp_path):
    for folders in ([], two[:1], [two[0]] * 13):
        with pytest.raises(SettingsError, match=f"compare: {len(folders)} runs were given; expected 2 to 12"):
            compare_runs(folders)
    with pytest.raises(DataError, match=r"has no status.json"):
        compare_runs([two[0], tmp_path])

"""The scripts under examples/: five that show callbacks, and pseudo-labels; on a tiny model and few images."""

import csv
import re
import runpy
import shutil
from pathlib import Path

import pytest

from detector import YOLO
from detector.checkpoints.checkpoint import load_checkpoint
from detector.data.config import load_data_config

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def example(tiny_model, drawn_dataset, tmp_path, capsys):
    """Run a script's main() with tiny settings; returns the lines it prints."""

    def run(name, **arguments):
        main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
        quick = {
            "data": str(drawn_dataset),
            "project": str(tmp_path),
            "imgsz": 64,
            "batch": 4,
            "fraction": 1.0,
        }
        quick |= {"workers": 0, "device": "cpu", "loggers": "none", "plugins": False}
        main(tiny_model, **(quick | arguments))
        return capsys.readouterr().out.splitlines()

    return run


def test_every_script_says_how_to_run_it_and_needs_no_arguments():
    scripts = sorted(EXAMPLES.glob("callbacks_*.py"))
    assert len(scripts) == 5
    for script in scripts:
        text = script.read_text()
        assert f"    python examples/{script.name}\n" in text
        assert '"data": "shapes.yaml"' in text


def test_print_per_epoch_prints_one_line_per_epoch_and_the_weights(example, tmp_path):
    lines = example("callbacks_print_per_epoch", epochs=2)
    assert len(lines) == 3
    assert re.fullmatch(r"epoch 1 of 2: box loss \d+\.\d{3}, mAP50 \d\.\d{4} \*", lines[0])
    assert re.fullmatch(r"epoch 2 of 2: box loss \d+\.\d{3}, mAP50 \d\.\d{4}( \*)?", lines[1])
    best = max(number for number in (1, 2) if lines[number - 1].endswith("*"))  # of equals the later one
    assert lines[2] == f"the best was epoch {best}: {tmp_path}/train/weights/best.pt"


def test_stop_on_own_metric_ends_the_run_and_puts_the_metric_into_the_csv_file(example, tmp_path):
    lines = example("callbacks_stop_on_own_metric", goal=0.0)
    assert re.fullmatch(r"epoch 1: F2 \d\.\d{3}", lines[0])
    assert lines[1] == "the goal of 0 is reached, so training stops"
    assert lines[2] == f"trained 1 of 12 epochs; metrics: {tmp_path}/train/results.csv"
    with (tmp_path / "train/results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert f"{float(row['my/F2']):.3f}" == lines[0].rpartition(" ")[2]


def test_stop_on_own_metric_continues_while_the_goal_is_not_reached(example):
    lines = example("callbacks_stop_on_own_metric", goal=2.0, epochs=2)
    assert lines[-1].startswith("trained 2 of 2 epochs")


def test_learning_rate_shows_the_schedule_the_scaled_one_and_the_one_by_hand(example):
    header, *rows = example("callbacks_learning_rate")
    assert header.split() == ["epoch", "schedule", "halved", "by", "hand"]
    epochs, scheduled, halved, by_hand = zip(*(map(float, row.split()) for row in rows), strict=True)
    assert epochs == (1, 2, 3, 4)
    assert scheduled[0] > scheduled[1] > scheduled[2] > scheduled[3] > 0
    assert halved == pytest.approx([*scheduled[:2], *(rate / 2 for rate in scheduled[2:])], abs=1e-5)
    assert by_hand == (0.00096, 0.00069, 0.00031, 0.00004)  # a cosine at batch 1, 3, 5 and 7 of 8


def test_collect_frames_pairs_every_result_with_its_frame(example):
    lines = example("callbacks_collect_frames", epochs=1, conf=0.0)
    frames = [line for line in lines if not line.startswith("  ")]
    assert len(frames) == 4
    assert all(re.search(r"\d+ objects on a frame of \d+ x \d+ px$", line) for line in frames)
    confident = [line for line in lines if line.startswith("  most confident: ")]
    assert len(confident) == 4
    assert all(re.search(r"mean colour \(BGR\) \[\d+, \d+, \d+\]$", line) for line in confident)


def test_state_comes_back_and_the_run_ends_as_one_that_was_not_interrupted(example, tiny_model, tmp_path):
    interrupted, came_back, at_the_end = example("callbacks_state")
    in_two_epochs, in_four = (part.partition(":")[2].strip() for part in (came_back, at_the_end))
    assert interrupted.startswith("interrupted:  ") and came_back.startswith("came back:    ")
    assert "losses of 2 epochs" in in_two_epochs and "losses of 4 epochs" in in_four
    objects = [int(line.split()[0]) for line in (interrupted.partition(":")[2], in_two_epochs)]
    assert objects[0] == objects[1], "what was counted in the epoch that was cut off is in the state"

    diary = runpy.run_path(str(EXAMPLES / "callbacks_state.py"))["Diary"]()
    saved = load_checkpoint(tmp_path / "train/weights/state.pt")["settings"]
    YOLO(tiny_model).train(**(saved | {"name": "whole", "callbacks": [diary]}))
    assert str(diary) == in_four


def test_pseudo_labels_are_trained_on_and_the_validation_images_stay(
    tiny_model, drawn_dataset, tmp_path, capsys
):
    data, new = load_data_config(drawn_dataset), tmp_path / "new"
    new.mkdir()
    for image in data.split_images("val")[:2]:
        shutil.copy(image, new)
    main = runpy.run_path(str(EXAMPLES / "pseudo_labels.py"))["main"]
    quick = {"epochs": 1, "imgsz": 64, "batch": 4, "workers": 0, "device": "cpu", "loggers": "none"}
    out = tmp_path / "pseudo"
    main(drawn_dataset, new, out, tiny_model, conf=0.0, project=tmp_path, plugins=False, **quick)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == f"2 images have pseudo-labels now: {out}"
    assert re.fullmatch(r"mAP50-95 \d\.\d{3} without them, \d\.\d{3} with them: .*best\.pt", lines[-1])
    both = load_data_config(out)
    added = sorted(path.name for path in both.split_images("train") if path.name.startswith("pseudo-"))
    assert [Path(name).stem for name in added] == ["pseudo-0", "pseudo-1"]
    assert len(both.split_images("train")) == len(data.split_images("train")) + 2
    assert len(both.split_images("val")) == len(data.split_images("val"))
    assert all((out / f"labels/train/pseudo-{number}.txt").read_text() for number in range(2))

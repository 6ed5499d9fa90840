"""Every benchmark runs, on very little data, with a fake peer."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

PEER = """
__version__ = "1.2.3"
settings = {}

class YOLO:
    def __init__(self, model):
        assert model == "yolo11n.yaml", model
        self.model, self.callbacks = self, {}

    def load_state_dict(self, weights):
        assert "model.0.conv.weight" in weights

    def add_callback(self, event, fn):
        self.callbacks[event] = fn

    def export(self, format, dynamic, imgsz):
        assert (format, imgsz) in {("onnx", 128), ("openvino", 128)}
        return "yolo11n.yaml"

    def predict(self, image, imgsz, device, verbose):
        assert image.shape == (1080, 810, 3), image.shape
        self.callbacks.get("on_predict_start", id)(self)
        return [self]

    boxes = [0] * 7
"""


@pytest.fixture
def bench(drawn_dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """Run some sections on synthetic images and return what they print, line by line."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.__main__ import main

    def run(only: str, *arguments: str) -> list[str]:
        main(["--only", only, "--quick", "--device", "cpu", "--data", str(drawn_dataset), *arguments])
        return capsys.readouterr().out.splitlines()

    return run


def first_words(lines: list[str]) -> list[list[str]]:
    """The first two words of every row below a table's header."""
    table = lines[lines.index("") + 2 :]
    return [line.split()[:2] for line in table]


def test_what_the_peer_runs_loads_nothing_of_ours():
    modules = "training, validation, prediction, exported, sweep, peer"
    code = f"import sys; from benchmarks import {modules}; print([m for m in sys.modules if m.startswith('detector')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_backends_that_differ_are_an_error(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import evaluation

    cases = list(evaluation.draw_cases(3, detections=9, labels=4, classes=2, seed=0))
    names = {0: "a", 1: "b"}
    whole, part = (evaluation.measure("pycocotools", names, some)[1] for some in (cases, cases[:2]))
    evaluation.require_equal(whole, whole)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        evaluation.require_equal(whole, part)


def test_training_compares_the_trainer_with_a_bare_loop(bench):
    rows = first_words(bench("training"))
    assert rows[-1] == ["yolo11n", "ours"]
    assert rows[:-1] and all(row == ["yolo11n", "bare"] for row in rows[:-1])


def test_validation_compares_the_validator_with_the_bare_network(bench):
    rows = first_words(bench("validation"))
    assert rows[-1] == ["yolo11n", "ours"]
    assert rows[:-1] and all(row == ["yolo11n", "bare"] for row in rows[:-1])


def test_loading_and_evaluation_print_a_table_each(bench):
    lines = bench("loading,evaluation")
    assert [line.split(",")[0] for line in lines if ", " in line][-2:] == ["loading", "evaluation"]
    assert sum(line.startswith("64 px ours") for line in lines) == 2


def test_mixes_print_the_speed_of_each_setting(bench):
    rows = [line.split() for line in bench("mixes") if "mosaic" in line]
    assert [row[1] for row in rows] == ["64", "mixup=1", "cutmix=1", "copy_paste=1", "balance=1"]
    assert all(float(speed) > 0 for row in rows for speed in row[-2:])


def test_reading_labels_is_timed_twice_the_second_time_from_the_label_cache(bench):
    lines = bench("scan")
    starts = [line.split() for line in lines if " start " in line]
    first, second = ["first", "start", "8", "56"], ["second", "start", "8", "56"]
    assert [row[-7:-3] for row in starts] == [first, second, first, second]
    assert [line.split()[1:3] for line in lines if line.startswith("pycocotools")] == [["8", "56"]]


def test_a_check_is_timed_twice_and_the_look_before_a_training(bench):
    rows = [line.split() for line in bench("check")]
    found = [
        row[:4]
        for row in rows
        if row[:2] in (["first", "check"], ["second", "check"], ["before", "training"])
    ]
    assert [row[2:] for row in found] == [["8", "56"]] * 3


def test_an_event_costs_less_without_functions_and_callbacks_a_share_of_a_training(bench):
    rows = [line.rsplit(maxsplit=3) for line in bench("callbacks")]
    cells = {row[0]: row[1:] for row in rows if len(row) == 4}
    nothing, one = int(cells["nothing registered"][0]), int(cells["one function"][0])
    assert 0 < nothing < one
    training, together = float(cells["yolo11n, 2 epochs"][1]), float(cells["its callbacks, all"][1])
    assert 0 < together < training
    named = {name: float(seconds) for name, (_, seconds, _) in cells.items() if name.startswith("  ")}
    assert len(named) == 5 and 0 < max(named.values()) <= together
    assert any("Pictures" in name for name in named)


@pytest.fixture
def peer(tmp_path):
    """A virtual environment with the fake peer."""
    (tmp_path / "site/ultralytics").mkdir(parents=True)
    (tmp_path / "site/ultralytics/__init__.py").write_text(PEER)
    (tmp_path / "venv/bin").mkdir(parents=True)
    python = tmp_path / "venv/bin/python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{tmp_path}/site" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return str(tmp_path / "venv")


@pytest.mark.skipif(os.name == "nt", reason="the fake peer is a shell script")
def test_prediction_finds_boxes_and_times_the_peer_in_its_own_environment(bench, peer):
    lines = bench("prediction", "--peer", peer)
    ours = [line.split() for line in lines if line.startswith("yolo11n ours")]
    theirs = [line.split() for line in lines if line.startswith("yolo11n peer 1.2.3")]
    assert ours and all(int(row[5]) > 0 for row in ours)
    assert [row[-3] for row in theirs] == ["7", "7"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the fake peer is a shell script")
def test_exported_files_are_compared_with_their_runtime_and_the_peer(bench, peer):
    lines = bench("exported", "--peer", peer)
    rows = [line.split() for line in lines if line.startswith("yolo11n")]
    kinds = [(row[1], *row[-6:-4]) if row[1] != "peer" else ("peer", *row[3:5]) for row in rows]
    expected = [
        (side, name, size)
        for name in ("onnx", "openvino")
        for size in ("fixed", "dynamic")
        for side in ("bare", "ours", "peer")
    ]
    assert kinds == expected
    assert all(int(row[-3]) > 0 for row in rows if row[1] == "ours")


def test_a_peer_that_fails_is_reported_in_one_line(bench, tmp_path):
    lines = bench("prediction", "--peer", str(tmp_path / "nowhere"))
    assert sum(line.startswith("peer: prediction not measured: ") for line in lines) == 2
    assert any(line.startswith("yolo11n ours") for line in lines)


def test_an_unknown_section_is_refused(bench, capsys):
    with pytest.raises(SystemExit):
        bench("trainign")
    assert (
        "--only trainign: the sections are training, processes, orthogonalization, scan"
        in capsys.readouterr().err
    )


def test_trainings_on_few_images_are_compared_over_seeds(
    drawn_dataset, tiny_model, tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.stability import main

    main([f"--data={drawn_dataset}", f"--model={tiny_model}", "--images=4,8", "--seeds=2", "--epochs=1", "--imgsz=64",
          f"--project={tmp_path}", "device=cpu"])  # fmt: skip
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()][-2:]
    assert [row[:2] for row in rows] == [["4", "2"], ["8", "2"]]
    assert all(row[3] == row[5] for row in rows), "the only epoch is the last"
    assert all(row[-4] == "0" for row in rows), "none of them leaves the bounds"


def test_a_training_out_of_bounds_is_counted(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.stability import Watch

    def watch(*epochs):
        watched = Watch()
        watched.losses, watched.scores = map(list, zip(*epochs, strict=True))
        return watched

    assert watch((4.0, 0.0), (0.0001, 0.5)).sane
    assert not any(
        watch((4.0, 0.0), epoch).sane for epoch in ((21.0, 0.3), (0.0001, 0.0), (float("nan"), 0.0))
    )


def test_ways_to_keep_the_statistics_are_compared(drawn_dataset, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.batch_norm import WAYS, main

    plot = tmp_path / "plot.png"
    main([f"--data={drawn_dataset}", f"--model={tiny_model}", "--epochs=3", "--imgsz=64", "--batch=4",
          f"--project={tmp_path}", f"--output={plot}", "lr0=0.01", "device=cpu"])  # fmt: skip
    header, *rows = [
        line for line in capsys.readouterr().out.splitlines() if ":" in line or line[:1].isdigit()
    ]
    assert all(way in header for way in WAYS)
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    (results,) = tmp_path.rglob("results.csv")
    with results.open(newline="") as file:
        losses = [f"{float(line['val/cls_loss']):.3g}" for line in csv.DictReader(file)]
    table = [row.replace(",", "").split() for row in rows]
    assert [cells[6] for cells in table] == losses  # the training's way is its own validation
    assert all(cells[2:4] != cells[8:10] and float(cells[14]) > 0 for cells in table)
    assert table[0][6:8] != table[0][8:10]  # a part of the running statistics
    assert plot.stat().st_size > 5000


def test_processes(bench) -> None:  # type: ignore[no-untyped-def]
    assert first_words(bench("processes")) == [["yolo11n", "one"], ["yolo11n", "one,"], ["yolo11n", "two"]]


def test_what_processes_exchange_is_counted_from_the_network():
    from benchmarks.arithmetic import build, orthogonalization_gflops, traffic

    parameters = sum(p.numel() for p in build("yolo11n").parameters())
    row = traffic("yolo11n", [2, 4], 64)
    assert row[2:5] == [f"{4 * parameters / 1e6 * part:.1f}" for part in (1, 1, 1.5)]
    # five times 4 * 10 * 10 * 90 + 2 * 10 ** 3
    assert orthogonalization_gflops([torch.Size((90, 10))]) == 5 * 38_000 / 1e9


def test_the_record_of_a_run_is_measured_by_what_writes_it(bench, monkeypatch):
    from benchmarks import runs

    for name, value in {"RUNS": 2, "EPOCHS": 3, "REPEATS": 1}.items():
        monkeypatch.setattr(runs, name, value)
    lines = bench("runs")
    assert sum(line.startswith("detector runs") for line in lines) == 3
    rows = [line.rsplit(maxsplit=3) for line in lines if line.startswith(("yolo11n", "its "))]
    assert [row[0] for row in rows] == ["yolo11n, 2 epochs", "its RunStatus, all", "its Report, all"]
    training, *parts = (float(row[1]) for row in rows)
    assert all(0 < part < training for part in parts)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="trainings are forked")
def test_a_sweep_trains_each_variant_once_and_continues(drawn_dataset, tiny_model, tmp_path):
    """In a process of its own: threads of the test runner must not be forked."""
    results = tmp_path / "found.jsonl"
    words = ["--data", str(drawn_dataset), "--models", str(tiny_model.with_suffix("")), "--jobs", "2"]
    words += ["--project", str(tmp_path / "runs"), "--results", str(results), "--variant", "now:"]
    words += ["epochs=1", "imgsz=64", "batch=4", "workers=0", "device=cpu"]
    command = [sys.executable, "-m", "benchmarks.sweep", *words]
    subprocess.run([*command, "--seeds", "0"], cwd=ROOT, check=True, timeout=300)
    again = [*command, "--seeds", "0,1", "--variant", "less:sgd=0.1,optimizer=MuSGD"]
    out = subprocess.run(again, cwd=ROOT, check=True, timeout=300, capture_output=True, text=True).stdout
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert {(row["seed"], row["variant"]) for row in found} == {
        (s, v) for s in (0, 1) for v in ("now", "less")
    }
    assert len(found) == 4 and all(len(row["curve"]) == len(row["seconds"]) == 1 for row in found)
    assert [line.split()[2] for line in out.splitlines()[-2:]] == ["less", "now"]


def test_a_sweep_report_compares_variants_by_seed(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.sweep_report import main

    def line(variant, seed, curve, losses):
        return json.dumps(
            {"data": "d/cells.yaml", "model": "yolo11n", "seed": seed, "variant": variant, "curve": curve}
            | {"class_loss": losses, "seconds": [1.0, 2.0 + seed]}
        )

    results, plot = tmp_path / "found.jsonl", tmp_path / "curves.png"
    lines = [line("random", 0, [0.1, 0.2], [9.0, 3.0]), line("random", 1, [0.3, 0.4], [2.5, 2.0])]
    lines += [line("starter", 1, [0.35, 0.5], [2.0, 1.5]), line("starter", 0, [0.25, 0.24], [2.0, 1.25])]
    lines += [line("starter", 2, [0.9, 0.9], [1.0, 1.0])]  # no such seed of the other: not compared
    results.write_text("\n".join(lines) + "\n")
    main([str(results), "--against", "random", "--output", str(plot)])
    rows = [" ".join(row.split()) for row in capsys.readouterr().out.splitlines()]
    assert rows[1] == "cells yolo11n random 0.200 0.400 0.300 2 to 9 2"
    assert rows[2] == "cells yolo11n starter 0.250 0.500 0.900 0.550 +0.075 1 2 1 to 2 3"
    assert plot.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "none.jsonl")])
    assert "no results" in capsys.readouterr().err

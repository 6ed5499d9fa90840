"""Run folders of anybody are read, or said to be unreadable in one sentence."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from support.runs import write_run

from detector.errors import DataError
from detector.runs import record
from detector.runs.process import describe_process
from detector.runs.record import duration, read_classes, read_log, read_metrics, read_run, to_json


def test_a_finished_run_is_read(tmp_path):
    run = read_run(write_run(tmp_path / "a", 3))
    assert (run.state, run.note, run.status["epochs"]) == ("finished", "", 3)
    assert run.best["metrics/mAP50-95"] == 0.5 and run.settings == {"data": "pets.yaml", "epochs": 3}


def minutes_ago(minutes):
    return (datetime.now(timezone.utc) - timedelta(minutes=minutes)).isoformat(timespec="seconds")


def ended_process():
    """Return how a process that has ended described itself."""
    code = "import json; from detector.runs.process import describe_process as d; print(json.dumps(d()))"
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def test_a_run_whose_process_is_there_runs(tmp_path):
    run = read_run(write_run(tmp_path / "a", state="running"))
    assert (run.state, run.note) == ("running", "")


def test_a_run_whose_process_is_gone_is_interrupted(tmp_path):
    run = read_run(write_run(tmp_path / "a", state="running", **ended_process()))
    assert (run.state, run.note) == ("interrupted", "its process is gone")


def test_another_process_of_the_same_number_is_not_the_run(tmp_path):
    ours = describe_process()
    process = ours["process"] and {**ours["process"], "started": 1}
    if process is None:
        pytest.skip("there is no /proc here")
    assert read_run(write_run(tmp_path / "a", state="running", process=process)).state == "interrupted"


@pytest.mark.parametrize(
    "elsewhere", [{"host": "other"}, {"process": {"boot": "another start of this machine"}}]
)
def test_elsewhere_a_run_counts_as_running_until_it_is_silent_for_long(tmp_path, elsewhere):
    if "process" in elsewhere and describe_process()["process"] is None:
        pytest.skip("there is no /proc here")
    fresh = read_run(write_run(tmp_path / "a", state="running", updated=minutes_ago(5), **elsewhere))
    silent = read_run(write_run(tmp_path / "b", state="running", updated=minutes_ago(20), **elsewhere))
    host = elsewhere.get("host", describe_process()["host"])
    assert (fresh.state, fresh.note) == ("running", f"on {host}")
    assert silent.state == "interrupted" and silent.note.endswith(f"on {host}; it may still run there")


def test_a_zombie_is_gone(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        run = read_run(write_run(tmp_path / "a", state="running", pid=child.pid, process=None))
    finally:
        child.wait()
    assert run.state == "interrupted"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is not JSON"),
        (b'{"state": "run', "it is not JSON"),
        (b"\xff\xfe\x00", "it is not JSON"),
        (b"[]", "expected a table with a state"),
        (b'{"state": "great"}', "expected a table with a state"),
        (b'{"state": ["running"]}', "expected a table with a state"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 100 + b"]" * 100, "levels"),
        (b'"' + b"x" * (1 << 20) + b'"', "more than 1,048,576 bytes"),
        (b"9" * 10_000, "it is not JSON"),
    ],
)
def test_a_status_that_is_none_is_one_sentence(tmp_path, content, says):
    (tmp_path / "status.json").write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        read_run(tmp_path)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_links_pipes_and_folders_are_refused(tmp_path):
    for name in ("link", "pipe", "folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "link/status.json").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe/status.json")
    (tmp_path / "folder/status.json").mkdir()
    for name, says in (
        ("link", "is a link"),
        ("pipe", "expected a file"),
        ("folder", "can't be read|expected a file"),
    ):
        with pytest.raises(DataError, match=says):
            read_run(tmp_path / name)


def test_values_of_other_types_are_left_out(tmp_path):
    odd = {"epoch": "3", "epochs": -1, "progress": True, "pid": 1e99, "host": 5, "best": [], "settings": None,
           "started": {}, "extra": 1}  # fmt: skip
    folder = write_run(tmp_path / "a", state="failed")
    status = json.loads((folder / "status.json").read_text()) | odd
    (folder / "status.json").write_text(json.dumps(status))
    run = read_run(folder)
    assert {key: run.status[key] for key in odd if key != "extra"} == dict.fromkeys(
        k for k in odd if k != "extra"
    )
    assert run.best == {} and run.settings == {} and "extra" not in run.status


@pytest.mark.parametrize(
    "odd", [{"pid": 0}, {"pid": 1 << 40}, {"host": None}, {"updated": "soon"}, {"updated": None, "host": "x"},
            {"process": {"started": "now"}}],
)  # fmt: skip
def test_a_running_state_of_odd_values_has_an_answer(tmp_path, odd):
    assert read_run(write_run(tmp_path / "a", **({"state": "running"} | odd))).state in (
        "running",
        "interrupted",
    )


def test_lines_that_are_not_whole_are_left_out_and_the_last_of_an_epoch_counts(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"epoch": 1, "x": 1}\n{"epoch": 2, "x": 2}\nnonsense\n[1]\n{"epoch": "3"}\n{"epoch": true}\n'
        b'{"epoch": 2, "x": 5, "y": NaN, "z": "text", "time": "t", "big": 1e999}\n\xff\n{"epoch": 3, "x'
    )
    assert read_metrics(tmp_path) == [{"epoch": 1, "x": 1}, {"epoch": 2, "x": 5, "time": "t"}]
    assert read_metrics(tmp_path, before=1) == [{"epoch": 1, "x": 1}]


def test_a_run_without_rows_classes_and_log_has_none(tmp_path):
    assert (read_metrics(tmp_path), read_classes(tmp_path), read_log(tmp_path)) == ([], [], "")


def test_classes_are_read(tmp_path):
    (tmp_path / "classes.json").write_text('[{"class": "<b>", "mAP50": 0.5, "x": "y"}, {"class": 3}, 4]')
    assert read_classes(tmp_path) == [{"class": "<b>", "mAP50": 0.5}]


def test_the_end_of_a_log_begins_with_a_line(tmp_path):
    (tmp_path / "train.log").write_text("first\nsecond\nthird\n")
    assert read_log(tmp_path) == "first\nsecond\nthird\n"
    assert read_log(tmp_path, 9) == "third\n"


def test_json_has_no_nan():
    assert to_json({"a": float("nan"), 2: [float("inf"), (1, None)], "p": record}) == {
        "a": None, "2": [None, [1, None]], "p": str(record),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (45, "45 s"), (119.9, "120 s"), (720, "12 min"), (12_000, "3 h 20 min"),
                          (187_200, "2 d 4 h")],
)  # fmt: skip
def test_time_spans_are_words(seconds, text):
    assert duration(seconds) == text

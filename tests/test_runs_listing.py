import json
import os

import pytest
from support.runs import write_run

from detector.cli import main
from detector.errors import SettingsError
from detector.runs.listing import (
    filter_rows,
    find_runs,
    folder_size,
    read_runs,
    rows_of,
    sort_rows,
    table_text,
)


@pytest.fixture
def rows(tmp_path):
    """Rows of three runs, one of them deeper."""
    write_run(tmp_path / "a", 3, settings={"lr0": 0.01, "name": "a"})
    write_run(tmp_path / "exp/b", 4, offset=0.1, settings={"lr0": 0.02}, started="2026-02-01T00:00:00+00:00")
    write_run(tmp_path / "c", 2, state="failed", error="ValueError: no luck", best=None)
    runs, problems = read_runs(find_runs(tmp_path)[0])
    assert problems == []
    return rows_of(runs, tmp_path)


def names(rows):
    return [row["run"] for row in rows]


def test_runs_are_found_at_any_depth_but_not_through_links_nor_within_runs(tmp_path):
    elsewhere = write_run(tmp_path / "elsewhere/run")
    for name in ("runs/a", "runs/exp/b", "runs/.hidden/c", "runs/a/within"):
        write_run(tmp_path / name)
    (tmp_path / "runs/link").symlink_to(elsewhere)
    (tmp_path / "runs/loop").symlink_to(tmp_path / "runs")
    found, problems = find_runs(tmp_path / "runs")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "runs/a",
        "runs/exp/b",
    ] and problems == []
    assert find_runs(tmp_path / "runs/a")[0] == [tmp_path / "runs/a"]


def test_settings_that_differ_are_shown_with_their_defaults(rows):
    assert [row["settings"] for row in rows] == [
        {"epochs": 3, "lr0": 0.01}, {"epochs": 2, "lr0": None}, {"epochs": 4, "lr0": 0.02},
    ]  # fmt: skip


def test_rows_are_sorted_and_those_without_a_value_come_last(rows):
    assert names(sort_rows(rows, "mAP50-95")) == ["a", "exp/b", "c"]
    assert names(sort_rows(rows, "-mAP50-95")) == ["exp/b", "a", "c"]
    assert names(sort_rows(rows, "started"))[-1] == "exp/b"
    assert names(sort_rows(rows, "-epochs")) == ["exp/b", "a", "c"]
    assert names(sort_rows(rows, "lr0"))[-1] == "c"
    assert sort_rows([], "anything") == []


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        ("state=failed", ["c"]),
        ("state!=failed", ["a", "exp/b"]),
        ("mAP50-95>0.5", ["exp/b"]),
        ("mAP50-95>=0.5,lr0<0.02", ["a"]),
        ("lr0=0.02", ["exp/b"]),
        ("lr0=0.020", ["exp/b"]),
        (" epochs <= 3 ", ["a", "c"]),
        ("run=exp/b", ["exp/b"]),
        ("error>0", []),
        ("lr0=none", ["c"]),
    ],
)
def test_rows_are_filtered(rows, conditions, left):
    assert names(filter_rows(rows, conditions)) == left


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda rows: sort_rows(rows, "mAP5"), "sort=mAP5: there is no column 'mAP5'; did you mean 'mAP50'"),
        (lambda rows: sort_rows(rows, "qqq"), "there is no column 'qqq'; expected one of run, folder, state"),
        (lambda rows: filter_rows(rows, "stat=failed"), "no column 'stat'; did you mean 'state'"),
        (lambda rows: filter_rows(rows, "failed"), "'failed' is not a condition; expected a column"),
    ],
)
def test_what_is_no_column_or_condition_is_said(rows, call, says):
    with pytest.raises(SettingsError, match=says.replace("?", r"\?")):
        call(rows)


def test_the_table_says_how_far_runs_are_and_why_they_ended(tmp_path):
    write_run(tmp_path / "a", 3, seconds=5000.0)
    write_run(tmp_path / "b", 4, state="running", epoch=1, progress=0.3, eta_s=600.0)
    write_run(tmp_path / "c", 3, state="stopped", stop_reason="Ctrl-C", best=None)
    text = table_text(rows_of(read_runs(find_runs(tmp_path)[0])[0], tmp_path))
    lines = [line.split("  ") for line in text.splitlines()]
    assert [[cell.strip() for cell in line if cell.strip()][:5] for line in lines[:4]] == [
        ["run", "state", "epoch", "mAP50", "mAP50-95"],
        ["a", "finished", "3/3", "0.750", "0.500"],
        ["b", "running", "1/4 30%, 10 min left", "0.750", "0.500"],
        ["c", "stopped", "3/3", "-", "-"],
    ]
    assert "1 h 23 min" in text and text.splitlines()[4:] == ["c: stopped, Ctrl-C"]


def test_the_size_is_that_of_the_files_without_links(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_bytes(b"x" * 500)
    (tmp_path / "link").symlink_to("/usr")
    assert folder_size(tmp_path) == 500


HOSTILE = "\x1b[2J\x1b]0;x\x07\u202e\n" + "x" * 100_000


@pytest.fixture
def strangers(tmp_path):
    """A folder with one good run, one with hostile texts, and folders that can't be read."""
    write_run(tmp_path / "good")
    write_run(
        tmp_path / "bad\x1b[31m", state="failed", error=HOSTILE, command=HOSTILE, host=HOSTILE,
        best={"epoch": 1, "metrics/mAP50": 10**400}, settings={HOSTILE: HOSTILE, "lr0": [[HOSTILE]]},
    )  # fmt: skip
    for name, content in (("broken", "{"), ("huge", "x" * (1 << 21)), ("deep", "[" * 100_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(content)
    (tmp_path / "link").mkdir()
    (tmp_path / "link/status.json").symlink_to("/etc/passwd")
    (tmp_path / "older/weights").mkdir(parents=True)
    (tmp_path / "older/args.yaml").touch()
    return tmp_path


def test_folders_of_strangers_are_a_line_each_without_control_characters(strangers, capsys):
    assert main(["runs", str(strangers)]) == 0
    out, err = capsys.readouterr()
    assert sum(line.startswith("good") for line in out.splitlines()) == 1
    assert len(err.splitlines()) == 5 and all(len(line) < 500 for line in err.splitlines())
    assert not any(
        (ord(letter) < 32 and letter != "\n") or letter in "\x7f\x9b\u202e" for letter in out + err
    )
    assert len(out) < 5000
    for name in ("broken", "huge", "deep", "link", "older"):
        assert sum(f"/{name}" in line for line in err.splitlines()) == 1


def test_as_json(strangers, capsys):
    for words in (["json=true"], ["--json"], ["json"], ["as_json=true"]):
        assert main(["runs", str(strangers), *words, "filter=state=finished"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [row["run"] for row in found["runs"]] == ["good"] and len(found["problems"]) == 5
    assert found["runs"][0].keys() >= {
        "state",
        "epoch",
        "best",
        "settings",
        "seconds",
        "bytes",
        "stop_reason",
    }


def test_the_folder_is_a_bare_word_or_a_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs/a")
    write_run(tmp_path / "lr=3/b")
    for words, name in (([], "a"), (["lr=3"], "b"), (["folder=lr=3"], "b"), ([f"{tmp_path}/runs"], "a")):
        assert main(["runs", *words]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[0] == name


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "error: folder=nowhere: there is no such folder; name the one that holds the runs\n"),
        (["a", "b"], "error: 2 folders were given; expected one that holds the runs\n"),
        (["sort=4=4"], None),
        (["sorted=x"], "error: unknown setting 'sorted'; did you mean 'sort'?\n"),
    ],
)
def test_words_that_do_not_fit_are_one_sentence(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs/a")
    assert main(["runs", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err == (says or err)


def test_an_empty_folder_has_no_runs(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path}\n"


def test_a_folder_that_can_not_be_looked_at_is_said(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    write_run(tmp_path / "a")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, problems = find_runs(tmp_path)
    assert found == [tmp_path / "a"] and problems == [
        f"{tmp_path / 'closed'}: can't be looked at (Permission denied)"
    ]

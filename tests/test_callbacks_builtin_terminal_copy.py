import logging
import sys

import pytest
from tqdm import tqdm

from detector.callbacks.builtin.terminal_copy import MAX_LINE, TerminalCopy


@pytest.fixture
def copied(tmp_path):
    """Run a function while the copy is open, and return the lines of the file."""

    def copied(function):
        copy = TerminalCopy(tmp_path / "train.log")
        try:
            function()
        finally:
            copy.close()
        return (tmp_path / "train.log").read_text(encoding="utf-8").splitlines()

    return copied


def test_what_is_printed_is_in_the_file_and_on_the_terminal(copied, capsys):
    def speak():
        print("one", 2)
        print("three", file=sys.stderr)
        sys.stdout.writelines(["a\n", "b\n"])
        print("no end", end="")

    assert copied(speak) == ["one 2", "three", "a", "b", "no end"]
    assert capsys.readouterr() == ("one 2\na\nb\nno end", "three\n")


def test_of_a_progress_bar_the_last_state_is_left(copied):
    def run():
        with tqdm(total=300, file=sys.stderr, mininterval=0, ascii=True, ncols=60) as bar:
            for _ in range(300):
                bar.update()

    (line,) = copied(run)
    assert line.startswith("100%|") and "300/300" in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07seen", "seen"),
        ("up\x1b[A down", "up down"),
        ("bell\x07", "bell\\x07"),
        ("windows\r", "windows"),
        ("half\rwhole", "whole"),
        ("\x1b", "\\x1b"),
        ("https://me:key@host/x?y=key", "https://***@host/x?***"),
    ],
)
def test_colours_and_control_characters_are_left_out(copied, text, line):
    assert copied(lambda: print(text)) == [line]


def test_a_line_that_is_written_in_pieces_is_one(copied):
    def run():
        for piece in ("a", "b\r", "\nc\r", "d", "\n"):
            sys.stdout.write(piece)

    assert copied(run) == ["ab", "d"]


def test_a_line_without_an_end_is_broken(copied):
    lines = copied(lambda: [sys.stdout.write("x" * 1000) for _ in range(100)] and None)
    assert [len(line) for line in lines] == [66000, 34000] and MAX_LINE == 65536


def test_messages_are_written_once_however_logging_is_set_up(copied, monkeypatch):
    log = logging.getLogger("detector")
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "level", logging.INFO)
    from detector.messages import StderrHandler

    assert copied(lambda: log.info("by the program's own handlers")) == ["by the program's own handlers"]
    log.addHandler(StderrHandler())
    assert copied(lambda: log.info("by stderr"))[1:] == ["by stderr"]


def test_a_stream_keeps_its_other_attributes(copied):
    found = []
    copied(lambda: found.append((sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.fileno)))
    assert found[0][:2] == (sys.stdout.isatty(), sys.stdout.encoding)


def test_a_link_is_replaced(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("kept")
    (tmp_path / "train.log").symlink_to(mine)
    copy = TerminalCopy(tmp_path / "train.log")
    copy.write_line("x")
    copy.close()
    assert mine.read_text() == "kept" and (tmp_path / "train.log").read_text() == "x\n"


def test_copies_that_overlap_leave_the_streams_as_they_were(tmp_path, capsys):
    """Runs in two threads end in any order."""
    before = sys.stdout
    first, second = TerminalCopy(tmp_path / "first.log"), TerminalCopy(tmp_path / "second.log")
    first.close()
    print("after the first")
    second.close()
    assert sys.stdout is before
    assert (tmp_path / "first.log").read_text() == ""
    assert (tmp_path / "second.log").read_text() == "after the first\n"
    assert capsys.readouterr().out == "after the first\n"

from __future__ import annotations

import pytest

from detector.files.names import MAX_NAME, distinct_file_names, file_name, printable, shortened


def test_control_characters_are_written_out() -> None:
    assert printable("a\x1b[31mb\r\x9b\x07") == "a\\x1b[31mb\\r\\x9b\\x07"
    assert printable("two\nlines\tB\u00e4r") == "two\nlines\tB\u00e4r"
    assert printable("txt.\u202egpj") == "txt.\\u202egpj"
    assert printable("\udcff") == "\\udcff"


def test_long_and_many_lines_become_one_short_line() -> None:
    assert shortened("a\nb") == "a b"
    assert shortened("x" * 300) == "x" * 57 + "..."


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("traffic light", "traffic light"),
        ("a/b", "a_b"),
        ("..", "_"),
        ("", "_"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("line\nend\x1b", "line_end_"),
        ("x" * 300, "x" * MAX_NAME),
        ("\u00e4" * 300, "\u00e4" * (MAX_NAME // 2)),
    ],
)
def test_any_name_becomes_one_for_a_file(name: str, expected: str) -> None:
    assert file_name(name) == expected


def test_different_names_have_different_files() -> None:
    found = distinct_file_names(["a/b", "a:b", "Dog", "dog", "dog", "x" * 300, "x" * 301])
    assert found["a/b"] == "a_b" and found["a:b"] == "a_b-2"
    assert found["Dog"] == "Dog" and found["dog"] == "dog-2"
    assert len({name.casefold() for name in found.values()}) == 6

from __future__ import annotations

import time
from pathlib import Path

import pytest

from detector.files.safe_yaml import MAX_BYTES, YamlError, parse_yaml, read_yaml


def refusal(text: str) -> str:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    return str(caught.value)


def test_plain_data_is_read() -> None:
    assert parse_yaml("a: [1, 2.5, true, null, text]\nb: {0: x}") == {
        "a": [1, 2.5, True, None, "text"],
        "b": {0: "x"},
    }
    assert parse_yaml("") is None


def test_aliases_and_merged_keys_are_read() -> None:
    assert parse_yaml("base: &b {x: 1}\nmore:\n  <<: *b\n  y: 2")["more"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "!!python/object/new:os.system ['true']",
        "!!python/module:this",
        "a: !env HOME",
    ],
)
def test_tags_beyond_plain_data_are_refused(text: str) -> None:
    assert "could not determine a constructor for the tag" in refusal(text)


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def test_aliases_that_multiply_are_refused_at_once() -> None:
    started = time.perf_counter()
    assert "with its aliases it has more than 200,000 values" in refusal(bomb(30))
    assert time.perf_counter() - started < 1


def test_merged_keys_that_multiply_are_refused() -> None:
    lines = ["m0: &m0 {x: 1}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    assert "with its aliases" in refusal("\n".join(lines))


def test_an_alias_inside_itself_is_refused() -> None:
    assert "a value that contains itself" in refusal("&a [1, *a]")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "{a: " * 5000,
        "- " * 5000 + "x",
        "a:\n" + "".join("  " * n + "- a:\n" for n in range(1, 90)),
    ],
)
def test_deep_nesting_is_refused(text: str) -> None:
    assert "nested deeper than 32 levels" in refusal(text)


@pytest.mark.parametrize("text", ["9" * 5000, ":".join(["1"] + ["59"] * 5000), "1." + "0" * 5000])
def test_endless_numbers_are_refused(text: str) -> None:
    assert "a number has more than 100 digits" in refusal(f"imgsz: {text}")


@pytest.mark.parametrize(
    "text",
    [
        "2024-13-45",
        "!!int 'x'",
        "!!float []",
        "{[1]: 2}",
        "!!omap [a]",
        "\x00",
        "a: b: c",
        "? - x\n: y",
        "!!bool 'x'",
        "!!timestamp 'x'",
    ],
)
def test_malformed_values_are_one_error(text: str) -> None:
    assert "\n" not in refusal(text)


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(YamlError, match="more than 1,048,576 bytes"):
        read_yaml(tmp_path / "big.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(YamlError, match="not UTF-8 text"):
        read_yaml(tmp_path / "a.yaml")

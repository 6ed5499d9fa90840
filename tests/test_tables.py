from __future__ import annotations

import importlib

import pytest

from detector.errors import MissingPackageError
from detector.tables import align, rows_to_csv, rows_to_df, terminal_width


def test_csv_quotes_what_needs_quotes():
    assert rows_to_csv([{"name": "a,b", "n": 1}, {"name": "c", "n": 2}]) == 'name,n\n"a,b",1\nc,2\n'
    assert rows_to_csv([]) == ""


def test_columns_line_up_for_wide_letters_and_accents():
    assert align([["犬", "1"], ["e\u0301te\u0301", "10"]]) == "犬    1\ne\u0301te\u0301  10"
    assert terminal_width("犬a") == 3


def test_data_frame_without_polars_names_the_package(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingPackageError, match="pip install polars"):
        rows_to_df([{"a": 1}])

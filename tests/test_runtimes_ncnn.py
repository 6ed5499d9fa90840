import pytest

from detector.errors import ExportError
from detector.runtimes.ncnn import load


def test_a_missing_file_is_named(tmp_path):
    (tmp_path / "model.ncnn.param").write_text("7767517\n")
    with pytest.raises(ExportError, match=r"expected a folder with .*; there is no model\.ncnn\.bin$"):
        load(tmp_path)

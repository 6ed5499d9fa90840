import pytest

from detector.engine.run_folder import make_run_folder
from detector.errors import SettingsError


def test_folders_are_numbered(tmp_path):
    names = [make_run_folder(tmp_path, "train", exist_ok=False).name for _ in range(3)]
    assert names == ["train", "train-2", "train-3"]


def test_exist_ok_reuses(tmp_path):
    assert [make_run_folder(tmp_path, "train", exist_ok=True).name for _ in range(2)] == ["train", "train"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(SettingsError, match="project="):
        make_run_folder(tmp_path / "runs", "train", exist_ok=False)

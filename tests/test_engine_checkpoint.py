import pickle

import pytest
import torch

from detector.engine import checkpoint
from detector.engine.checkpoint import load_checkpoint, save_checkpoint
from detector.errors import CheckpointError


def content(epoch):
    """The least a checkpoint holds."""
    return {"model": {}, "weights": {"w": torch.arange(3)}, "settings": {}, "epoch": epoch, "metrics": {}}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    save_checkpoint(tmp_path / "a.pt", content(4))
    found = load_checkpoint(tmp_path / "a.pt")
    assert found["epoch"] == 4
    assert found["weights"]["w"].tolist() == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_a_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    save_checkpoint(path, content(1))

    def half(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", half)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(path, content(2))
    assert load_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


class Evil:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b"", "can't be read"),
        (b"not a checkpoint", "was not loaded|can't be read"),
        (pickle.dumps(Evil(), protocol=2), "was not loaded"),
    ],
)
def test_other_files_get_one_sentence_and_run_nothing(tmp_path, capsys, written, message):
    (tmp_path / "a.pt").write_bytes(written)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_checkpoint_of_another_tool_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="expected a checkpoint written by detector"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_missing_file_is_named_with_its_place(tmp_path):
    with pytest.raises(CheckpointError, match="do not exist"):
        load_checkpoint(tmp_path / "a.pt")


def test_an_incomplete_checkpoint_is_refused_with_what_is_missing(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"model": {}, "weights": {}, "settings": {}, "metrics": []})
    with pytest.raises(
        CheckpointError, match=r"no complete checkpoint \(epoch is missing, metrics is list\)"
    ):
        load_checkpoint(tmp_path / "a.pt")

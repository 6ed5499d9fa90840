import pickle

import numpy as np
import pytest
import torch
from support.ultralytics_files import ultralytics_network, write_ultralytics

from detector.checkpoints import checkpoint
from detector.checkpoints.checkpoint import load_checkpoint, read_weights, save_checkpoint
from detector.checkpoints.safetensors_file import write_tensor_file
from detector.checkpoints.transfer import transfer_weights
from detector.errors import CheckpointError
from detector.nn.model import DetectionModel, load_model_config
from detector.training.resume import find_run
from detector.training.saving import STATE
from detector.version import __version__


def content(epoch):
    """The minimum content of a checkpoint."""
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


def test_what_can_not_be_read_back_is_refused_by_name_and_replaces_nothing(tmp_path, monkeypatch):
    path, keep = tmp_path / "a.pt", tmp_path / "before.pt"
    save_checkpoint(path, content(0) | {"metrics": {"a": np.float64(0.5)}})
    assert type(load_checkpoint(path)["metrics"]["a"]) is float
    with pytest.raises(
        CheckpointError, match=r"can't write .*a.pt: metrics\['b'\] is a PosixPath; expected None, num"
    ):
        save_checkpoint(path, content(1) | {"metrics": {"b": tmp_path}}, keep=keep)
    with monkeypatch.context() as patch:
        patch.setattr("detector.checkpoints.torch_zip.MAX_PICKLE_BYTES", 100_000)
        with pytest.raises(CheckpointError, match=r"could not be opened again \(.*before is untouched$"):
            save_checkpoint(path, content(1) | {"metrics": {"list": list(range(100_000))}}, keep=keep)
    assert load_checkpoint(path)["metrics"] == {"a": 0.5} and list(tmp_path.iterdir()) == [path]


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
        CheckpointError, match=r"not a complete checkpoint \(epoch is missing, metrics is list\)"
    ):
        load_checkpoint(tmp_path / "a.pt")


# ---- the format -----------------------------------------------------------------------------------------


def with_format(path, named, version="9.0"):
    """Write a small checkpoint that says it is of another format."""
    marked = {**content(1), "format": named, "version": version}
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        with path.open("wb") as file:
            write_tensor_file(file, marked)
    else:
        torch.save(marked, path)
    return path


def refusals(path):
    """What every reader says of a file."""
    readers = [load_checkpoint, read_weights, lambda path: find_run(path.parent.parent, ".")]
    found = []
    for read in readers if path.suffix == ".pt" else readers[:2]:
        with pytest.raises(CheckpointError) as caught:
            read(path)
        found.append(str(caught.value))
    return found


@pytest.mark.parametrize("name", [STATE, "weights/a.safetensors"])
def test_a_newer_format_is_one_sentence_wherever_it_is_opened(tmp_path, name):
    path = with_format(tmp_path / name, "detector/2")
    assert set(refusals(path)) == {
        f"{path}: is a checkpoint of the format detector/2, written by detector 9.0; detector {__version__} reads "
        f"detector/1; update detector to open it"
    }
    for version in (None, "a\nb"):
        with_format(path, "detector/12", version)
        assert f"of the format detector/12; detector {__version__} reads" in refusals(path)[0]


@pytest.mark.parametrize(
    "named",
    ["detector/", "detector/0", "detector/01", "detector/1.5", "detector/-1", "detector/one", "detector/1\n"],
)
def test_a_malformed_format_is_one_sentence_wherever_it_is_opened(tmp_path, named):
    path = with_format(tmp_path / STATE, named)
    assert set(refusals(path)) == {
        f"{path}: its format is {named!r}; expected 'detector/' and a whole number from 1, such as 'detector/1'; "
        f"give the file as detector wrote it"
    }


@pytest.mark.parametrize("named", [None, 1, "other/1", "detector", ["detector/1"]])
def test_a_file_of_another_format_is_not_ours(tmp_path, named):
    for found in refusals(with_format(tmp_path / STATE, named)):
        assert "has the keys " in found
        assert "expected a checkpoint written by detector" in found


# ---- files of every origin ------------------------------------------------------------------------------


@pytest.fixture
def model(tiny_model):
    return DetectionModel(load_model_config(tiny_model, names=["cat", "dog"]))


def files(model, folder):
    plain = {"settings": {"imgsz": 64}, "epoch": 2, "metrics": {"fitness": 0.5}}
    described = plain | {"model": model.config.to_dict(), "weights": model.state_dict()}
    save_checkpoint(folder / "own.pt", described)
    save_checkpoint(folder / "own.safetensors", described)
    write_ultralytics(folder / "ultralytics.pt", ultralytics_network(model))
    return {path.name: path for path in folder.iterdir() if path.suffix != ".yaml"}


def test_files_of_every_origin_hold_the_same(model, tmp_path):
    for name, path in files(model, tmp_path).items():
        found = read_weights(path)
        assert found["model"]["names"] == ["cat", "dog"], name
        for key, value in model.state_dict().items():
            torch.testing.assert_close(found["weights"][key], value, atol=2e-3, rtol=1e-3)
    assert read_weights(tmp_path / "own.safetensors")["metrics"] == {"fitness": 0.5}


def test_ultralytics_weights_are_transferred_by_name_shape_and_class(model, tmp_path):
    found = read_weights(files(model, tmp_path)["ultralytics.pt"])
    target = DetectionModel(load_model_config(tmp_path / "tiny.yaml", names=["cow", "Dog "]))
    transfer = transfer_weights(target, found["weights"], dict(enumerate(found["model"]["names"])))
    assert len(transfer.by_class) == 6
    assert not transfer.left
    rows, theirs = (weights["model.5.cv3.0.2.weight"] for weights in (target.state_dict(), found["weights"]))
    assert torch.equal(rows[1], theirs[1])
    assert not torch.equal(rows[0], theirs[0])


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            {"layer1.0.conv1.weight": torch.ones(1)},
            "is a bare state dict (1 tensors, the first is 'layer1.0.conv1",
        ),
        ({"format": "detector/1"}, "is not a complete checkpoint (model is missing"),
        ({"format": "elsewhere/1", "model": 3}, "has the keys 'format', 'model', none of which is a network"),
        (torch.ones(2), "holds a single tensor"),
    ],
)
def test_other_content_is_said_in_one_sentence(tmp_path, saved, message):
    torch.save(saved, tmp_path / "a.pt")
    with pytest.raises(CheckpointError) as caught:
        read_weights(tmp_path / "a.pt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_torchvision_weights_are_recognised(tmp_path):
    models = pytest.importorskip("torchvision.models")
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "squeezenet.pth")
    with pytest.raises(CheckpointError, match=r"is a bare state dict .* without the architecture"):
        read_weights(tmp_path / "squeezenet.pth")

import sys

import pytest
import yaml

from detector import YOLO
from detector.callbacks.secrets import mask_urls, masked_command
from detector.checkpoints.checkpoint import load_checkpoint


@pytest.mark.parametrize(
    ("text", "everything", "but_paths"),
    [
        ("Notify('https://me:pass@host:8/a?key=1', timeout=3)", "Notify('https://***@host:8/***', timeout=3)",
         "Notify('https://***@host:8/a?***', timeout=3)"),
        ('Notify("https://chat.example/hooks/KEY"),hooks.py', 'Notify("https://chat.example/***"),hooks.py',
         'Notify("https://chat.example/hooks/KEY"),hooks.py'),
        ("https://me:pa/ss@host", "https://***@host", "https://***@host"),
        ("https://host?key=1", "https://host/***", "https://host?***"),
        ("http://localhost:8000/", "http://localhost:8000/", "http://localhost:8000/"),
        ("hooks.py:Patience(epochs=5)", "hooks.py:Patience(epochs=5)", "hooks.py:Patience(epochs=5)"),
    ],
)  # fmt: skip
def test_urls_keep_their_host_only(text, everything, but_paths):
    assert mask_urls(text) == everything
    assert mask_urls(text, paths=False) == but_paths


def test_the_command_is_masked_for_a_block_only(monkeypatch):
    words = ["detector", "callbacks=Notify('https://host/KEY')"]
    monkeypatch.setattr(sys, "argv", words)
    with masked_command():
        assert sys.argv == ["detector", "callbacks=Notify('https://host/***')"]
    assert sys.argv is words


def test_no_file_of_a_run_holds_a_secret_and_it_can_be_resumed(train_tiny, tiny_model, tmp_path, caplog):
    (tmp_path / "hooks.py").write_text("def on_train_end(trainer):\n    pass\n")
    text = f"{tmp_path}/hooks.py,TimeLimit(hours=2),Notify('http://me:s3cret@127.0.0.1:9/s3cret?key=s3cret')"
    train_tiny(epochs=1, callbacks=text)
    folder = tmp_path / "train"
    assert not [path for path in folder.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    masked = f"{tmp_path}/hooks.py,TimeLimit(hours=2),Notify('http://***@127.0.0.1:9/***')"
    assert yaml.safe_load((folder / "args.yaml").read_text())["callbacks"] == [masked]
    assert load_checkpoint(folder / "weights/state.pt")["settings"]["callbacks"] == [masked]
    caplog.clear()

    yolo = YOLO(tiny_model)
    yolo.train(resume=folder, epochs=2)
    kinds = [type(obj).__name__ for obj in yolo.trainer.callbacks.objects]
    assert "TimeLimit" in kinds and "Notify" not in kinds
    assert (
        f"not restored from the saved run: callbacks={tmp_path}/hooks.py,Notify('http://***@127.0.0.1:9/***'); "
        "to use it, pass it again"
    ) in caplog.messages


def test_a_saved_run_names_no_code_to_run(train_tiny, tiny_model, tmp_path, capsys):
    (tmp_path / "hooks.py").write_text("print('code of the run')\ndef on_train_end(trainer):\n    pass\n")
    text = f"{tmp_path}/hooks.py"
    train_tiny(epochs=1, callbacks=text)
    assert capsys.readouterr().out == "code of the run\n"
    YOLO(tiny_model).train(resume=tmp_path / "train", epochs=2)
    assert capsys.readouterr().out == ""
    YOLO(tiny_model).train(resume=tmp_path / "train", epochs=3, callbacks=text)
    assert capsys.readouterr().out == "code of the run\n"

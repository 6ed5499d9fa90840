import sys

import pytest
import yaml

from detector import YOLO
from detector.callbacks.loading import restorable_callbacks
from detector.callbacks.secrets import mask_callbacks, mask_urls, masked_command
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


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Notify('http:' '//me:KEY@host/KEY', timeout=3)", "Notify('http://***@host/***', timeout=3)"),
        ("Notify('ht\\ntp:\\t//host/KEY')", "Notify('http://host/***')"),
        ('Notify("\\x68ttps://host/KEY")', 'Notify("\\x68ttps://host/***")'),
        ('Notify(to="https://host/KEY")', 'Notify(to="https://host/***")'),
        ("Notify('$CHAT_URL', timeout=3)", "Notify('$CHAT_URL', timeout=3)"),
        ("EarlyStopping(monitor='metrics/mAP50', patience=3)", "EarlyStopping(monitor='metrics/mAP50', patience=3)"),
        ("hooks.py:Slack(token='KEY')", "hooks.py:Slack(token='***')"),
        ("a.b:Slack('KEY', [1, 'KEY'], {'k': 'KEY'}, 3, x=-1.5, y=None, z=b'KEY')",
         "a.b:Slack('***', [1, '***'], '***', 3, x=-1.5, y=None, z='***')"),
        ("hooks.py:Slack(f'KEY')", "hooks.py:Slack(***)"),
        ("hooks.py:Slack('KEY'", "hooks.py:Slack(***)"),
        ("hooks.py, Notify('https://' 'host/KEY')", "hooks.py,Notify('https://host/***')"),
    ],
)  # fmt: skip
def test_arguments_are_judged_by_their_value(text, written):
    assert mask_callbacks(text) == written


@pytest.mark.parametrize(
    "address",
    [
        "'http:' '//host/x'", "'ht\\ttp:\\n//host/x'", "'\\x68ttp\\x3a//host'", "'http:' r'\\\\host'", "'//host/x'",
        "to='http:/' '/host'", "timeout=3, to='http:''//host'", "['http:' '//host']", "b'http://host'",
        "'ht' + 'tp://host'", "*['http:' '//host']", "(" * 500 + "'x'" + ")" * 500,
    ],
)  # fmt: skip
def test_no_address_comes_from_a_saved_run(address, caplog):
    assert restorable_callbacks([f"Notify({address})"]) == []
    assert "not restored from the saved run: callbacks=Notify(" in caplog.text


@pytest.mark.parametrize(
    "text", ["TimeLimit(hours=2)", "ModelCheckpoint('metrics/mAP50(B)', top_k=3)", "LRSchedule({0: 1.0, 10: 0.1})",
             "CSVLogger", "Notify('$CHAT_URL')"],
)  # fmt: skip
def test_plain_arguments_are_restored(text):
    assert restorable_callbacks([text]) == [text]


def test_a_secret_of_a_callback_in_a_file_is_in_no_file_of_the_run(train_tiny, tmp_path):
    (tmp_path / "hooks.py").write_text(
        "class Slack:\n"
        "    def __init__(self, token, every):\n"
        "        assert (token, every) == ('s3cret', 2)\n"
        "    def on_train_end(self, trainer):\n"
        "        pass\n"
    )
    text = f"{tmp_path}/hooks.py:Slack(token='s3cret', every=2)"
    train_tiny(epochs=1, callbacks=[text])
    folder = tmp_path / "train"
    assert not [path for path in folder.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    written = yaml.safe_load((folder / "args.yaml").read_text())["callbacks"]
    assert written == [f"{tmp_path}/hooks.py:Slack(token='***', every=2)"]


def test_the_command_is_masked_for_a_block_only(monkeypatch):
    words = ["detector", "callbacks=Notify('https://host/KEY'),hooks.py:Slack('KEY')"]
    monkeypatch.setattr(sys, "argv", words)
    with masked_command():
        assert sys.argv == ["detector", "callbacks=Notify('https://host/***'),hooks.py:Slack('***')"]
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

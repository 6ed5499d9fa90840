import subprocess
import sys

import pytest
from support.exports import EXPORTS

from detector.cli import main, parse_value, parse_words
from detector.errors import SettingsError
from detector.settings import TrainSettings


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("1e-3", 0.001), ("true", True), ("False", False), ("none", None), ("None", None),
     ("street.jpg", "street.jpg"), ("[0,2]", [0, 2]), ("0,2", [0, 2]), ("(0.5,1.5)", [0.5, 1.5])],
)  # fmt: skip
def test_values_are_read_as_people_mean_them(text, value):
    assert parse_value(text) == value


def test_words_become_settings_and_later_ones_win():
    assert parse_words(["epochs=3", "exist_ok", "name=2024", "epochs=4"], "train") == (
        {"epochs": 4, "exist_ok": True, "name": "2024"}, {},
    )  # fmt: skip


def test_words_override_a_cfg_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: 7\nimgsz: 320\n")
    words = ["imgsz=96", f"cfg={tmp_path / 'mine.yaml'}"]
    assert parse_words(words, "train") == ({"imgsz": 96}, {"epochs": 7, "imgsz": 320})
    settings = TrainSettings.parse(*parse_words(words, "train"))
    assert (settings.epochs, settings.imgsz) == (7, 96)


def test_words_as_other_programs_take_them_are_shown_as_they_are_written_here():
    with pytest.raises(SettingsError) as caught:
        parse_words(["--imgsz", "64", "epochs", "--batch"], "train")
    assert str(caught.value).splitlines() == [
        "'--imgsz 64': settings are key=value words; write imgsz=64",
        "'epochs' needs a value: epochs=...",
        "'--batch' needs a value: batch=...",
    ]


def test_a_comma_after_one_side_is_that_side():
    assert TrainSettings.parse(*parse_words(["imgsz=64,"], "train")).imgsz == 64


def test_a_word_that_is_no_setting_is_refused():
    with pytest.raises(SettingsError, match=r"'epochs' needs a value: epochs=\.\.\."):
        parse_words(["epochs"], "train")
    with pytest.raises(SettingsError, match="'exist_okay' is not a key=value word; did you mean 'exist_ok'"):
        parse_words(["exist_okay"], "train")


def test_every_bad_key_is_reported_at_once(capsys):
    assert main(["train", "epoch=3", "imgsz=650"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: unknown setting 'epoch'; did you mean 'epochs'?",
        "error: imgsz=650: expected a multiple of 32; try imgsz=640",
    ]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["trian"], 2, "unknown command 'trian'; did you mean 'train'?"),
        (["train"], 3, "data= is missing"),
        (["train", "data=nowhere.yaml"], 3, "nowhere.yaml"),
        (["predict", "model=nowhere.pt", "source=x.jpg"], 4, "weights 'nowhere.pt' do not exist"),
        (["predict", "model=nowhere.yaml", "source=x.jpg"], 4, "nowhere.yaml"),
        (["train", "device=7", "data=shapes.yaml"], 2, "device=7: this machine has"),
        (["train", "cfg=nowhere.yaml"], 2, "cfg=nowhere.yaml: can't be read"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(words, code, message, capsys):
    assert main(words) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_debug_shows_the_traceback():
    with pytest.raises(SettingsError):
        main(["--debug", "train", "epoch=3"])


def test_help_lists_every_setting(capsys):
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert "epochs=100" in out
    assert "augmentation" in out


def test_help_and_import_do_not_load_torch():
    code = (
        "import sys, detector, detector.cli; detector.cli.main(['--help']); detector.cli.main(['train', '--help']);"
        "sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
    )


def test_a_complete_run_in_a_restart_loop_ends_well(train_tiny, tiny_model, tmp_path, capsys):
    train_tiny(epochs=1)
    run = tmp_path / "train"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for words in ([f"resume={run}"], [f"resume={run}", "epochs=1"], ["resume=true", f"project={tmp_path}"]):
        capsys.readouterr()
        assert main(["train", f"model={tiny_model}", *words]) == 0
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and "complete" in err and "error" not in err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert main(["train", f"model={tiny_model}", "resume=true", f"project={tmp_path / 'none'}"]) == 4


def test_convert_writes_a_data_set_in_another_format(tmp_path, capsys):
    EXPORTS["coco"](tmp_path / "set")
    assert main(["convert", f"data={tmp_path / 'set'}", "to=voc", f"out={tmp_path / 'new'}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new'}\n"
    assert (tmp_path / "new/Annotations/a.xml").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out=x"], "error: data= is missing, such as data=folder"),
        (["data=x"], "error: out= is missing, such as out=new-folder"),
        (["to=csv"], "error: to=csv: expected yolo | coco | voc; the default is to=yolo"),
    ],
)
def test_what_convert_needs_is_asked_for(words, message, capsys):
    assert main(["convert", *words]) == 2
    assert capsys.readouterr().err == f"{message}\n"

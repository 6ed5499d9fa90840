"""Everything that stands in docs/callbacks.md runs: the Python, the command lines, the YAML, the plug-in."""

import re
import shlex
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import cv2
import pytest
import torch

from detector import YOLO, Callback
from detector.callbacks import loading
from detector.cli import main
from detector.data.drawn import draw_scene

PAGE = (Path(__file__).resolve().parents[1] / "docs/callbacks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python" and not text.startswith("# ")]
FILES = {  # blocks that begin with a file's name
    text[2:].split("\n")[0]: text for language, text in BLOCKS if re.match(r"# [\w.]+\n", text)
}
QUICK = {"imgsz": 64, "workers": 0, "plots": False, "verbose": False, "device": "cpu", "plugins": False}


def name_of(snippet):
    """The first name a snippet defines, for the test's own name."""
    found = re.search(r"(?:class|def) (\w+)", snippet)
    return found[1] if found else "snippet"


@pytest.fixture
def folder(tmp_path, tiny_model, drawn_dataset, monkeypatch):
    """A working folder in which the page's model, data, image and files are small ones."""
    shutil.copy(tiny_model, tmp_path / "yolo11n.yaml")
    data = drawn_dataset.read_text().replace("path: data", f"path: {drawn_dataset.parent / 'data'}")
    (tmp_path / "shapes.yaml").write_text(data)
    cv2.imwrite(str(tmp_path / "street.jpg"), draw_scene(seed=0, index=0, size=160)[0])
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def small_runs(monkeypatch):
    """Let trainings and validations of the page be small, whatever it says."""
    train, val = YOLO.train, YOLO.val

    def quick_train(self, **settings):
        settings |= {"epochs": min(settings["epochs"], 3), "loggers": "none", **QUICK}
        if settings.get("freeze"):
            settings["freeze"] = 2
        if "resume" in settings:
            settings = {
                key: settings[key] for key in ("resume", "epochs", "loggers", "verbose", "plots", "plugins")
            }
        return train(self, **settings)

    def quick_val(self, **settings):
        return val(self, imgsz=64, plots=False, verbose=False, device="cpu", **settings)

    monkeypatch.setattr(YOLO, "train", quick_train)
    monkeypatch.setattr(YOLO, "val", quick_val)


@pytest.mark.parametrize("snippet", PYTHON, ids=map(name_of, PYTHON))
def test_a_snippet_runs_and_so_do_its_callbacks(snippet, folder, small_runs):
    torch.manual_seed(0)
    names = {"YOLO": YOLO, "Callback": Callback, "model": YOLO("yolo11n.yaml")}
    exec(compile(snippet, "docs/callbacks.md", "exec"), names)
    model = names["model"]
    if not model.trainer and any(model.callbacks.values()):
        model.train(data="shapes.yaml", epochs=2)
    assert model.trainer or model.predictor or "remove_callback" in snippet
    for event, functions in model.callbacks.items():
        engine = {"on_predict": model.predictor, "on_export": None}.get(
            event.rpartition("_")[0][:10], model.trainer
        )
        for fn in functions if engine else ():
            assert event == "on_exception" or any(key[0] == event for key in engine.callbacks.seconds), fn


def test_the_page_has_the_snippets_this_file_looks_for():
    assert len(PYTHON) >= 21
    assert set(FILES) == {"hooks.py", "train.yaml", "pyproject.toml", "detector_diary.py"}
    assert {language for language, _ in BLOCKS} == {"python", "text", "sh", "yaml", "toml"}


def test_every_command_line_runs(folder, capsys):
    lines = [
        shlex.split(line, comments=True)
        for kind, text in BLOCKS
        if kind == "sh"
        for line in text.splitlines()
    ]
    assert len(lines) == 7
    small = ["model=yolo11n.yaml", "verbose=false", "plots=false", "workers=0", "device=cpu", "loggers=none"]
    for number, (program, *words) in enumerate(lines, 1):
        assert program == "detector"
        first = [] if any(word.startswith("resume=") for word in words) else ["imgsz=64"]
        assert main([*words, *first, *small, f"epochs={number}"]) == 0, capsys.readouterr().err
        assert len(YOLO("runs/train/weights/last.pt").names) == 6
    out = capsys.readouterr().out
    assert out.count("epoch 1 is over") == 5  # all but the one with Patience alone, and the resumed one
    assert "epoch 7 is over" in out


def test_the_plug_in_is_loaded(folder, small_runs, monkeypatch):
    group, name, value = re.search(
        r'\[project.entry-points."(.+)"\]\n(\w+) = "(.+)"', FILES["pyproject.toml"]
    ).groups()
    assert group == loading.PLUGIN_GROUP
    monkeypatch.setattr(loading, "entry_points", lambda group: [EntryPoint(name, value, group)])
    monkeypatch.setitem(QUICK, "plugins", True)
    model = YOLO("yolo11n.yaml")
    model.train(data="shapes.yaml", epochs=2)
    lines = (model.trainer.save_dir / "diary.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2"]


def test_every_link_of_the_page_leads_somewhere():
    root = Path(__file__).resolve().parents[1] / "docs"
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert len(links) > 10
    for link in links:
        assert link[1:] in anchors if link.startswith("#") else (root / link).exists(), link


def test_the_example_of_a_failure_is_what_a_failure_looks_like(folder, capsys):
    (folder / "broken.py").write_text("def on_fit_epoch_end(trainer):\n    1 / 0\n")
    words = (
        "train model=yolo11n.yaml data=shapes.yaml epochs=1 callbacks=broken.py imgsz=64 workers=0 device=cpu"
    )
    assert main([*words.split(), "verbose=false", "plots=false", "loggers=none"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.fullmatch(
        r"error: ZeroDivisionError: division by zero in the callback on_fit_epoch_end \(.*broken.py:1\) "
        r"on on_fit_epoch_end; --debug shows the traceback",
        line,
    )

import logging
import sys
import textwrap
from importlib.metadata import EntryPoint

import pytest

from detector.callbacks import loading
from detector.callbacks.builtin.time_limit import TimeLimit
from detector.callbacks.loading import add_plugins, load_callbacks, split_texts
from detector.callbacks.registry import CallbackRegistry
from detector.errors import CallbackError

HOOKS = """
from detector import Callback
from os.path import join  # imported functions are not this file's

def on_train_epoch_end(trainer):
    "An event."

def on_epoch_end(trainer):
    "An alias."

def helper(trainer):
    "No event."

class Mine(Callback):
    def __init__(self, patience=1, mode="min"):
        if patience < 0:
            raise ValueError(f"patience={patience}: expected 0 or more")
        self.patience, self.mode = patience, mode

    def on_train_end(self, trainer):
        "An event."

mine = Mine(7)
"""


@pytest.fixture
def hooks(tmp_path):
    path = tmp_path / "hooks.py"
    path.write_text(HOOKS)
    return path


def test_a_file_gives_its_event_functions_and_callback_objects(hooks):
    found = load_callbacks(str(hooks))
    assert [getattr(item, "__name__", type(item).__name__) for item in found] == [
        "on_train_epoch_end", "on_epoch_end", "Mine",
    ]  # fmt: skip
    registry = CallbackRegistry()
    for item in found:
        registry.add_any(item)
    assert len(registry["on_train_epoch_end"]) == len(registry["on_fit_epoch_end"]) == 1
    assert registry["on_train_end"][0].__self__.patience == 7


def test_a_name_of_a_file_or_module_and_arguments(hooks, monkeypatch):
    (made,) = load_callbacks(f"{hooks}:Mine(patience=3, mode='max')")
    assert (made.patience, made.mode) == (3, "max")
    monkeypatch.syspath_prepend(hooks.parent)
    (function,) = load_callbacks("hooks:on_train_epoch_end")
    assert function.__name__ == "on_train_epoch_end"
    (made,) = load_callbacks("hooks:Mine")
    assert made.patience == 1
    del sys.modules["hooks"]


def test_ready_made_callbacks_are_known_by_name():
    (limit,) = load_callbacks("TimeLimit(hours=2)")
    assert isinstance(limit, TimeLimit)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hooks.py", ["hooks.py"]),
        ("a.py, B(x=1, y=[2,3])", ["a.py", "B(x=1, y=[2,3])"]),
        ("[a.py,b.py]", ["a.py", "b.py"]),
        ("A(x='1,2)'),b.py", ["A(x='1,2)')", "b.py"]),
    ],
)
def test_texts_are_split_at_commas_outside_brackets(text, parts):
    assert split_texts(text) == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{folder}/nowhere.py", "nowhere.py does not exist"),
        ("no.such.module:f", "importing no.such.module failed: ModuleNotFoundError: No module named 'no'"),
        ("{folder}/hooks.py:Mind", "has no 'Mind'; did you mean 'Mine'?"),
        ("{folder}/hooks.py:Mine(patience=-1)", "patience=-1: expected 0 or more"),
        ("{folder}/hooks.py:Mine(size=3)", "unexpected keyword argument 'size'"),
        ("{folder}/hooks.py:Mine(open('x'))", "(open('x')) are not plain arguments"),
        ("{folder}/hooks.py:helper(3)", "only a class takes arguments"),
        ("TimeLimits(hours=2)", "did you mean 'TimeLimit'?"),
        ("{folder}/broken.py", "importing {folder}/broken.py failed: ZeroDivisionError: division by zero"),
        ("{folder}/misspelt.py", "unknown event 'on_trian_end'; did you mean 'on_train_end'?"),
        ("{folder}/nothing.py", "write callbacks={folder}/nothing.py:Only()"),
    ],
)  # fmt: skip
def test_errors_name_the_part_that_failed(text, message, hooks):
    folder = hooks.parent
    (folder / "broken.py").write_text("1 / 0")
    (folder / "misspelt.py").write_text("def on_trian_end(trainer): pass")
    (folder / "nothing.py").write_text("class Only: pass")
    text, message = text.format(folder=folder), message.format(folder=folder)
    with pytest.raises(CallbackError) as caught:
        load_callbacks(text)
    assert str(caught.value).startswith(f"callbacks={text}: ")
    assert message in str(caught.value)


def test_plugins_are_registered_and_a_broken_one_is_left_out(tmp_path, monkeypatch, caplog):
    (tmp_path / "their_plugin.py").write_text(
        textwrap.dedent("""
        class Watch:
            def on_train_end(self, trainer):
                "An event."
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("watch", "their_plugin:Watch", loading.PLUGIN_GROUP),
        EntryPoint("broken", "their_plugin:Missing", loading.PLUGIN_GROUP),
    ]
    monkeypatch.setattr(
        loading, "entry_points", lambda group: points if group == "detector.callbacks" else []
    )
    registry = CallbackRegistry()
    with caplog.at_level(logging.WARNING):
        named = add_plugins(registry)
    assert named == ["watch (unknown package)"]
    assert type(registry["on_train_end"][0].__self__).__name__ == "Watch"
    assert "plug-in broken (unknown package) is left out: AttributeError" in caplog.text


def test_a_module_of_the_current_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "my_hooks.py").write_text(
        "from next_door import on_train_end\n\ndef on_val_end(validator): pass\n"
    )
    (tmp_path / "next_door.py").write_text("def on_train_end(trainer): pass\n")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/parts.py").write_text("class Mine:\n    def on_train_end(self, trainer): pass\n")
    monkeypatch.chdir(tmp_path)
    before = [place for place in sys.path if place not in ("", str(tmp_path))]
    monkeypatch.setattr(sys, "path", list(before))
    for name in ("my_hooks", "next_door", "my_package", "my_package.parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    first, second, made = load_callbacks("my_hooks:on_val_end,my_hooks:on_train_end,my_package.parts:Mine()")
    assert (first.__name__, second.__module__, type(made).__name__) == ("on_val_end", "next_door", "Mine")
    assert sys.path == before
    with pytest.raises(CallbackError, match=rf"No module named 'nowhere_here' \(looked in {tmp_path}, too\)"):
        load_callbacks("nowhere_here:f")
    for name in ("my_hooks", "next_door", "my_package", "my_package.parts"):
        sys.modules.pop(name, None)

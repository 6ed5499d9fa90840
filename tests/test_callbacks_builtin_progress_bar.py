import io
import logging
import re
from types import SimpleNamespace

import pytest

from detector import YOLO
from detector.callbacks import ProgressBar
from detector.callbacks.builtin import progress_bar
from detector.errors import CallbackError


@pytest.fixture
def stderr(monkeypatch):
    """What the bar takes for stderr; set `is_terminal` to say what it is."""

    class Stderr(io.StringIO):
        is_terminal = True

        def isatty(self):
            return self.is_terminal

    stream = Stderr()
    monkeypatch.setattr(progress_bar, "sys", SimpleNamespace(stderr=stream))
    return stream


def bars(stream):
    """Return (epoch, first count, last count) of each bar."""
    found = {}
    for epoch, done in re.findall(r"epoch (\d)/2: .*?(\d+)/4 \[", stream.getvalue()):
        found.setdefault(epoch, []).append(int(done))
    return [(epoch, min(counts), max(counts)) for epoch, counts in found.items()]


def test_on_a_terminal_there_is_one_bar_per_epoch(stderr, train_tiny):
    train_tiny(ProgressBar(), batch=2)
    assert bars(stderr) == [("1", 0, 4), ("2", 0, 4)]
    assert re.search(r"box \d\.\d{3}  cls \d\.\d{3}  dfl \d\.\d{3}  64x64 px", stderr.getvalue())


def test_elsewhere_there_is_one_line_per_epoch(stderr, train_tiny, caplog):
    stderr.is_terminal = False
    caplog.set_level(logging.INFO, "detector.callbacks.builtin.progress_bar")
    train_tiny(ProgressBar(), batch=2)
    lines = [line for line in caplog.messages if line.startswith("epoch ")]
    assert len(lines) == 2 and stderr.getvalue() == ""
    assert re.fullmatch(
        r"epoch 1/2  box \S+  cls \S+  dfl \S+  mAP50 \S+  mAP50-95 \S+  \d+ images/s", lines[0]
    )


def test_in_a_notebook_the_bar_is_text_and_goes_with_its_epoch(stderr, monkeypatch):
    stderr.is_terminal = False
    monkeypatch.setattr("detector.drawing.in_notebook", lambda: True)
    monkeypatch.setattr(progress_bar, "find_spec", lambda name: None)  # no ipywidgets
    bar = progress_bar.open_bar(initial=0, total=4, desc="epoch 1/2")
    bar.update(4)
    bar.close()
    assert stderr.getvalue().count("\r") > 1 and "\n" not in stderr.getvalue()
    assert max(map(len, stderr.getvalue().split("\r"))) <= 100


def test_a_run_resumed_within_an_epoch_has_the_rest_of_its_bar(stderr, train_tiny, tiny_model, tmp_path):
    def interrupt(trainer):
        if trainer.epoch == 1 and trainer.batch_index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tiny(ProgressBar(), ("on_train_batch_end", interrupt), batch=2)
    assert stderr.getvalue().endswith("\n"), "the bar of the epoch is closed"
    stderr.truncate(0)
    yolo = YOLO(tiny_model)
    yolo.add_callback(ProgressBar())
    yolo.train(resume=tmp_path / "train")
    assert bars(stderr) == [("2", 2, 4)]


@pytest.mark.parametrize("every", [0, 2.5])
def test_a_bad_interval_is_refused(every):
    with pytest.raises(CallbackError, match=r"ProgressBar\(every=.*\): expected a whole number >= 1"):
        ProgressBar(every)

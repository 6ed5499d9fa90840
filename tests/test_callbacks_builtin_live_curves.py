"""The curves of a run in a notebook, with what a notebook offers for it in place of one."""

import sys
from types import SimpleNamespace

import pytest

from detector import plots
from detector.callbacks import LiveCurves
from detector.callbacks.registry import CallbackRegistry
from detector.errors import CallbackError
from detector.settings import TrainSettings
from detector.training import default_callbacks


@pytest.fixture
def shown(monkeypatch):
    """The images that were displayed, and those that took the place of one."""
    shown = SimpleNamespace(first=[], updated=[])

    def display(image, display_id):
        shown.first.append(image)
        return SimpleNamespace(update=shown.updated.append)

    module = SimpleNamespace(Image=lambda data: data, display=display)
    monkeypatch.setitem(
        sys.modules, "IPython", SimpleNamespace(__path__=[], version_info=(9, 0, 0), get_ipython=lambda: None)
    )
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


@pytest.fixture
def trainer(tmp_path):
    return SimpleNamespace(csv=tmp_path / "results.csv")


def end_epochs(callback, trainer, epochs):
    """Let epochs end; the table has a row more after each."""
    rows = ["epoch,train/box_loss,lr/pg0"]
    callback.on_train_start(trainer)
    for epoch in range(1, epochs + 1):
        rows.append(f"{epoch},{1 / epoch},0.1")
        trainer.csv.write_text("\n".join(rows))
        callback.on_fit_epoch_end(trainer)
    callback.on_train_end(trainer)


def test_one_display_is_updated(shown, trainer):
    end_epochs(LiveCurves(share=1e9), trainer, 2)
    assert len(shown.first) == 1 and len(shown.updated) == 2, "the second epoch and the end"
    assert all(image.startswith(b"\x89PNG") for image in (*shown.first, *shown.updated))


def test_of_short_epochs_the_first_and_the_last_are_drawn(shown, trainer):
    end_epochs(LiveCurves(share=1e-6), trainer, 6)
    assert len(shown.first) == 1 and len(shown.updated) == 1


def test_the_next_run_has_a_display_of_its_own(shown, trainer):
    callback = LiveCurves(share=1e-6)
    end_epochs(callback, trainer, 1)
    end_epochs(callback, trainer, 1)
    assert len(shown.first) == 2


def test_learning_rates_and_speeds_have_no_panel(shown, trainer, monkeypatch):
    drawn, draw = [], plots.draw_results
    monkeypatch.setattr(plots, "draw_results", lambda *given: drawn.append(list(given[1])) or draw(*given))
    end_epochs(LiveCurves(), trainer, 1)
    assert drawn[0] == ["train/box_loss"]


def test_without_a_table_nothing_is_drawn(shown, trainer):
    LiveCurves().on_train_end(trainer)
    assert not shown.first


@pytest.mark.parametrize("share", [0, -1, "much"])
def test_a_bad_share_is_refused(share):
    with pytest.raises(CallbackError, match=r"LiveCurves\(share=.*\): expected a number > 0"):
        LiveCurves(share=share)


@pytest.mark.parametrize(
    ("is_notebook", "with_plots", "is_added"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_only_a_notebook_has_it_by_default(monkeypatch, is_notebook, with_plots, is_added):
    monkeypatch.setattr(default_callbacks, "in_notebook", lambda: is_notebook)
    registry = CallbackRegistry()
    default_callbacks.add_default_callbacks(
        registry, TrainSettings(plots=with_plots, plugins=False, loggers="none")
    )
    assert registry.has_kind(LiveCurves) == is_added

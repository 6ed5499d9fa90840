"""The reference of events and ready-made callbacks, and the page and the command that show it."""

import re
import runpy
from pathlib import Path

import pytest

from detector import YOLO, callbacks
from detector.callbacks.events import ALIASES, EVENTS
from detector.cli import main
from detector.reference import (
    callbacks_text,
    event_rows,
    events_markdown,
    ready_made_markdown,
    ready_made_rows,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def page():
    return (DOCS / "callbacks.md").read_text(encoding="utf-8")


def test_the_command_prints_every_event_alias_and_ready_made_callback(capsys):
    assert main(["callbacks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first_words = [line.split()[0] for line in lines if line]
    assert first_words[1 : len(EVENTS) + 1] == list(EVENTS)
    assert [word.partition("(")[0] for word in first_words[-len(callbacks.READY_MADE) :]] == list(
        callbacks.READY_MADE
    )
    (aliases,) = [line for line in lines if line.startswith("aliases: ")]
    assert all(f"{alias} = {event}" in aliases for alias, event in ALIASES.items())


def test_a_row_says_when_how_often_and_with_what():
    rows = {name: rest for name, *rest in event_rows()}
    assert rows["on_fit_epoch_end"] == [
        "train",
        "after validation",
        "every epoch",
        "metrics of this epoch, fitness, best_fitness",
    ]
    assert "on_fit_epoch_end" in callbacks_text()
    assert (
        "| `optimizer_step` | train | after each optimizer step | every optimizer step |" in events_markdown()
    )


def test_a_ready_made_callback_is_shown_with_its_defaults_and_its_first_line():
    rows = dict(ready_made_rows())
    assert rows[
        "EarlyStopping(monitor='fitness', mode='max', patience=100, min_delta=0.0, start_from_epoch=0, baseline=None)"
    ].startswith("Ends a training after `patience` epochs in which a metric did not improve")
    assert all(line.count(" | ") == 1 for line in ready_made_markdown().splitlines()), "no cell is cut in two"


def test_the_page_is_current_and_make_docs_would_not_change_it(page):
    assert events_markdown() in page and ready_made_markdown() in page
    fill = runpy.run_path(str(DOCS / "write_callbacks.py"))["fill"]
    assert fill(page) == page
    assert fill(page.replace("| `on_train_start` | train |", "| `on_train_begin` | train |")) == page
    with pytest.raises(SystemExit, match=r"expected the markers .* once each, found them 0 times"):
        fill("")


def test_the_page_names_no_event_that_does_not_exist(page):
    here, _, elsewhere = page.partition("## Coming from")
    names = set(re.findall(r"\bon_[a-z_]+[a-z]\b", here))
    assert names - EVENTS.keys() - ALIASES.keys() == set()
    rows = [line.split(" | ") for line in elsewhere.splitlines() if line.startswith("| ")]
    own = {name for row in rows for name in re.findall(r"\bon_[a-z_]+[a-z]\b", row[1])}
    assert own <= EVENTS.keys()
    assert own >= {name for name in EVENTS if name.startswith(("on_train_", "on_val_"))}
    for row in rows:
        for name in re.findall(r"`([A-Z]\w+)`", row[1]):
            assert name in [*callbacks.READY_MADE, "Callback"]


def test_the_page_says_what_the_engines_really_hold(page, tiny_model, drawn_dataset, tmp_path):
    """Every attribute of the table is there at the end of an epoch, of a batch, or of the run."""
    cells = dict(re.findall(r"^\| ((?:trainer: .*?)|validator|predictor) \| (.*) \|$", page, re.MULTILINE))
    assert len(cells) == 8
    wanted = {
        kind: {
            name
            for title, cell in cells.items()
            if title.startswith(kind)
            for name in re.findall(r"`(\w+)`", re.sub(r"\([^()]*(?:\([^()]*\)[^()]*)*\)", "", cell))
        }
        for kind in ("trainer", "validator", "predictor")
    }
    assert {"epoch", "batch", "metrics", "schedule", "csv", "stop", "loggers"} <= wanted["trainer"]
    missing = []

    def check(kind):
        return lambda engine: missing.extend(name for name in wanted[kind] if not hasattr(engine, name))

    quick = {"imgsz": 64, "device": "cpu", "verbose": False, "project": tmp_path}
    model = YOLO(tiny_model)
    for event, kind in (("on_train_batch_end", "trainer"), ("on_val_batch_end", "validator")):
        model.add_callback(event, check(kind))
    model.add_callback("on_predict_batch_end", check("predictor"))
    model.train(data=drawn_dataset, epochs=1, workers=0, plots=False, loggers="none", plugins=False, **quick)
    results = model.predict(drawn_dataset.parent / "data/images/val", stream=True, **quick)
    next(results)
    results.close()
    assert missing == []

"""What a user's code puts into a run never costs it: it is converted or refused when it is set."""

import logging
import os
import random
import signal
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from support.training import quick_settings
from support.values import draw

from detector import Callback
from detector.callbacks.builtin.csv_logger import CSVLogger
from detector.callbacks.loggers.base import Logger
from detector.callbacks.registry import CallbackRegistry
from detector.checkpoints.checkpoint import load_checkpoint
from detector.engine.train import Trainer
from detector.errors import CallbackError, DetectorError, SettingsError
from detector.nn.model import load_model_config
from detector.settings import TrainSettings
from detector.training.resume import find_run


class Keeper(Callback):
    """Has a state of any kind."""

    value = None

    def on_fit_epoch_end(self, trainer):
        pass

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


class Sink(Logger):
    """A logger that takes what every backend takes: texts and floats."""

    title = "Sink"

    def open(self, trainer):
        pass

    def log_settings(self, settings):
        pass

    def log_metrics(self, metrics, step):
        for name, value in metrics.items():
            assert type(name) is str and type(value) is float and name.encode(), (name, value)

    def log_images(self, images, step):
        pass

    def log_file(self, path):
        pass

    def close(self, failed):
        pass


ATTRIBUTES = (
    "epoch", "epochs", "start_epoch", "batch_index", "num_batches", "batch_size", "global_step", "stop",
    "stop_reason", "should_stop", "stop_training", "best_fitness", "best_epoch", "fitness", "metrics", "save", "step",
    "validate", "lr", "stopp", "mine",
)  # fmt: skip
SCHEDULE = ("epochs", "scale", "paused", "lrf", "momentum", "accumulate", "warmup_epochs", "mine")
GROUP = ("lr", "initial_lr", "momentum", "weight_decay", "role", "mine", 3)
METRICS = ("my/mean", "train/box_loss", "", "/recall", "a//b", "x" * 300, "\udcff", 3, None)
SETTINGS = (
    "lr0",
    "epochs",
    "name",
    "data",
    "batch",
    "patience",
    "save_period",
    "time",
    "freeze",
    "classes",
    "scale",
)


@pytest.fixture
def trainer(tiny_model, drawn_dataset, tmp_path, monkeypatch):
    """A trainer that is set up, with a callback that has a state, CSV file and logger."""
    monkeypatch.setattr(os, "fsync", lambda file: None)  # hundreds of times, for nothing
    settings = TrainSettings.parse(
        quick_settings(data=str(drawn_dataset), project=str(tmp_path / "runs"), loggers="none", plugins=False)
    )
    registry = CallbackRegistry()
    registry.add(Keeper())
    registry.add(sink := Sink())
    trainer = Trainer(settings, load_model_config(tiny_model), callbacks=registry)
    trainer.set_up()
    trainer.fire("on_train_start")
    assert sink.is_open
    yield trainer
    trainer.close()


def put(trainer, place, key, value):
    """Set a value as a callback does."""
    if place == "attribute":
        setattr(trainer, key, value)
    elif place == "schedule":
        setattr(trainer.schedule, key, value)
    elif place == "group":
        trainer.optimizer.param_groups[0][key] = value
    elif place == "metrics":
        trainer.metrics |= {key: value}
    elif place == "state":
        next(known for known in trainer.callbacks.objects if isinstance(known, Keeper)).value = value
    else:
        trainer.initial_settings = TrainSettings.parse({key: value}).to_dict()


KEYS = {
    "attribute": ATTRIBUTES, "schedule": SCHEDULE, "group": GROUP, "metrics": METRICS, "state": ("",),
    "settings": SETTINGS,
}  # fmt: skip


def check_drawn_values(trainer, count, seed):
    """Put drawn values everywhere; after each the files of the run are written, open, and can be resumed from."""
    random_ = random.Random(seed)
    csv = next(known for known in trainer.callbacks.objects if isinstance(known, CSVLogger))
    sink = next(known for known in trainer.callbacks.objects if isinstance(known, Sink))
    last = trainer.last
    progress, schedule = vars(trainer.progress).copy(), vars(trainer.schedule).copy()
    group = dict(trainer.optimizer.param_groups[0])
    attributes = {name: trainer.__dict__[name] for name in ATTRIBUTES if name in trainer.__dict__}
    settings, taken, refused = trainer.initial_settings, 0, 0
    trainer.save_state()
    trainer.save_checkpoint(last)
    for _ in range(count):
        place = random_.choice(list(KEYS))
        key, value = random_.choice(KEYS[place]), draw(random_)
        try:
            put(trainer, place, key, value)
            taken += 1
        except (CallbackError, SettingsError) as error:
            refused += 1
            assert place == "settings" or ("\n" not in str(error) and len(str(error)) < 400), error
            continue
        try:
            trainer.save_state()
            trainer.save_checkpoint(last)
        except CallbackError as error:
            assert place == "state", (place, key, value)
            assert str(error).startswith(
                "the state of the callback Keeper can't be saved: its state_dict()['value']"
            )
        csv.on_fit_epoch_end(trainer)
        sink.on_fit_epoch_end(trainer)
        assert not sink.is_broken
        metrics = load_checkpoint(last)["metrics"]
        assert all(type(number) in (bool, int, float) for number in metrics.values())
        (trainer.save_dir / "weights/state-previous.pt").unlink(missing_ok=True)  # the newest one has to do
        find_run(trainer.save_dir, "runs")
        vars(trainer.progress).update(progress)
        vars(trainer.schedule).update(schedule)
        vars(trainer).update(attributes)
        for known in [*trainer.optimizer.param_groups[0]]:
            del trainer.optimizer.param_groups[0][known]
        trainer.optimizer.param_groups[0].update(group)
        trainer.initial_settings, trainer.metrics = settings, {}
        put(trainer, "state", "", None)
        csv.columns, csv.rows = [], []
    assert taken > count / 4 and refused > count / 10


def test_no_value_that_is_set_anywhere_makes_a_file_that_can_not_be_opened(trainer):
    check_drawn_values(trainer, 120, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_no_value_of_thousands_makes_a_file_that_can_not_be_opened(trainer, seed):
    check_drawn_values(trainer, 600, seed)


# ---------------------------------------------------------------------- whole runs


def test_numbers_of_other_libraries_in_a_run_leave_all_its_files_readable(train_tiny):
    def set_all(trainer):
        trainer.metrics["my/mean"] = np.mean([0.2, 0.4])
        trainer.metrics.update({"my/tensor": torch.tensor(0.5), "my/decimal": Decimal("0.25")})
        trainer.metrics |= {"my/count": np.int64(3)}
        trainer.schedule.scale = np.interp(0.5, [0, 1], [1, 0.5])
        trainer.optimizer.param_groups[0]["lr"] = np.float32(0.001)
        trainer.epochs = np.int64(2)
        trainer.stop |= np.bool_(False)

    model = train_tiny(("on_fit_epoch_end", set_all), save_period=1)
    files = list((model.trainer.save_dir / "weights").glob("*.pt"))
    assert {file.name for file in files} == {"best.pt", "last.pt", "state.pt", "epoch1.pt", "epoch2.pt"}
    for file in files:
        metrics = load_checkpoint(file)["metrics"]
        assert (metrics["my/mean"], metrics["my/tensor"]) == (pytest.approx(0.3), 0.5)
        assert (metrics["my/decimal"], metrics["my/count"]) == (0.25, 3)
    state = find_run(model.trainer.save_dir, "runs").content
    assert state["schedule"]["scale"] == 0.75 and state["counters"]["stop"] is False


@pytest.mark.parametrize("kind", ["assigned", "defaultdict"])
def test_metrics_may_be_replaced_by_any_mapping(train_tiny, kind):
    from collections import defaultdict

    def replace(trainer):
        mine = defaultdict(float, trainer.metrics) if kind == "defaultdict" else dict(trainer.metrics)
        mine["my/mean"] = np.mean([0.2, 0.4])
        trainer.metrics = mine

    model = train_tiny(("on_fit_epoch_end", replace), epochs=1)
    assert load_checkpoint(model.trainer.last)["metrics"]["my/mean"] == pytest.approx(0.3)


def test_what_is_no_number_in_metrics_is_named_once_and_the_run_goes_on(train_tiny, caplog):
    seen = []

    def note(trainer):
        trainer.metrics.update({"note": "good", "none": None, "rows": [1, 2], "": 0.5, "my/fine": 0.5})
        seen.append((trainer.metrics["note"], trainer.metrics.get("rows"), "note" in trainer.metrics))

    model = train_tiny(("on_fit_epoch_end", note))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 4
    place = r"note \(" + __file__
    for text, problem in (
        ("'note'", "is 'good': expected a number"),
        ("'none'", "is None: expected a number"),
        ("'rows'", r"is [1, 2]: expected a number"),
        ("''", "has no name"),
    ):
        (warning,) = [line for line in warnings if line.startswith(f"the metric {text} {problem}")]
        assert "left out of files and loggers: the callback test_what_is_no_number" in warning
        assert place.replace("\\", "") in warning and warning.endswith("on on_fit_epoch_end")
    assert seen == [("good", None, False)] * 2, "the callback itself can read what it set"
    header = model.trainer.csv.read_text().splitlines()[0]
    assert "my/fine" in header and "note" not in header and "rows" not in header


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: setattr(t, "save", 3), r"^trainer.save = 3: save is a method; .*trainer.stop = True"),
        (lambda t: setattr(t, "step", True), r"^trainer.step = True: step is a method; "),
        (lambda t: setattr(t, "validate", True), r"^trainer.validate = True: validate is a method; "),
        (lambda t: setattr(t, "lr", 0.1), r"^trainer.lr = 0.1: lr is read only; set trainer.schedule.scale"),
        (lambda t: setattr(t, "stopp", True), r"^trainer.stopp = True: .* did you mean 'stop'\?"),
        (lambda t: setattr(t, "metric", {}), r"^trainer.metric = {}: .* did you mean 'metrics'\?"),
        (lambda t: setattr(t, "stop", "yes"), r"^trainer.stop = 'yes': expected True or False"),
        (lambda t: setattr(t, "epochs", 2.5), r"^trainer.epochs = 2.5: expected a whole number"),
        (
            lambda t: setattr(t, "metrics", None),
            r"^trainer.metrics = None: expected a dict of names and numbers",
        ),
        (
            lambda t: setattr(t.schedule, "scale", float("nan")),
            r"^trainer.schedule.scale = nan: expected a finite",
        ),
        (
            lambda t: t.optimizer.param_groups[1].update(lr="0.1"),
            r"^optimizer.param_groups\[1\]\['lr'\] = '0.1': expected a finite number",
        ),
        (
            lambda t: t.optimizer.param_groups[1].update(path=Path("a")),
            r"^optimizer.param_groups\[1\]\['path'\] is a PosixPath; expected None, numbers, texts",
        ),
    ],
)
def test_what_can_not_be_is_refused_at_once_with_the_callback(train_tiny, tmp_path, change, message):
    def spoil(trainer):
        change(trainer)

    with pytest.raises(DetectorError, match=message) as caught:
        train_tiny(("on_fit_epoch_end", spoil))
    (note,) = caught.value.__notes__
    assert note.startswith("in the callback ") and "spoil (" in note and note.endswith(" on on_fit_epoch_end")
    assert find_run(tmp_path / "train", "runs").content["batches"] == 2, "the epoch is not lost"


def test_own_attributes_of_callbacks_are_kept(train_tiny):
    def keep(trainer):
        trainer.seen = getattr(trainer, "seen", 0) + 1
        trainer._stop = "mine"

    assert train_tiny(("on_train_epoch_end", keep)).trainer.seen == 2


def test_a_model_in_eval_mode_in_a_callback_trains_on_as_before(train_tiny, caplog):
    def evaluate(trainer):
        trainer.model.eval()

    weights = [
        train_tiny(*callbacks, seed=3, name=name).trainer.model.state_dict()
        for name, callbacks in (
            ("plain", ()),
            ("batch", [("on_train_batch_end", evaluate)]),
            ("start", [("on_train_batch_start", evaluate)]),
        )
    ]
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())
    assert caplog.text.count("train() or eval() was called by a callback") == 2


@pytest.mark.parametrize("name", ["stop", "should_stop", "stop_training"])
def test_a_run_is_stopped_under_the_names_of_other_trainers(train_tiny, name):
    epochs = []

    def stop(trainer):
        assert getattr(trainer, name) is False
        epochs.append(trainer.epoch)
        setattr(trainer, name, True)

    trainer = train_tiny(("on_fit_epoch_end", stop), epochs=3).trainer
    assert epochs == [0] and trainer.stop is True
    line = stop.__code__.co_firstlineno + 3
    assert trainer.stop_reason.endswith(f"test_user_values.py:{line} (stop on on_fit_epoch_end)")
    assert trainer.stop_reason.startswith("stopped by ")


def test_the_reason_of_the_end_is_known(train_tiny):
    assert train_tiny(epochs=1).trainer.stop_reason == "all 1 epochs are done"
    timed = train_tiny(epochs=3, callbacks="TimeLimit(seconds=0.001)").trainer
    assert timed.stop_reason == "time limit 0.001 s"
    reasons = []
    interrupted = [
        ("on_train_epoch_end", lambda trainer: signal.raise_signal(signal.SIGINT)),
        ("on_exception", lambda trainer: reasons.append(trainer.stop_reason)),
    ]
    with pytest.raises(KeyboardInterrupt):
        train_tiny(*interrupted)
    assert reasons == ["Ctrl-C"]

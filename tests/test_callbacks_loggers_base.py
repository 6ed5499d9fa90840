"""What all loggers have in common: which are chosen, what they are given, and what one that fails does."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.training import quick_settings, train

from detector import YOLO
from detector.callbacks.loggers import LOGGERS, choose_loggers
from detector.callbacks.loggers.base import HOOKS, Logger, environment, project_name
from detector.errors import DataError, MissingPackageError, SettingsError
from detector.settings import LOGGER_NAMES

QUICK = quick_settings(plugins=False, loggers="none")


@pytest.fixture(autouse=True)
def no_settings(tmp_path, monkeypatch):
    """Nothing in the environment or in the current folder sets a backend up; no hint has been given yet."""
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("WANDB_", "COMET_", "MLFLOW_", "NETRC")):
            monkeypatch.delenv(name)


@pytest.fixture
def installed(monkeypatch):
    """Say which packages are installed, without importing any."""

    def choose(*packages):
        for logger in LOGGERS.values():
            module = SimpleNamespace(__spec__=SimpleNamespace(origin="there"))
            monkeypatch.setitem(sys.modules, logger.package, module if logger.package in packages else None)

    choose("tensorboard", "mlflow", "wandb", "comet_ml")
    return choose


def names(loggers, switches=(), log_model=True):
    return [logger.name for logger in choose_loggers(loggers, dict(switches), log_model)]


class Recorder(Logger):
    """Keeps what it is given, and fails on the hook that is named in `fails`."""

    title = "Recorder"

    def __init__(self, fails=(), log_model=True):
        super().__init__(log_model)
        self.calls, self.fails = [], fails

    def _note(self, hook, *given):
        self.calls.append((hook, *given))
        if hook in self.fails:
            raise OSError(f"{hook}: no space left\nsecond line")

    def open(self, trainer):
        self._note("open", trainer.save_dir.name)

    def log_settings(self, settings):
        self._note("log_settings", dict(settings))

    def log_metrics(self, metrics, step):
        self._note("log_metrics", dict(metrics), step)

    def log_images(self, images, step):
        self._note("log_images", sorted(images), step)

    def log_file(self, path):
        self._note("log_file", path.name)

    def close(self, failed):
        self._note("close", failed)

    def hooks(self):
        return [call[0] for call in self.calls]


def run(logger, model, data, folder, then=None, **settings):
    callbacks = [logger] if then is None else [logger, ("on_train_batch_end", then)]
    return train(model, *callbacks, data=data, project=folder, **(QUICK | settings))


# ---------------------------------------------------------------------- which are chosen


def test_there_is_a_logger_for_every_setting():
    assert tuple(LOGGERS) == LOGGER_NAMES


def test_auto_means_all_that_are_installed_and_set_up(installed, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    assert names("auto") == ["tensorboard", "mlflow"]
    assert caplog.messages == [
        "Weights & Biases is installed but not set up; to use it, run `wandb login`, or set WANDB_API_KEY, "
        "or set WANDB_MODE=offline",
        "Comet is installed but not set up; to use it, run `comet login`, or set COMET_API_KEY, or set "
        "COMET_START_ONLINE=0 to log offline",
    ]
    caplog.clear()
    assert names("auto") == ["tensorboard", "mlflow"] and not caplog.messages, "hints come once per machine"
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("COMET_API_KEY", "key")
    assert names("auto") == ["tensorboard", "mlflow", "wandb", "comet"]
    installed("wandb")
    assert names("auto") == ["wandb"]


def test_switches_say_more_than_loggers(installed):
    assert names("auto", {"mlflow": False}) == ["tensorboard"]
    assert names("none") == []
    assert names("none", {"mlflow": True}) == ["mlflow"]
    assert names(["tensorboard", "mlflow"], {"mlflow": False}) == ["tensorboard"]
    assert names("mlflow") == ["mlflow"]


def test_log_model_reaches_them(installed):
    assert [logger.log_model for logger in choose_loggers("auto", {}, False)] == [False, False]


def test_what_is_asked_for_must_be_installed(installed):
    installed()
    with pytest.raises(MissingPackageError, match=r"^mlflow=true needs the mlflow package: pip install"):
        choose_loggers("none", {"mlflow": True})
    with pytest.raises(
        MissingPackageError, match=r"^loggers=comet needs the comet_ml package: .*'detector\[comet\]'"
    ):
        choose_loggers(["comet"], {})


def test_what_is_asked_for_must_be_set_up(installed):
    with pytest.raises(
        SettingsError, match=r"^wandb=true: Weights & Biases is not set up; run `wandb login`"
    ):
        choose_loggers("none", {"wandb": True})


def test_an_unknown_name_gets_the_nearest(installed):
    with pytest.raises(SettingsError, match=r"expected auto, none or some of .*; did you mean 'mlflow'"):
        choose_loggers(["mlfow"], {})


def test_a_folder_named_as_a_package_is_no_package(installed, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "wandb")
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert "wandb" not in names("auto")


@pytest.mark.parametrize("variables", [{"WANDB_MODE": "disabled"}, {"COMET_AUTO_LOG_DISABLE": "1"}])
def test_the_environment_can_switch_a_backend_off(installed, monkeypatch, variables, caplog):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("COMET_API_KEY", "key")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    off = "wandb" if "WANDB_MODE" in variables else "comet"
    assert off not in names("auto") and not caplog.messages
    assert off not in names([off]) and f"loggers={off}: but the environment switches" in caplog.text


def test_choosing_imports_no_backend():
    code = (
        "import sys\n"
        "from detector.callbacks.loggers import choose_loggers\n"
        "choose_loggers('auto', {}, True)\n"
        "print([n for n in ('tensorboard', 'mlflow', 'wandb', 'comet_ml', 'torch') if n in sys.modules])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(root)},
    )
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------- what they are given


def test_a_run_in_the_order_a_logger_sees_it(tiny_model, drawn_dataset, tmp_path, monkeypatch):
    logger, seen = Recorder(), []
    monkeypatch.setattr("detector.training.default_callbacks.choose_loggers", lambda *given: [logger])
    yolo = YOLO(tiny_model)
    yolo.add_callback("on_fit_epoch_end", lambda trainer: trainer.metrics.update(mine=trainer.epoch / 2))
    yolo.add_callback("on_fit_epoch_end", lambda trainer: seen.append(dict(trainer.metrics)))
    yolo.add_callback("on_pretrain_routine_start", lambda trainer: logger.calls.append(("user's start",)))
    yolo.add_callback("teardown", lambda trainer: logger.calls.append(("user's teardown",)))
    yolo.train(data=drawn_dataset, project=tmp_path / "runs", **(QUICK | {"plots": True}))
    assert logger.calls.pop(2) == ("user's start",) and logger.calls.pop(-2) == ("user's teardown",)
    assert logger.hooks() == [
        "open", "log_settings", "log_settings", "log_metrics", "log_metrics", "log_metrics", "log_images",
        "log_file", "close",
    ]  # fmt: skip
    assert logger.calls[0] == ("open", "train")
    assert logger.calls[1][1]["epochs"] == 2 and logger.calls[1][1]["data"] == str(drawn_dataset)
    info = yolo.trainer.model.info(64)
    assert logger.calls[2][1] == {"model/parameters": info.parameters, "model/GFLOPs": round(info.gflops, 3)}
    assert logger.calls[3:5] == [("log_metrics", seen[0], 1), ("log_metrics", seen[1], 2)]
    assert seen[1]["mine"] == 0.5 and {"train/box_loss", "lr/pg0", "metrics/mAP50-95"} <= seen[1].keys()
    best, step = logger.calls[5][1:]
    assert step == 2 and best["best/mAP50-95"] == yolo.metrics.results_dict["metrics/mAP50-95"]
    images, step = logger.calls[6][1:]
    assert step == 2 and set(images) >= {
        "pictures/results", "pictures/labels", "pictures/confusion_matrix", "pictures/BoxPR_curve",
        "pictures/train_batch0", "pictures/val_batch0_pred",
    }  # fmt: skip
    assert logger.calls[7:] == [("log_file", "best.pt"), ("close", False)]


def test_a_logger_added_by_hand_is_treated_as_an_attached_one(
    tiny_model, drawn_dataset, tmp_path, monkeypatch
):
    attached = Recorder()
    monkeypatch.setattr("detector.training.default_callbacks.choose_loggers", lambda *given: [attached])
    logger, order = Recorder(), []
    yolo = YOLO(tiny_model)
    yolo.add_callback(logger)
    yolo.add_callback("on_pretrain_routine_start", lambda trainer: order.append(logger.hooks()), first=True)
    yolo.add_callback("on_fit_epoch_end", lambda trainer: trainer.metrics.update(mine=1.0))
    yolo.add_callback("teardown", lambda trainer: order.append("close" in logger.hooks()))
    yolo.train(data=drawn_dataset, project=tmp_path, callbacks="PredictionImages(count=1)", **QUICK)
    assert yolo.trainer.loggers == [logger] and not attached.calls, "one of each kind"
    assert order == [["open", "log_settings"], False] and logger.calls[-1] == ("close", False)
    assert [call[1].get("mine") for call in logger.calls if call[0] == "log_metrics"] == [1.0, 1.0, None]
    assert [call[1:] for call in logger.calls if call[0] == "log_images"][:2] == [
        (["predictions"], 1), (["predictions"], 2),
    ]  # fmt: skip


def test_log_model_false_keeps_the_weights_here(tiny_model, drawn_dataset, tmp_path):
    logger = Recorder(log_model=False)
    run(logger, tiny_model, drawn_dataset, tmp_path / "runs", epochs=1)
    assert "log_file" not in logger.hooks() and logger.calls[-1] == ("close", False)


def test_a_failed_run_is_closed_as_failed(tiny_model, drawn_dataset, tmp_path):
    logger = Recorder()

    def fail(trainer):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run(logger, tiny_model, drawn_dataset, tmp_path / "runs", then=fail)
    assert logger.calls[-1] == ("close", True)
    assert isinstance(logger.exception, ValueError)


@pytest.mark.parametrize("content", [None, "train: nowhere\nval: nowhere\nnames: [a]\n"])
def test_a_data_set_that_is_not_found_opens_no_logger(content, tiny_model, tmp_path):
    logger = Recorder()
    if content:
        (tmp_path / "none.yaml").write_text(content)
    with pytest.raises(DataError):
        run(logger, tiny_model, tmp_path / "none.yaml", tmp_path / "runs")
    assert logger.hooks() == []


def test_a_run_that_could_not_begin_is_closed_as_failed(tiny_model, drawn_dataset, tmp_path):
    logger = Recorder()
    with pytest.raises(SettingsError):
        run(logger, tiny_model, drawn_dataset, tmp_path / "runs", fitness="nothing")
    assert logger.hooks() == ["open", "log_settings", "close"] and logger.calls[-1] == ("close", True)


def test_a_logger_opens_later_if_a_callback_makes_the_data_set(tiny_model, drawn_dataset, tmp_path):
    logger = Recorder()
    yolo = YOLO(tiny_model)
    yolo.add_callback(logger)
    data = tmp_path / "made.yaml"
    text = drawn_dataset.read_text().replace("path: data", f"path: {drawn_dataset.parent / 'data'}")
    yolo.add_callback("on_pretrain_routine_start", lambda trainer: data.write_text(text) and None)
    yolo.add_callback("on_pretrain_routine_end", lambda trainer: logger.calls.append(("user's",)))
    yolo.train(data=data, project=tmp_path / "runs", **(QUICK | {"epochs": 1}))
    assert logger.hooks()[-1] == "close" and logger.hooks()[:3] == ["open", "log_settings", "user's"]


def test_a_logger_is_asked_to_write_before_the_first_epoch(tiny_model, drawn_dataset, tmp_path, caplog):
    class Late(Recorder):
        def verify(self):
            self._note("verify")

    logger, seen = Late(fails=("verify",)), []
    run(
        logger,
        tiny_model,
        drawn_dataset,
        tmp_path / "runs",
        then=lambda t: seen.append(logger.hooks()[-1]),
        epochs=1,
    )
    assert seen[0] == "close", "it was left out before the first batch"
    assert (
        "Recorder failed and is left out of the rest of this run: OSError: verify: no space left"
        in caplog.text
    )


def test_texts_histograms_and_plots_reach_a_logger(tiny_model, drawn_dataset, tmp_path, caplog):
    from matplotlib.figure import Figure

    caplog.set_level(logging.INFO)
    logger = Recorder(log_model=False)

    def log_all(trainer):
        for given in trainer.loggers:
            given.log_text("my/note", "hello", 1)
            given.log_text("my/note", "again", 1)
            given.log_histogram("my/weights", trainer.model.model[0].conv.weight, 1)
            given.log_histogram("my/nothing", [float("nan")], 1)
            given.log_figure("my/figure", Figure(), 1)

    run(logger, tiny_model, drawn_dataset, tmp_path / "runs", then=lambda t: log_all(t) if t.batch_index == 0 else None,
        epochs=1)  # fmt: skip
    assert [call for call in logger.calls if call[0] == "log_images"] == [
        ("log_images", ["my/weights"], 1), ("log_images", ["my/figure"], 1),
    ]  # fmt: skip
    logged = tmp_path / "runs/train/logged"
    assert sorted(path.name for path in logged.iterdir()) == ["my_figure-1.png", "my_weights-1.png"]
    assert caplog.messages.count("Recorder takes no texts: my/note is left out") == 1


def test_the_same_logger_serves_another_run(tiny_model, drawn_dataset, tmp_path):
    logger = Recorder(fails=("log_metrics",))
    run(logger, tiny_model, drawn_dataset, tmp_path / "runs", epochs=1)
    logger.calls, logger.fails = [], ()
    run(logger, tiny_model, drawn_dataset, tmp_path / "runs", epochs=1)
    assert logger.calls[0] == ("open", "train-2") and logger.calls[-1] == ("close", False)


class Picky(Recorder):
    """Takes no name with a slash at its start."""

    def refuses(self, name):
        return super().refuses(name) or ("it starts with a slash" if name.startswith("/") else None)


def test_a_metric_that_a_backend_refuses_is_named_once_and_the_others_are_logged(caplog):
    logger = Picky()
    logger.is_open = True
    for step in (1, 2):
        logger.log_metrics({"/recall": 0.5, "": 0.5, "note": "good", "mine": np.float32(0.5), "n": 3}, step)
    logger.log_metrics({"/recall": 0.5}, 3)
    assert logger.calls == [("log_metrics", {"mine": 0.5, "n": 3.0}, step) for step in (1, 2)]
    assert caplog.messages == [
        "Recorder: the metric '/recall' is left out: it starts with a slash",
        "Recorder: the metric '' is left out: it has no name",
        "Recorder: the metric 'note' is left out: is not a number",
    ]


# ---------------------------------------------------------------------- when one fails


@pytest.mark.parametrize("hook", HOOKS)
def test_a_logger_that_fails_warns_once_and_is_left_out(hook, tiny_model, drawn_dataset, tmp_path, caplog):
    logger = Recorder(fails=(hook, "close"))
    settings = {"epochs": 1, "plots": hook == "log_images"}
    yolo = run(logger, tiny_model, drawn_dataset, tmp_path / "runs", **settings)
    assert yolo.metrics is not None
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [
        f"Recorder failed and is left out of the rest of this run: OSError: {hook}: no space left"
    ]
    assert logger.hooks()[logger.hooks().index(hook) + 1 :] == ["close"]
    assert logger.calls[-1] == ("close", True)


def test_a_logger_stops_taking_what_others_give_it_once_it_is_closed(tmp_path):
    logger = Recorder()
    logger.log_images({"predictions": tmp_path / "1.jpg"}, 1)
    assert logger.calls == []


def test_ctrl_c_passes_a_logger(tiny_model, drawn_dataset, tmp_path):
    class Interrupted(Recorder):
        def log_metrics(self, metrics, step):
            raise KeyboardInterrupt

    logger = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        run(logger, tiny_model, drawn_dataset, tmp_path / "runs")
    assert logger.calls[-1] == ("close", True) and isinstance(logger.exception, KeyboardInterrupt)


# ---------------------------------------------------------------------- small things


def test_the_project_is_the_folder_of_the_runs():
    def trainer(project):
        return SimpleNamespace(settings=SimpleNamespace(project=project))

    assert project_name(trainer("street/signs")) == "signs"
    assert project_name(trainer("runs")) == "detector"


def test_environment_lasts_for_its_block_and_leaves_the_users_alone(monkeypatch):
    monkeypatch.setenv("DETECTOR_A", "users")
    monkeypatch.delenv("DETECTOR_B", raising=False)
    with environment(DETECTOR_A="ours", DETECTOR_B="ours"):
        assert (os.environ["DETECTOR_A"], os.environ["DETECTOR_B"]) == ("users", "ours")
    assert os.environ["DETECTOR_A"] == "users" and "DETECTOR_B" not in os.environ

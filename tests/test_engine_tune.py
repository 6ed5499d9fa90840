import csv
import logging
import signal
import sys

import optuna
import pytest
import torch
import yaml
from support.training import quick_settings

from detector import YOLO
from detector.cli import main
from detector.engine import tune
from detector.errors import DataError, SettingsError, TrainingError

SPACE = {"lr0": {"log": [0.001, 0.1], "first": 0.01}, "mosaic": {"uniform": [0.0, 1.0]}}


@pytest.fixture
def run(tiny_model, drawn_dataset, tmp_path):
    """Run a study of two trainings of one epoch; every setting can be given."""

    def run(*callbacks, **settings):
        model = YOLO(tiny_model)
        for callback in callbacks:
            model.add_callback(*callback)
        given = quick_settings(epochs=1, data=drawn_dataset, project=tmp_path, trials=2, space=SPACE)
        del given["plots"]
        return model.tune(**(given | settings))

    return run


def table(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_study_leaves_a_table_plots_and_settings_that_train_takes(run, tiny_model, tmp_path):
    seen = []
    found = run(("on_train_end", lambda trainer: seen.append(trainer.settings.lr0)), trials=3)
    rows = table(tmp_path / "tune")
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert [float(row["lr0"]) for row in rows] == seen and seen[0] == 0.01 and len(set(seen)) == 3
    assert found.best_fitness == max(float(row["fitness"]) for row in rows)
    assert found.best_params == found.study.best_params
    for name in ("history.png", "learning_curves.png", "study.db", "study.yaml", "best.yaml"):
        assert (found.save_dir / name).stat().st_size > 0
    best = yaml.safe_load(found.best_yaml.read_text())
    assert best == found.best_settings and best["lr0"] == found.best_params["lr0"]
    assert "project" not in best and "trials" not in best and "workers" not in best
    kept = sorted(found.save_dir.glob("trial-*/weights/*"))
    assert kept == [found.best_weights] == [found.save_dir / f"trial-{found.best_trial:04d}/weights/best.pt"]
    assert not list(found.save_dir.glob("trial-*/*.png"))
    model = YOLO(tiny_model)
    model.train(cfg=found.best_yaml, project=tmp_path, workers=0, plots=False, verbose=False)
    assert model.trainer.settings.mosaic == found.best_params["mosaic"] and model.trainer.epochs == 1


def test_the_same_command_resumes_a_study_and_others_are_refused(run, tmp_path):
    def interrupt(trainer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(("on_train_epoch_end", interrupt))
    assert [row["state"] for row in table(tmp_path / "tune")] == ["interrupted"]
    run()
    rows = table(tmp_path / "tune")
    assert [(row["state"], row["repeats"]) for row in rows] == [
        ("interrupted", ""),
        ("complete", "0"),
        ("complete", ""),
    ]
    assert rows[0]["lr0"] == rows[1]["lr0"] == "0.01"
    assert not list((tmp_path / "tune" / rows[0]["folder"] / "weights").iterdir())
    again = run()
    assert len(again.rows) == 3
    with pytest.raises(
        SettingsError, match=r"'tune' was begun with epochs=1; give the same settings, or another name="
    ):
        run(epochs=2)
    with pytest.raises(SettingsError, match=r"was begun with another space \(mosaic\)"):
        run(space={"lr0": SPACE["lr0"]})
    assert len(run(trials=3).rows) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_sigterm_ends_the_study_and_its_trial_is_repeated(run, tmp_path):
    with pytest.raises(SystemExit) as ended:
        run(("on_train_epoch_end", lambda _: signal.raise_signal(signal.SIGTERM)))
    assert ended.value.code == 143
    assert [row["state"] for row in table(tmp_path / "tune")] == ["interrupted"]


def test_what_settings_may_have_caused_ends_the_trial_and_not_the_study(run, tmp_path, capsys):
    errors = iter([TrainingError("the loss is not finite"), torch.OutOfMemoryError("CUDA out of memory")])

    def fail(trainer):
        if (error := next(errors, None)) is not None:
            raise error

    found = run(("on_train_epoch_start", fail), trials=3)
    rows = table(tmp_path / "tune")
    assert [row["state"] for row in rows] == ["failed", "failed", "complete"] and found.best_trial == 2
    assert rows[0]["error"] == "TrainingError: the loss is not finite" and "out of memory" in rows[1]["error"]


def test_a_study_without_a_good_trial_says_why(run):
    def fail(trainer):
        raise TrainingError("the loss is not finite")

    with pytest.raises(
        TrainingError, match="none of 2 trials came to a good end; the last: TrainingError: the loss"
    ):
        run(("on_train_epoch_start", fail))


def test_a_mistake_of_the_user_ends_the_study_and_is_no_result(run, tmp_path):
    def wrong(trainer):
        raise KeyError("metrics/mAP")

    with pytest.raises(KeyError):
        run(("on_train_epoch_end", wrong))
    assert [row["state"] for row in table(tmp_path / "tune")] == ["interrupted"]
    with pytest.raises(DataError):
        run(data="nowhere.yaml", name="other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(SettingsError, match="the trials have no fitness"):
        run(("on_fit_epoch_end", lambda trainer: setattr(trainer, "fitness", None)), name="third")


def test_a_trial_that_does_worse_is_pruned(run, monkeypatch, tmp_path):
    monkeypatch.setattr(tune, "make_pruner", lambda *_: optuna.pruners.ThresholdPruner(lower=0.5))

    def rate(trainer):
        trainer.fitness = 0.9 if trainer.settings.lr0 == 0.01 else 0.1

    run(("on_fit_epoch_end", rate), epochs=2, warmup_epochs=0)
    rows = table(tmp_path / "tune")
    assert [(row["state"], row["epochs"]) for row in rows] == [("complete", "2"), ("pruned", "1")]


def test_the_terminal_shows_a_line_per_trial_and_the_summary(
    tiny_model, drawn_dataset, tmp_path, capsys, monkeypatch
):
    for logger in (
        logging.getLogger(),
        logging.getLogger("detector"),
    ):  # as in a program that has set up nothing
        for name in ("handlers", "level", "propagate"):
            monkeypatch.setattr(logger, name, [] if name == "handlers" else getattr(logger, name))
    space = tmp_path / "space.yaml"
    space.write_text("lr0: {log: [0.001, 0.1]}\n")
    words = [
        f"{key}={value}" for key, value in quick_settings(epochs=1).items() if key not in ("plots", "verbose")
    ]
    place = [
        f"model={tiny_model}",
        f"data={drawn_dataset}",
        f"project={tmp_path}",
        f"space={space}",
        "trials=2",
    ]
    assert main(["tune", *place, *words]) == 0
    out, err = capsys.readouterr()
    begun, *lines = err.splitlines()
    assert begun == f"study tune: 2 trials, 1 settings varied; {tmp_path / 'tune'}"
    assert [line.split(":")[0] for line in lines] == ["trial 0", "trial 1"] and lines[1].endswith(
        "2 of 2 done"
    )
    out = out.splitlines()
    assert out[0] == "2 trials: 2 complete" and out[-1] == str(tmp_path / "tune" / "best.yaml")


def test_a_folder_that_is_not_a_studys_is_left_alone(run, tmp_path):
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "mine.txt").write_text("x")
    with pytest.raises(SettingsError, match="has no study in it; choose another name="):
        run()
    assert [path.name for path in (tmp_path / "tune").iterdir()] == ["mine.txt"]
    with pytest.raises(
        SettingsError, match="a study resumes when the same command is given again; leave resume out"
    ):
        run(resume=True)
    with pytest.raises(SettingsError, match=r"pruner=medan: expected median \| hyperband \| asha \| none"):
        run(pruner="medan")


def test_no_time_left_starts_no_trial(run):
    with pytest.raises(TrainingError, match="none of 0 trials"):
        run(hours=1e-9)


@pytest.mark.parametrize("name", ["tpe", "random", "gp"])
def test_samplers_draw_the_same_for_a_trial_and_others_for_the_next(name):
    def draw(number):
        study = optuna.create_study()
        for value in range(3):
            study.add_trial(optuna.create_trial(params={}, value=value))
        trial = study.ask()
        study.sampler = tune.make_sampler(name, 0, number, {"lr0": 0.5})
        return trial.suggest_float("lr0", 0, 1)

    assert draw(0) == 0.5 and draw(3) == draw(3) != draw(4)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (None, "NopPruner"), ("median", "MedianPruner"), ("hyperband", "HyperbandPruner"),
        ("asha", "SuccessiveHalvingPruner"),
    ],
)  # fmt: skip
def test_pruners_are_those_of_optuna(name, kind):
    assert type(tune.make_pruner(name, 3.0, 100)).__name__ == kind

import matplotlib
import optuna
import pytest
import yaml
from matplotlib import pyplot

from detector.errors import SettingsError
from detector.tuning.report import draw_plots, trial_rows, write_best, write_table


@pytest.fixture
def study():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(6):
        trial = study.ask()
        lr0, optimizer = (
            trial.suggest_float("lr0", 0.001, 0.1, log=True),
            trial.suggest_categorical("optimizer", ["SGD", "AdamW"]),
        )
        trial.report(lr0, 0)
        trial.report(lr0 + (optimizer == "SGD"), 1)
        if number == 1:
            trial.set_user_attr("error", "TrainingError: x")
        study.tell(trial, state=optuna.trial.TrialState.FAIL) if number in (1, 2) else study.tell(trial, lr0)
    return study


def test_a_row_per_trial_says_how_it_ended_and_what_was_drawn(study, tmp_path):
    rows = trial_rows(study.trials, ["lr0", "optimizer"])
    assert [row["state"] for row in rows] == [
        "complete",
        "failed",
        "interrupted",
        "complete",
        "complete",
        "complete",
    ]
    assert rows[0]["fitness"] == rows[0]["lr0"] == study.trials[0].params["lr0"] and rows[0]["epochs"] == 2
    assert rows[1]["error"] == "TrainingError: x" and rows[1]["fitness"] is None
    write_table(tmp_path / "trials.csv", rows)
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert (
        lines[0] == "trial,state,fitness,epochs,seconds,repeats,host,folder,error,lr0,optimizer"
        and len(lines) == 7
    )
    with pytest.raises(SettingsError, match="can't write"):
        write_table(tmp_path / "none" / "trials.csv", rows)


def test_plots_are_drawn_and_leave_no_figure_and_no_style(study, tmp_path):
    before = dict(matplotlib.rcParams)
    drawn = draw_plots(study, tmp_path)
    assert [path.name for path in drawn] == ["history.png", "learning_curves.png", "importances.png"]
    assert all(path.stat().st_size > 5000 for path in drawn)
    assert pyplot.get_fignums() == [] and dict(matplotlib.rcParams) == before


def test_importances_need_trials_that_differ(tmp_path):
    study = optuna.create_study(direction="maximize")
    assert draw_plots(study, tmp_path) == []
    for _ in range(5):
        trial = study.ask()
        trial.suggest_float("lr0", 0, 1)
        trial.report(0.5, 0)
        study.tell(trial, 0.5)
    assert [path.name for path in draw_plots(study, tmp_path)] == ["history.png", "learning_curves.png"]


def test_the_best_settings_are_yaml_with_a_comment(tmp_path):
    write_best(tmp_path / "best.yaml", {"lr0": 0.01, "data": "naïve.yaml"}, "trial 3")
    text = (tmp_path / "best.yaml").read_text(encoding="utf-8")
    assert text.startswith("# trial 3\n") and yaml.safe_load(text) == {"lr0": 0.01, "data": "naïve.yaml"}

"""What a study writes into its run folder: the table of trials, the best settings and the plots."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from detector.errors import cannot_write
from detector.fields import format_value
from detector.files.atomic import atomic_write
from detector.tables import rows_to_csv
from detector.tuning.storage import no_experimental_warnings
from detector.tuning.trials import origin, state_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

MIN_FOR_IMPORTANCE = 4  # complete trials; with fewer, importances are noise


@dataclass
class TuneResults:
    """What a study found.

    Attributes:
        study: Optuna's study.
        save_dir: its run folder.
        best_trial: number of the best trial.
        best_fitness: its fitness.
        best_params: the values that were varied, of that trial.
        best_settings: what was given and these values: settings for `train`, as in `best_yaml`.
        best_yaml: file that `cfg=` takes.
        best_weights: best.pt of that trial, if it ran here and `keep` kept it.
        rows: one dict per trial, as in `trials_csv`.
        trials_csv: the table of trials.
    """

    study: Any
    save_dir: Path
    best_trial: int
    best_fitness: float
    best_params: dict[str, Any]
    best_settings: dict[str, Any]
    best_yaml: Path
    best_weights: Path | None
    rows: list[dict[str, Any]]
    trials_csv: Path

    def summary(self) -> str:
        """Return the end of a study as text: how many trials ended how, the best one, and its settings."""
        states = [row["state"] for row in self.rows]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
        lines = [
            f"{len(self.rows)} trials: {counts}",
            f"best: trial {self.best_trial}, fitness {self.best_fitness:.5f}",
        ]
        width = max(map(len, self.best_params), default=0)
        lines += [f"  {name:<{width}}  {_short(value)}" for name, value in self.best_params.items()]
        weights = [] if self.best_weights is None else [str(self.best_weights)]
        return "\n".join([*lines, str(self.trials_csv), *weights, str(self.best_yaml)])


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else format_value(value)


def trial_rows(trials: Sequence[FrozenTrial], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row per trial, in the order of their numbers.

    Args:
        trials: of a study.
        names: the settings that are varied; each is a column.
    """
    rows = []
    for trial in trials:
        attributes, epochs = trial.user_attrs, trial.last_step
        seconds = trial.duration.total_seconds() if trial.duration is not None else None
        repeats = origin(trial) if origin(trial) != trial.number else None
        row = {
            "trial": trial.number,
            "state": state_of(trial),
            "fitness": trial.value if trial.values else None,
            "epochs": None if epochs is None else epochs + 1,
            "seconds": None if seconds is None else round(seconds, 1),
            "repeats": repeats,
            "host": attributes.get("host"),
            "folder": attributes.get("folder"),
            "error": attributes.get("error"),
        }
        rows.append(row | {name: trial.params.get(name) for name in names})
    return rows


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all.

    Raises:
        SettingsError: if it can't be written.
    """
    _write(path, rows_to_csv(rows))


def write_best(path: Path, settings: Mapping[str, Any], comment: str) -> None:
    """Write settings as YAML that `cfg=` takes, after a line of comment.

    Raises:
        SettingsError: if it can't be written.
    """
    _write(path, f"# {comment}\n" + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))


def _write(path: Path, text: str) -> None:
    try:
        with atomic_write(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise cannot_write(f"to {path.parent}", error) from None


def draw_plots(study: Study, folder: Path) -> list[Path]:
    """Draw Optuna's plots of a study; what needs more trials than there are is left out.

    Returns:
        The files: history, learning curves, importances.
    """
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as plots

    values = [trial.value for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    drawn = []
    with _own_style(), no_experimental_warnings():
        if values:
            drawn += [
                _save(plots.plot_optimization_history(study, target_name="fitness"), folder / "history.png"),
                _save(plots.plot_intermediate_values(study), folder / "learning_curves.png"),
            ]
        if len(values) >= MIN_FOR_IMPORTANCE and len(set(values)) > 1:
            axes = plots.plot_param_importances(
                study, evaluator=PedAnovaImportanceEvaluator(), target_name="fitness"
            )
            drawn.append(_save(axes, folder / "importances.png"))
    return drawn


def _save(axes: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure = axes.figure
    try:
        figure.set_size_inches(9, 5)
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=150, bbox_inches="tight")
    except OSError as error:
        raise cannot_write(f"to {path.parent}", error) from None
    finally:
        pyplot.close(figure)
    return path


@contextmanager
def _own_style() -> Iterator[None]:
    """Give the style that Optuna's plots set back at the end of a `with` block."""
    import matplotlib

    with matplotlib.rc_context():
        yield

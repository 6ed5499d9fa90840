"""The report of a training, and its evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detector import YOLO
from detector.callbacks import Report, RunStatus
from detector.callbacks.registry import CallbackRegistry
from detector.metrics.evaluator import CocoEvaluator
from detector.pages.content import EVALUATION, read_evaluation
from detector.settings import TrainSettings
from detector.training.default_callbacks import add_default_callbacks

Train = Callable[..., YOLO]


def stop_with(error: Exception) -> tuple[str, Callable[[Any], None]]:
    def fail(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise error

    return "on_train_epoch_start", fail


def data_of(folder: Path) -> dict[str, Any]:
    text = (folder / "report.html").read_text()
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])  # type: ignore[no-any-return]


def test_a_training_leaves_its_report(train_tiny: Train, tmp_path: Path) -> None:
    model = train_tiny(Report())
    folder = tmp_path / "train"
    data = data_of(folder)
    assert (data["state"], data["status"]["epoch"], data["problems"]) == ("finished", 2, [])
    assert len(data["metrics"]["epoch"]) == 2
    evaluation = data["evaluation"]
    assert evaluation["overall"]["ap50"] == pytest.approx(model.metrics.box.map50, abs=1e-4)
    assert sum(map(sum, evaluation["confusion"]["matrix"])) == model.metrics.confusion_matrix.matrix.sum()
    assert evaluation["samples"]
    assert all(sample["jpeg"].startswith("/9j/") for sample in evaluation["samples"])
    assert evaluation["final"]


def test_within_a_run_the_classes_are_there_already(train_tiny: Train, tmp_path: Path) -> None:
    seen = []

    def look(_: Any) -> None:
        seen.append(read_evaluation(tmp_path / "train"))

    train_tiny(Report(), ("on_fit_epoch_end", look))
    assert [content and content["final"] for content in seen] == [False, False]
    assert [row["name"] for row in seen[0]["classes"]] == ["square", "triangle", "ring"]
    assert "samples" not in seen[0]


def test_of_short_epochs_the_first_and_the_final_validation_write(tmp_path: Path) -> None:
    def write(callback: Report) -> bool:
        path = tmp_path / EVALUATION
        path.unlink(missing_ok=True)
        callback.on_val_end(
            SimpleNamespace(save_dir=tmp_path, metrics=metrics, evaluator=evaluator, final=False)
        )
        return path.is_file()

    evaluator = CocoEvaluator({0: "cat"})
    metrics = evaluator.compute()
    callback = Report()
    callback.on_pretrain_routine_start(None)
    assert [write(callback), write(callback)] == [True, False]
    callback._next = 0.0  # some seconds later
    assert write(callback)
    callback.on_pretrain_routine_start(None)
    assert write(callback), "the next run begins with one"


def test_a_run_that_fails_has_a_report_that_says_why(train_tiny: Train, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        train_tiny(Report(), stop_with(ZeroDivisionError("by hand")), epochs=3)
    data = data_of(tmp_path / "train")
    assert (data["state"], data["status"]["error"]) == ("failed", "ZeroDivisionError: by hand")
    assert data["metrics"]["epoch"] == [1]


def test_a_run_that_fails_at_once_leaves_no_report(train_tiny: Train, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        train_tiny(Report(), data="nowhere.yaml")
    assert not list(tmp_path.glob("*/report.html"))


def test_it_is_there_by_default_with_plots_and_comes_last() -> None:
    registry = CallbackRegistry()
    add_default_callbacks(registry, TrainSettings(plugins=False, loggers="none"))
    owners = [type(fn.__self__) for fn in registry["teardown"]]
    assert owners[-2:] == [RunStatus, Report]
    without = CallbackRegistry()
    add_default_callbacks(without, TrainSettings(plugins=False, loggers="none", plots=False))
    assert not without.has_kind(Report)


def test_it_can_be_removed(train_tiny: Train, tmp_path: Path) -> None:
    report = Report()
    train_tiny(
        report, ("on_pretrain_routine_end", lambda trainer: trainer.callbacks.remove(report)), epochs=1
    )
    assert not (tmp_path / "train/report.html").exists()
    assert not (tmp_path / "train/evaluation.json").exists()


def test_images_that_are_gone_are_left_out(
    train_tiny: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(validator: Any) -> None:
        validator.paths = [f"{path}.gone" for path in validator.paths]

    train_tiny(("on_val_end", lose), Report(), epochs=1)
    evaluation = data_of(tmp_path / "train")["evaluation"]
    assert {sample["jpeg"] for sample in evaluation["samples"]} == {None}


def test_a_full_disk_costs_the_report_and_not_the_run(
    train_tiny: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def block(trainer: Any) -> None:
        for name in ("evaluation.json", "report.html"):
            (trainer.save_dir / name).mkdir()

    train_tiny(("on_train_start", block), Report(), epochs=1)
    assert "report.html: can't write the report" in caplog.text
    assert "evaluation.json: can't write the evaluation" in caplog.text
    assert (tmp_path / "train/weights/best.pt").exists()

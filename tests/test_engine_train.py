"""End-to-end tests of training on eight synthetic images."""

import copy
import csv
import hashlib
from functools import partial

import pytest
import torch
import yaml
from support.training import quick_settings

from detector import YOLO
from detector.checkpoints.checkpoint import load_checkpoint
from detector.cli import main
from detector.engine.train import Trainer
from detector.errors import DetectorError, TrainingError
from detector.training.batch_norm import STATISTICS_IMAGES

SIZE = 96  # levels of 12, 6 and 3 cells


@pytest.fixture
def train_tiny(train_tiny):
    """Train on images of SIZE."""
    return partial(train_tiny, imgsz=SIZE)


def digest(weights):
    sha = hashlib.sha256()
    for key in sorted(weights):
        sha.update(key.encode() + weights[key].contiguous().numpy().tobytes())
    return sha.hexdigest()


def test_a_run_leaves_what_it_should(train_tiny, tmp_path):
    yolo = train_tiny(project=tmp_path / "runs", plots=True, optimizer="AdamW")
    folder = tmp_path / "runs" / "train"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written >= {
        "args.yaml", "results.csv", "results.png", "labels.jpg", "weights/best.pt", "weights/last.pt",
        "train_batch0.jpg", "train_batch1.jpg", "val_batch0_labels.jpg", "val_batch0_pred.jpg",
        "confusion_matrix.png", "BoxPR_curve.png",
    }  # fmt: skip
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert list(rows[0]) == [
        "epoch", "time", "train/box_loss", "train/cls_loss", "train/dfl_loss", "metrics/precision",
        "metrics/recall", "metrics/mAP50", "metrics/mAP50-95", "val/loss", "val/box_loss", "val/cls_loss",
        "val/dfl_loss", "lr/pg0", "lr/pg1", "lr/pg2", "speed/images_per_second", "speed/data_wait",
    ]  # fmt: skip
    assert yaml.safe_load((folder / "args.yaml").read_text())["epochs"] == 2
    assert yolo.names == {0: "disc", 1: "square", 2: "triangle", 3: "star", 4: "ring", 5: "cross"}
    assert yolo.source == folder / "weights/best.pt"


def test_best_weights_bring_back_the_model(train_tiny, tmp_path):
    yolo = train_tiny()
    again = YOLO(tmp_path / "train/weights/best.pt")
    assert again.names == yolo.names
    assert digest(again.model.state_dict()) == digest(yolo.model.state_dict())
    assert again.ckpt["settings"]["imgsz"] == 96
    metrics = again.val(project=tmp_path, verbose=False, plots=False, device="cpu")
    assert metrics.results_dict == pytest.approx(yolo.metrics.results_dict, abs=1e-9)


@pytest.mark.parametrize("model", ["tiny_model", "tiny_dual_model"])
def test_the_same_seed_gives_the_same_weights_with_any_workers(train_tiny, model, tmp_path, request):
    digests = set()
    for run, workers in enumerate((0, 0, 2)):
        train_tiny(model=request.getfixturevalue(model), project=tmp_path / str(run), workers=workers)
        digests.add(digest(load_checkpoint(tmp_path / str(run) / "train/weights/last.pt")["weights"]))
    assert len(digests) == 1


def test_another_seed_gives_other_weights(train_tiny, tmp_path):
    digests = {
        digest(train_tiny(project=tmp_path / str(seed), seed=seed, epochs=1).model.state_dict())
        for seed in (0, 1)
    }
    assert len(digests) == 2


def test_training_leaves_the_global_random_state_alone(train_tiny, tiny_model):
    torch.manual_seed(7)
    expected = torch.rand(3)
    yolo = YOLO(tiny_model)
    torch.manual_seed(7)
    train_tiny(model=yolo, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_callback_sees_this_epochs_metrics(train_tiny, tiny_model):
    seen = []
    yolo = YOLO(tiny_model)

    @yolo.add_callback("on_fit_epoch_end")
    def look(trainer):
        seen.append(
            (trainer.epoch, trainer.fitness, trainer.metrics["metrics/mAP50-95"], trainer.lr["lr/pg0"])
        )

    train_tiny(model=yolo)
    assert [epoch for epoch, *_ in seen] == [0, 1]
    assert all(fitness == value for _, fitness, value, _ in seen)


def test_stop_ends_the_run_cleanly_after_the_batch(train_tiny, tiny_model, tmp_path):
    yolo, batches = YOLO(tiny_model), []

    @yolo.add_callback("on_train_batch_end")
    def stop(trainer):
        batches.append(trainer.batch_index)
        trainer.stop = True

    train_tiny(model=yolo)
    assert batches == [0]
    assert (tmp_path / "train/weights/last.pt").exists()
    assert yolo.metrics is not None


def test_early_stopping_counts_epochs_without_a_better_fitness(train_tiny):
    yolo = train_tiny(epochs=30, patience=1, lr0=1e-9)
    assert yolo.trainer.epoch < 29


def test_a_non_finite_loss_names_step_terms_and_files(train_tiny, tiny_model, tmp_path):
    yolo = YOLO(tiny_model)

    @yolo.add_callback("on_train_batch_start")
    def poison(trainer):
        if trainer.global_step == 3:
            with torch.no_grad():
                next(trainer.model.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingError) as caught:
        train_tiny(model=yolo)
    message = str(caught.value)
    assert "epoch 2, step 3" in message
    assert "box_loss=" in message
    assert "cls_loss=" in message
    assert ".jpg" in message or ".png" in message
    kept = load_checkpoint(tmp_path / "train/weights/last.pt")["weights"]
    assert all(torch.isfinite(value).all() for value in kept.values())


@pytest.mark.parametrize(
    ("settings", "error"),
    [({}, "DataError"), ({"device": "cuda:99"}, "SettingsError"), ({"wandb": True}, "MissingPackageError")],
)
def test_on_exception_and_teardown_fire_when_set_up_fails(train_tiny, settings, error, tiny_model, tmp_path):
    seen = []
    yolo = YOLO(tiny_model)
    yolo.add_callback("on_exception", lambda trainer: seen.append(type(trainer.exception).__name__))
    yolo.add_callback("teardown", lambda trainer: seen.append("teardown"))
    with pytest.raises(DetectorError):
        train_tiny(model=yolo, data=tmp_path / "nowhere.yaml", **settings)
    assert seen == [error, "teardown"]
    assert not (tmp_path / "train").exists()  # nothing but settings was written


def test_fine_tuning_takes_the_weights(train_tiny, tmp_path):
    yolo = train_tiny(epochs=1)
    again = train_tiny(model=tmp_path / "train/weights/best.pt", epochs=1, freeze=3)
    mine, theirs = yolo.model.state_dict(), again.model.state_dict()
    assert torch.equal(mine["model.0.conv.weight"], theirs["model.0.conv.weight"])
    assert not torch.equal(mine["model.4.conv.weight"], theirs["model.4.conv.weight"])
    assert "tensors loaded" in str(again.trainer.transfer)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "MuSGD"},
        {"nbs": 8},
        {"rect": True},
        {"rect": True, "balance": 1.0, "background": 0.0, "copy_paste": 1.0},
        {"multi_scale": 0.5},
        {"single_cls": True},
        {"cos_lr": True, "cls_pw": 0.5},
        {"amp": False},
        {"fraction": 0.5, "cache": False},
        {"val": False, "save_period": 1},
        {"time": 1e-9},
    ],
    ids=str,
)
def test_settings_work_together_with_training(train_tiny, settings, tmp_path):
    yolo = train_tiny(**settings)
    assert yolo.metrics.fitness >= 0
    assert (tmp_path / "train/weights/epoch2.pt").exists() == ("save_period" in settings)
    assert yolo.trainer.epoch == (0 if "time" in settings else 1)


def test_accumulation_steps_less_often(train_tiny):
    yolo = train_tiny(nbs=16, warmup_epochs=0.0, epochs=4)
    assert yolo.trainer.ema.updates == 2


def test_what_is_said_of_the_data_is_said_once(train_tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DETECTOR_DATASETS", str(tmp_path / "sets"))
    train_tiny(data="coco8", epochs=1)
    assert sum("NOT THE REAL IMAGES" in record.getMessage() for record in caplog.records) == 1


def test_the_trainer_can_be_used_alone(tiny_model, drawn_dataset, tmp_path):
    from detector.nn.model import load_model_config
    from detector.settings import TrainSettings

    settings = TrainSettings.parse(
        quick_settings(data=str(drawn_dataset), project=str(tmp_path), imgsz=SIZE, epochs=1)
    )
    assert Trainer(settings, load_model_config(tiny_model)).run().num_images == 4


def test_settings_stay_as_they_were_given_while_the_mosaic_closes(train_tiny):
    seen = []

    def look(trainer):
        seen.append((trainer.epoch, trainer.settings.mosaic, trainer.mosaic_is_closed))

    settings = {"mosaic": 0.5, "close_mosaic": 1, "callbacks": [("on_train_batch_end", look)], "batch": 8}
    yolo = train_tiny(**settings)
    assert seen == [(0, 0.5, False), (1, 0.5, True)]
    assert yolo.trainer.settings.to_dict() == yolo.trainer.initial_settings


@pytest.mark.parametrize(("last", "closed"), [(2, {2, 3}), (0.25, {3}), (0.0, set()), (9, {0, 1, 2, 3})])
def test_mosaic_closes_by_a_count_or_a_part_of_the_run(last, closed, train_tiny):
    seen = set()
    look = [("on_train_epoch_start", lambda trainer: trainer.mosaic_is_closed and seen.add(trainer.epoch))]
    train_tiny(epochs=4, close_mosaic=last, callbacks=look)
    assert seen == closed


@pytest.mark.parametrize("mix", ["copy_paste", "cutmix"])
def test_copy_paste_and_cutmix_close_with_the_mosaic(mix, train_tiny):
    seen, changed = [], []
    look = [("on_train_batch_end", lambda trainer: seen.append((trainer.epoch, trainer.batch.images.clone()))),
            ("on_params_update", lambda trainer: changed.append(trainer.epoch))]  # fmt: skip
    settings = {"mosaic": 0.0, "epochs": 2, "close_mosaic": 1, "batch": 8, "callbacks": look}
    for value in (0.0, 1.0):
        train_tiny(**settings, **{mix: value})
    assert changed == [1]
    assert [epoch for epoch, _ in seen] == [0, 1, 0, 1]
    assert not torch.equal(seen[0][1], seen[2][1])  # while it is open
    assert torch.equal(seen[1][1], seen[3][1])


def test_mosaic_opens_again_when_a_time_budget_makes_the_run_longer(train_tiny):
    asked, changed = {}, []

    def watch(trainer):
        batches = trainer.data.train_loader.batches

        def spy(epoch, first, mosaic):
            asked.setdefault(trainer.epoch, set()).add(mosaic)
            return batches(epoch, first, mosaic=mosaic)

        trainer.data.train_loader.batches = spy

    def longer(trainer):
        if trainer.epoch == 0:
            trainer.epochs = 3

    callbacks = [("on_train_start", watch), ("on_fit_epoch_end", longer),
                 ("on_params_update", lambda trainer: changed.append(trainer.mosaic_is_closed))]  # fmt: skip
    train_tiny(epochs=1, close_mosaic=1, callbacks=callbacks)
    assert asked == {0: {False}, 1: {True}, 2: {False}}
    assert changed == [True, False, True]


@pytest.mark.parametrize("start", ["python", "command line"])
def test_a_run_records_the_model_it_was_started_from(start, train_tiny, tiny_model, drawn_dataset, tmp_path):
    recorded = []
    if start == "python":
        callbacks = [("on_train_start", lambda trainer: recorded.append(trainer.settings.model))]
        train_tiny(epochs=1, callbacks=callbacks)
        assert recorded == [str(tiny_model)]
    else:
        settings = quick_settings(epochs=1, model=tiny_model, data=drawn_dataset, project=tmp_path)
        words = [f"{key}={value if key in ('model', 'data', 'project') else str(value).lower()}"
                 for key, value in settings.items()]  # fmt: skip
        assert main(["train", "callbacks=TimeLimit(hours=2)", *words]) == 0
        recorded = yaml.safe_load((tmp_path / "train/args.yaml").read_text())
        assert recorded["callbacks"] == ["TimeLimit(hours=2)"]
    run = tmp_path / "train"
    assert yaml.safe_load((run / "args.yaml").read_text())["model"] == str(tiny_model)
    assert load_checkpoint(run / "weights/best.pt")["settings"]["model"] == str(tiny_model)
    train_tiny(model=run / "weights/best.pt", name="again", epochs=1)
    assert yaml.safe_load((tmp_path / "again/args.yaml").read_text())["model"] == str(run / "weights/best.pt")


def test_training_hands_out_the_best_network_and_reads_its_file_once(train_tiny, tmp_path, monkeypatch):
    read, load = [], torch.load

    def watched(path, *rest, **options):
        read.append(str(path))
        return load(path, *rest, **options)

    monkeypatch.setattr(torch, "load", watched)
    yolo = train_tiny()
    best = tmp_path / "train/weights/best.pt"
    assert [path for path in read if path.endswith("best.pt")] == [str(best)]
    content = load_checkpoint(best)
    assert digest(yolo.model.state_dict()) == digest(content.pop("weights"))
    assert yolo.ckpt | {"origin": None} == content  # its own origin is now that file
    assert yolo.ckpt["origin"]["name"] == "best.pt"
    assert not yolo.model.training
    again = YOLO(best).model.parameters()
    assert [p.requires_grad for p in yolo.model.parameters()] == [p.requires_grad for p in again]


def test_nothing_saved_means_that_no_older_best_is_taken(train_tiny, tmp_path):
    train_tiny(epochs=1, seed=1)
    yolo = train_tiny(epochs=1, seed=2, save=False, exist_ok=True)
    old = load_checkpoint(tmp_path / "train/weights/best.pt")["weights"]
    assert digest(yolo.model.state_dict()) == digest(yolo.trainer.ema.state_dict()) != digest(old)


def test_an_older_best_is_never_taken_for_this_runs(train_tiny, tmp_path):
    train_tiny(epochs=1, seed=1)
    old = load_checkpoint(tmp_path / "train/weights/best.pt")["weights"]

    def no_best(trainer):
        trainer.best_epoch = None

    yolo = train_tiny(("on_fit_epoch_end", no_best), epochs=1, seed=2, exist_ok=True)
    assert digest(yolo.model.state_dict()) == digest(yolo.trainer.ema.state_dict()) != digest(old)


def test_a_run_without_a_best_epoch_takes_no_older_best(train_tiny, tmp_path):
    train_tiny(epochs=1, seed=1)
    old = load_checkpoint(tmp_path / "train/weights/best.pt")["weights"]
    stop = ("on_fit_epoch_end", lambda trainer: setattr(trainer, "stop", True))
    yolo = train_tiny(stop, epochs=2, seed=2, val=False, exist_ok=True)
    assert digest(yolo.model.state_dict()) != digest(old)
    assert yolo.source == yolo.trainer.last and yolo.source.name == "last.pt"


@pytest.mark.parametrize(("budget", "planned", "epochs"), [(35, 100, 3), (5, 100, 1), (65, 4, 6)])
def test_a_time_budget_takes_the_place_of_the_epochs(budget, planned, epochs, train_tiny, monkeypatch):
    """An epoch takes ten seconds of a faked clock; the budget ends the run, or lengthens it."""
    now, seen, planned_again = [0.0], [], []
    monkeypatch.setattr("detector.engine.train.perf_counter", lambda: now[0])

    def end_of_epoch(trainer):
        now[0] += 10
        seen.append(trainer.lr["lr/pg0"])

    yolo = train_tiny(
        ("on_fit_epoch_end", end_of_epoch),
        ("on_params_update", lambda trainer: planned_again.append(trainer.epochs)),
        epochs=planned, time=budget / 3600, warmup_epochs=0, mosaic=0,
    )  # fmt: skip
    assert len(seen) == epochs
    assert planned_again == [epochs]
    assert yolo.trainer.schedule.epochs == epochs
    assert len(set(seen)) == epochs  # the rate falls over the epochs that there are


@pytest.mark.parametrize("model", ["tiny_model", "tiny_dual_model"])
def test_averaged_weights_and_their_statistics_fit(model, train_tiny, request, monkeypatch):
    """Both modes give the same on the images of the statistics, however fast the weights have moved."""
    monkeypatch.setattr("detector.training.batch_norm.YOUNG_STEPS", 0)  # as after the first steps
    differences = []

    def compare(trainer):
        images = trainer.images_to_device(torch.cat(list(trainer.last_images(STATISTICS_IMAGES))))
        network = copy.deepcopy(trainer.ema.model)
        with torch.no_grad():
            evaluated = network(images)[network.selected_head].scores
            trained = network.train()(images)[network.selected_head].scores
        differences.append(float((evaluated - trained).abs().mean() / trained.std()))

    train_tiny(
        ("on_fit_epoch_end", compare),
        model=request.getfixturevalue(model),
        batch=8,
        epochs=4,
        warmup_epochs=0,
    )
    assert len(differences) == 4
    assert max(differences) < 0.01

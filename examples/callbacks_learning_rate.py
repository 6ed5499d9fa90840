"""Change the learning rate: scale the trainer's schedule, or set the rates by hand.

    python examples/callbacks_learning_rate.py

`trainer.schedule.scale` is a factor on every rate the schedule sets, warm-up included. With
`trainer.schedule.paused = True` the schedule leaves the rates alone, and what a callback sets stays. Both are
saved with the run, and restored when it is resumed.
"""

from math import cos, pi

from detector import YOLO

SMALL = {
    "data": "shapes.yaml", "epochs": 4, "imgsz": 64, "fraction": 0.1, "optimizer": "AdamW",
    "lr0": 0.001, "warmup_epochs": 0, "val": False, "verbose": False, "plots": False,
}  # fmt: skip


def halve(trainer):
    """Scale: half the scheduled rate from the third epoch on."""
    if trainer.epoch == 2:
        trainer.schedule.scale = 0.5


def pause_schedule(trainer):
    """By hand, first part: the schedule no longer sets the rates."""
    trainer.schedule.paused = True


def set_rates(trainer):
    """By hand, second part: half a cosine over the whole run, one step per batch."""
    done = trainer.global_step / (trainer.epochs * trainer.num_batches)
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * (1 + cos(pi * done)) / 2


def train(model, callbacks, **settings):
    """Train with callbacks for this run only; return the rate at the end of every epoch."""
    rates = []
    callbacks = [*callbacks, ("on_train_epoch_end", lambda trainer: rates.append(trainer.lr["lr/pg0"]))]
    YOLO(model).train(callbacks=callbacks, **settings)
    return rates


def main(model="yolo11n.yaml", **settings):
    settings = SMALL | settings
    runs = {
        "schedule": [],
        "halved": [("on_train_epoch_start", halve)],
        "by hand": [("on_train_start", pause_schedule), ("on_train_batch_start", set_rates)],
    }
    columns = {name: train(model, callbacks, **settings) for name, callbacks in runs.items()}
    print("epoch", *(f"{name:>9}" for name in columns))
    for epoch, rates in enumerate(zip(*columns.values(), strict=True)):
        print(f"{epoch + 1:>5}", *(f"{rate:9.5f}" for rate in rates))


if __name__ == "__main__":
    main()

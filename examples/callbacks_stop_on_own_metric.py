"""Compute a custom metric and stop when it is good enough.

    python examples/callbacks_stop_on_own_metric.py

The metric is F2, in which recall weighs more than precision: for uses in which a missed object is worse
than a false alarm. What a callback puts into `trainer.metrics` also becomes a column of results.csv and a
curve in every logger. It ends within about half a minute; no network needed.
"""

from detector import YOLO, Callback

SMALL = {
    "data": "shapes.yaml", "epochs": 12, "imgsz": 96, "batch": 8, "fraction": 0.5, "max_det": 30,
    "verbose": False, "plots": False,
}  # fmt: skip


class StopOnF2(Callback):
    """Ends a training once F2 on the validation images reaches `goal`."""

    def __init__(self, goal):
        self.goal = goal

    def on_fit_epoch_end(self, trainer):
        precision = trainer.metrics["metrics/precision"]
        recall = trainer.metrics["metrics/recall"]
        f2 = 5 * precision * recall / max(4 * precision + recall, 1e-9)
        trainer.metrics["my/F2"] = f2
        print(f"epoch {trainer.epoch + 1}: F2 {f2:.3f}")
        if f2 >= self.goal:
            trainer.stop = True  # after this epoch: last.pt is written, the best weights are validated
            print(f"the goal of {self.goal:g} is reached, so training stops")


def main(model="yolo11n.yaml", goal=0.1, **settings):
    yolo = YOLO(model)
    yolo.train(callbacks=[StopOnF2(goal)], **(SMALL | settings))
    print(f"trained {yolo.trainer.epoch + 1} of {yolo.trainer.epochs} epochs; metrics: {yolo.trainer.csv}")


if __name__ == "__main__":
    main()

"""Print one line per epoch: the first callback most people write.

    python examples/callbacks_print_per_epoch.py

It trains yolo11n on synthetic images, few and small, so that it ends within half a minute. No network needed.
"""

from detector import YOLO

SMALL = {
    "data": "shapes.yaml", "epochs": 4, "imgsz": 96, "batch": 8, "fraction": 0.25, "max_det": 30,
    "verbose": False, "plots": False,
}  # fmt: skip


def print_epoch(trainer):
    """A callback is a function of one argument, the engine: here the trainer."""
    metrics = trainer.metrics  # of this epoch, validation included
    star = " *" if trainer.fitness == trainer.best_fitness else ""
    print(
        f"epoch {trainer.epoch + 1} of {trainer.epochs}:",
        f"box loss {metrics['train/box_loss']:.3f}, mAP50 {metrics['metrics/mAP50']:.4f}{star}",
    )


def main(model="yolo11n.yaml", **settings):
    yolo = YOLO(model)
    yolo.add_callback("on_fit_epoch_end", print_epoch)
    yolo.train(**(SMALL | settings))
    print(f"the best was epoch {yolo.trainer.best_epoch + 1}: {yolo.trainer.best}")


if __name__ == "__main__":
    main()

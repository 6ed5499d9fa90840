"""A callback whose state survives: a training is interrupted and resumed, and the callback continues to count.

    python examples/callbacks_state.py

An object with `state_dict` and `load_state_dict` is saved with the run after every epoch and when it is interrupted,
in `weights/state.pt` under its class name, and gets its state back when the run is resumed.
"""

from detector import YOLO, Callback

SMALL = {
    "data": "shapes.yaml", "epochs": 4, "imgsz": 64, "fraction": 0.1, "val": False, "verbose": False, "plots": False
}  # fmt: skip


class Diary(Callback):
    """Counts the objects the network was shown, and keeps the loss of every epoch."""

    def __init__(self):
        self.objects, self.losses = 0, []

    def on_train_batch_end(self, trainer):
        self.objects += int((trainer.batch.labels >= 0).sum())

    def on_fit_epoch_end(self, trainer):
        self.losses.append(trainer.metrics["train/box_loss"])

    def state_dict(self):
        """Plain data only: numbers, strings, lists, dicts, tensors."""
        return {"objects": self.objects, "losses": self.losses}

    def load_state_dict(self, state):
        self.objects, self.losses = state["objects"], list(state["losses"])

    def __str__(self):
        losses = ", ".join(f"{loss:.3f}" for loss in self.losses)
        return f"{self.objects} objects, losses of {len(self.losses)} epochs: {losses}"


def press_ctrl_c(trainer):
    """Simulate Ctrl-C in the middle of the third epoch."""
    if trainer.epoch == 2 and trainer.batch_index == trainer.num_batches // 2:
        raise KeyboardInterrupt


def main(model="yolo11n.yaml", **settings):
    yolo, diary = YOLO(model), Diary()
    yolo.add_callback(diary)
    yolo.add_callback("on_train_batch_end", press_ctrl_c)
    try:
        yolo.train(**(SMALL | settings))
    except KeyboardInterrupt:
        print(f"interrupted:  {diary}")
    folder = yolo.trainer.save_dir

    # later, as in another process: everything is new, only the folder is known
    yolo, diary = YOLO(model), Diary()
    yolo.add_callback(diary)
    yolo.add_callback("on_train_start", lambda trainer: print(f"came back:    {diary}"))
    yolo.train(resume=folder)
    print(f"at the end:   {diary}")


if __name__ == "__main__":
    main()

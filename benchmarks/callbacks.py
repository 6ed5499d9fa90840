"""What callbacks cost: firing one event, and the share of a training that its default callbacks take.

An event is fired many times in a row and the best of several repeats counts. The training is a short one with
its default callbacks, images and the CSV file included, and without loggers, whose cost is that of
their packages; a longer training has the same cost per epoch and spreads what is drawn once over more epochs.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from detector.callbacks.registry import CallbackRegistry

if TYPE_CHECKING:
    from benchmarks.bench import Bench

ROUNDS = 50_000
SHOWN = 5  # callbacks of a training


def measure_event(registry: CallbackRegistry, times: int, repeats: int = 7) -> float:
    """Return ns that firing an event takes, the loop around it not counted."""
    event, engine, rounds = "on_train_batch_end", object(), range(times)
    empty, full = [], []
    for _ in range(repeats):
        start = perf_counter()
        for _ in rounds:
            pass
        middle = perf_counter()
        for _ in rounds:
            registry.fire(event, engine)
        empty.append(middle - start)
        full.append(perf_counter() - middle)
    return 1e9 * (min(full) - min(empty)) / times


def measure_training(model: str, settings: dict[str, Any]) -> tuple[float, dict[tuple[str, str], float]]:
    """Return the seconds of a training, and those of each (event, callback), the slowest first."""
    from detector.yolo import YOLO

    yolo = YOLO(f"{model}.yaml")
    start = perf_counter()
    yolo.train(loggers="none", plugins=False, **settings)
    seconds = perf_counter() - start
    spent = yolo.trainer.callbacks.seconds
    return seconds, dict(sorted(spent.items(), key=lambda item: -item[1]))


def run(bench: Bench) -> list[list[str]]:
    """Return the table."""
    nothing, one = CallbackRegistry(), CallbackRegistry()
    one.add("on_train_batch_end", lambda engine: None)
    rows = [["callbacks", "ns per event", "s", "of the run"]]
    for name, registry in (("nothing registered", nothing), ("one function", one)):
        rows.append([name, f"{measure_event(registry, ROUNDS):.0f}", "-", "-"])
    model = bench.models[0]
    settings = bench.training_settings(bench.steps * bench.batch, bench.val_images, bench.epochs)
    seconds, spent = measure_training(model, settings | {"save": True})
    rows.append([f"{model}, {bench.epochs} epochs", "-", *share(seconds, seconds)])
    rows.append(["its callbacks, all", "-", *share(sum(spent.values()), seconds)])
    for (event, name), value in list(spent.items())[:SHOWN]:
        rows.append([f"  {name} on {event}", "-", *share(value, seconds)])
    return rows


def share(part: float, whole: float) -> list[str]:
    return [f"{part:.3f}", f"{part / whole:.2%}"]

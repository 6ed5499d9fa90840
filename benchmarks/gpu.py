"""One training step on a GPU: its parts, what the host costs, and the memory; on images that stay on the device.

    python -m benchmarks.gpu --models yolo11n,yolo11s --batches 16,64 --imgsz 640

A step is forward, assignment and loss, backward, clipping, MuSGD and EMA, as in a training. "replayed" is the whole
step captured as one CUDA graph, in which the host launches nothing: what the device alone takes. The parts are
times between CUDA events, so where the host is slower than the device they are the host's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from detector.device import Precision, select_precision, use_repeatable_algorithms
from detector.nn.losses import build_loss
from detector.nn.model import DetectionModel, count_gflops, load_model_config
from detector.settings import TrainSettings
from detector.tables import align
from detector.training.build import build_optimization
from detector.training.ema import ModelEMA
from detector.training.optim import clip_gradients
from detector.training.step_graph import CudaRecorder

PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense, FLOP/s, by their makers
OBJECTS = 20  # per image
CLASSES = 80


class Step:
    """A training step on a batch that stays on the device.

    Args:
        name: of the model.
        batch: images.
        imgsz: px.
        device: a CUDA device.
        precision: of the forward pass.
    """

    def __init__(self, name: str, batch: int, imgsz: int, device: torch.device, precision: Precision) -> None:
        torch.manual_seed(0)
        config = replace(load_model_config(name), names=tuple(f"class{n}" for n in range(CLASSES)))
        model = DetectionModel(config)
        self.gflops = count_gflops(model, imgsz, training=True)
        self.model = model.to(device).to(memory_format=precision.layout).train()
        self.loss_fn = build_loss(self.model)
        settings = TrainSettings.parse({"data": "coco.yaml"})
        _, self.optimizer, schedule = build_optimization(settings, self.model, 100, 100, batch)
        schedule.apply(self.optimizer, 10, 1000)
        self.ema = ModelEMA(self.model)
        self.precision = precision
        images = torch.randint(0, 256, (batch, 3, imgsz, imgsz), dtype=torch.uint8)
        corners = torch.rand(batch, OBJECTS, 2) * imgsz * 0.7
        self.images = images.to(device)
        self.boxes = torch.cat((corners, corners + imgsz * (0.05 + 0.25 * torch.rand(corners.shape))), -1).to(
            device
        )
        self.labels = torch.randint(0, CLASSES, (batch, OBJECTS)).to(device)

    def parts(self) -> dict[str, Callable[[], None]]:
        return {
            "forward": self.forward,
            "loss": self.loss,
            "backward": self.backward,
            "optimizer": self.optimize,
            "ema": self.ema.update,
        }

    def forward(self) -> None:
        images = self.images.to(torch.float32, memory_format=self.precision.layout).mul_(1 / 255)
        with self.precision.autocast():
            self.preds = self.model(images)

    def loss(self) -> None:
        total, _ = self.loss_fn(self.preds, self.boxes, self.labels)
        self.total: Tensor = total.sum() * len(self.images)

    def backward(self) -> None:
        self.total.backward()  # type: ignore[no-untyped-call]
        self.preds = None
        self.total = self.total.detach()

    def optimize(self) -> None:
        self.norm = clip_gradients(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def __call__(self) -> None:
        for part in self.parts().values():
            part()


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    """Return the median time of calls that follow each other, the device's work included."""
    times = []
    for _ in range(3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            function()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start) / repeats)
    return statistics.median(times)


def time_parts(step: Step, repeats: int) -> dict[str, float]:
    """Return part -> ms between CUDA events, the mean of some steps."""
    sums = dict.fromkeys(step.parts(), 0.0)
    for _ in range(repeats):
        events = [torch.cuda.Event(enable_timing=True)]
        events[0].record()
        for part in step.parts().values():
            part()
            events.append(torch.cuda.Event(enable_timing=True))
            events[-1].record()
        torch.cuda.synchronize()
        for name, first, last in zip(sums, events, events[1:], strict=False):
            sums[name] += first.elapsed_time(last)
    return {name: value / repeats for name, value in sums.items()}


def measure(name: str, batch: int, args: argparse.Namespace) -> list[str]:
    """Return the table's row of one model and batch."""
    device = torch.device("cuda", 0)
    precision = select_precision(args.amp, device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step = Step(name, batch, args.imgsz, device, precision)
    for _ in range(3):
        step()
    eager = milliseconds(step, args.repeats)
    memory = torch.cuda.max_memory_allocated()
    parts = time_parts(step, args.repeats)
    if args.compile:
        step.model.forward = torch.compile(step.model.forward)  # type: ignore[method-assign]
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        print(f"{name}, batch {batch}: compiled in {time.perf_counter() - start:.0f} s", flush=True)
        compiled = f"{1e3 * batch / milliseconds(step, args.repeats):.0f}"
    else:
        compiled = "-"
    replay, _ = CudaRecorder()(step)
    replayed = milliseconds(replay, args.repeats)
    peak = next((v for k, v in PEAK_BF16.items() if k in torch.cuda.get_device_name(device)), None)
    flops = 3 * step.gflops * 1e9 * batch / (1e-3 * replayed)  # backward takes twice the forward's
    return [
        name, str(batch), f"{1e3 * batch / eager:.0f}", compiled, f"{1e3 * batch / replayed:.0f}",
        f"{eager:.1f}", *(f"{value:.1f}" for value in parts.values()), f"{replayed:.1f}",
        f"{flops / peak:.1%}" if peak else "-", f"{memory / 2**30:.1f}",
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", default="yolo11n", help="separated by commas")
    parser.add_argument("--batches", default="16,64", help="separated by commas")
    parser.add_argument("--imgsz", type=int, default=640, help="input px")
    parser.add_argument("--amp", default="auto", help="precision, as the setting")
    parser.add_argument("--repeats", type=int, default=10, help="steps of one timing")
    parser.add_argument("--compile", action="store_true", help="also through torch.compile")
    parser.add_argument(
        "--any-algorithm", action="store_true", help="deterministic=false, cuDNN choosing by time"
    )
    args = parser.parse_args(arguments)
    if args.any_algorithm:
        torch.backends.cudnn.benchmark = True
    else:
        use_repeatable_algorithms()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {args.imgsz} px, amp={args.amp}",
        flush=True,
    )
    header: list[Any] = ["model", "batch", "images/s", "compiled", "replayed", "step, ms", "forward", "loss"]
    rows = [[*header, "backward", "optimizer", "ema", "replayed, ms", "of peak", "memory, GB"]]
    for name in args.models.split(","):
        for batch in map(int, args.batches.split(",")):
            rows.append(measure(name, batch, args))
            print(" ".join(rows[-1]), flush=True)
    print(f"\n{align(rows)}")


if __name__ == "__main__":
    main()

"""Whether it pays to share MuSGD's orthogonalization among processes: each does its part, and all get the results.

    torchrun --standalone --nproc-per-node=2 -m benchmarks.shared_orthogonalization

"shared" is the longest part and the exchange; the part is the best possible one, every n-th kernel of each shape.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
import torch.distributed as dist

from benchmarks.bench import now
from detector.nn.model import DetectionModel, load_model_config
from detector.tables import align
from detector.training.musgd import orthogonalize

NETWORKS = ("yolov8n", "yolo11n", "yolo26n")
REPEATS = 5


def median_ms(work: Callable[[], object]) -> float:
    """Return the median time of what all processes do at once; the first is not counted."""
    times = []
    for _ in range(REPEATS + 1):
        dist.barrier()
        start = now()
        work()
        times.append(1e3 * (now() - start))
    return statistics.median(times[1:])


def main() -> None:
    dist.init_process_group()
    rank, size = dist.get_rank(), dist.get_world_size()
    rows = [["orthogonalization, ms per step", "by all", "part of one", "exchange", "shared"]]
    for name in NETWORKS:
        model = DetectionModel(load_model_config(f"{name}.yaml"))
        kernels = sorted(
            (torch.randn_like(p) for p in model.parameters() if p.ndim == 4), key=lambda p: p.shape
        )
        own = torch.zeros(-(-sum(k.numel() for k in kernels) // size))
        every = [torch.empty_like(own) for _ in range(size)]
        whole = median_ms(lambda k=kernels: orthogonalize(k))  # type: ignore[misc]
        part = median_ms(lambda k=kernels[rank::size]: orthogonalize(k))  # type: ignore[misc]
        exchange = median_ms(lambda o=own, e=every: dist.all_gather(e, o))  # type: ignore[misc]
        rows.append([name, *(f"{ms:.1f}" for ms in (whole, part, exchange, part + exchange))])
    if rank == 0:
        print(align(rows))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

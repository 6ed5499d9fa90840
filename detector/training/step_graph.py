"""A training step as one CUDA graph: the host starts it with a single call instead of thousands.

The networks here are small: a step is some thousand kernels of a few microseconds each, and the host takes
longer to launch them than a GPU to compute them. A graph records the launches once and repeats them. Everything that is
recorded stays as it was: addresses, shapes, and every number that Python computed, such as a learning rate. So a graph
holds for one shape of the inputs and for one value of all those numbers, and is recorded again when they change.

Nothing is lost but time when a step can't be recorded: it is computed as always.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detector.errors import first_line

log = logging.getLogger(__name__)

WORTHWHILE = 3  # repetitions of a graph that pay for its recording, which takes about as long as two steps
FEWEST_OBJECTS = 16

Compute = Callable[..., Any]
Record = Callable[[Callable[[], Any]], tuple[Callable[[], object], Any]]


@dataclass
class _Recorded:
    """A graph with the memory it reads and writes."""

    inputs: list[Tensor]
    outputs: Any
    repeat: Callable[[], object]


class StepGraphs:
    """Records a function of tensors as CUDA graphs, and repeats them in its place.

    Attributes:
        enabled: False once something could not be recorded.
        recorded: graphs recorded so far.
        repeated: calls answered by a graph so far.

    Args:
        recorder: makes what records functions, whose memory is freed together: given a function, it returns what
            repeats it, and the function's result, which every repetition fills again.
    """

    def __init__(self, recorder: Callable[[], Record] | None = None) -> None:
        self.enabled = True
        self.recorded = self.repeated = 0
        self._recorder = recorder or CudaRecorder
        self._record: Record | None = None
        self._structure: Hashable = None
        self._constants: Hashable = None
        self._graphs: dict[Hashable, _Recorded] = {}
        self._seen: set[Hashable] = set()  # shapes that were computed with these constants
        self._uses: dict[Hashable, int] = {}  # of the latest graph of a shape

    def run(
        self, compute: Compute, inputs: Sequence[Tensor], structure: Hashable, constants: Hashable
    ) -> Any:
        """Return what `compute` returns for these inputs; the result holds until the next call.

        The first call with a shape is computed as always: it makes what lasts, such as an optimizer's buffers. So is
        one with new constants, unless earlier ones lasted long enough.

        Args:
            compute: the function; it never synchronises with the device, and depends on nothing else.
            inputs: tensors on the device.
            structure: which tensors it changes.
            constants: the numbers that it depends on.
        """
        if structure != self._structure:
            self.clear()
            self._structure = structure
        if constants != self._constants:
            self.release()
            self._constants = constants
        shapes = tuple((x.shape, x.dtype) for x in inputs)
        graph = self._graphs.get(shapes)
        if graph is None:
            again = shapes in self._seen
            self._seen.add(shapes)
            if not self.enabled or not (again or self._uses.get(shapes, 0) >= WORTHWHILE):
                return compute(*inputs)
            graph = self._make(compute, inputs)
            if graph is None:
                return compute(*inputs)
            self._graphs[shapes], self._uses[shapes] = graph, 0
        for mine, given in zip(graph.inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        graph.repeat()
        self.repeated += 1
        self._uses[shapes] += 1
        return graph.outputs

    def _make(self, compute: Compute, inputs: Sequence[Tensor]) -> _Recorded | None:
        """Record a graph; None, once said, if that is impossible."""
        mine = [x.clone() for x in inputs]
        self._record = self._record or self._recorder()
        try:
            repeat, outputs = self._record(lambda: compute(*mine))
        except RuntimeError as error:
            self.enabled = False
            self.release()
            log.warning(
                "training steps are launched one kernel at a time, which is slower: one could not be recorded as a "
                "CUDA graph (%s); cuda_graph=false leaves this out",
                first_line(error),
            )
            return None
        self.recorded += 1
        return _Recorded(mine, outputs, repeat)

    def release(self) -> None:
        """Free the memory of all graphs; they are recorded again when they are needed."""
        self._graphs.clear()
        self._seen.clear()
        self._constants = self._record = None  # memory whose graphs are gone takes no new ones

    def clear(self) -> None:
        """Forget everything; whoever replaces tensors that a step uses has to call this."""
        self.release()
        self._uses.clear()
        self._structure = None


class CudaRecorder:
    """Records CUDA graphs, which share their memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # thread_local: the loader's thread takes page-locked memory meanwhile
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = function()
        finally:
            torch.cuda.set_stream(stream)  # a recording that fails leaves its own
        return graph.replay, outputs


def pad_objects(boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Pad the objects of a batch to a power of two, so that batches have few different shapes.

    Args:
        boxes: (B, M, 4) float, zeros where padded.
        labels: (B, M) int64, -1 where padded.
    """
    count = max(FEWEST_OBJECTS, 1 << (labels.shape[1] - 1).bit_length())
    missing = count - labels.shape[1]
    return nn.functional.pad(boxes, (0, 0, 0, missing)), nn.functional.pad(labels, (0, missing), value=-1)


class NetworkWatch:
    """Looks for what a recorded step can't follow in a network; its modules and parameters are those of the beginning.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules, self._parameters = tuple(model.modules()), tuple(model.parameters())

    def has_hooks(self) -> bool:
        """Return whether functions hang on modules or parameters; a graph would not call them."""
        return any(
            m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
            for m in self._modules
        ) or any(p._backward_hooks for p in self._parameters)

    def has_gradients(self) -> bool:
        """Return whether parameters have gradients, to which a step would add."""
        return any(p.grad is not None for p in self._parameters)

    def structure(self, optimizer: Optimizer) -> Hashable:
        """Return which tensors a step changes: where the weights are, and which of them are trained."""
        return id(optimizer), tuple((p.data_ptr(), p.requires_grad) for p in self._parameters)


def constants_of(optimizer: Optimizer, loss: object) -> Hashable:
    """Return the numbers that a recorded step can't follow: rates and the like, gains and weights of the loss."""
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    return repr(groups), tuple(_numbers(loss))


def _numbers(value: object, depth: int = 4) -> Iterable[Hashable]:
    """Yield the numbers and texts in an object's attributes, and the identity of tensors."""
    if value is None or isinstance(value, (int, float, str)):
        yield value
    elif isinstance(value, Tensor):
        yield id(value)
    elif depth:
        inside = value if isinstance(value, (list, tuple, dict)) else getattr(value, "__dict__", ())
        for part in inside.values() if isinstance(inside, dict) else inside:
            yield from _numbers(part, depth - 1)

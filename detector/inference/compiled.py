"""A network through torch.compile: one program for many input sizes, and its failures in one sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

import torch
from torch import Tensor

from detector.errors import SettingsError, first_line

log = logging.getLogger(__name__)

Output = TypeVar("Output")

MAX_RECOMPILATIONS = 32
"""Of one network, before torch gives up: one image, few, many and small inputs are compiled separately."""


def compile_network(run: Callable[[Tensor], Output]) -> Callable[[Tensor], Output]:
    """Return `run` through torch.compile; it is compiled by its first call.

    Height, width and batch are left free: another size takes the same program, unless torch chooses its
    convolutions by that size (one image or several, or an input of few px).

    Args:
        run: takes (B, 3, H, W) float; runs as one graph.

    Returns:
        A function that gives what `run` does within rounding, and raises `SettingsError` if torch can't compile it.
    """
    program = torch.compile(run, fullgraph=True)  # what can't be compiled is an error, not run as it was
    started = False

    def run_compiled(images: Tensor) -> Output:
        nonlocal started
        if started:
            return call(program, images)
        log.info("compile=true: compiling the network; this takes a minute or so")
        start = perf_counter()
        output = call(program, images)
        log.info("compiled in %.0f s", perf_counter() - start)
        started = True
        return output

    return run_compiled


def call(program: Callable[[Tensor], Output], images: Tensor) -> Output:
    """Call what torch.compile gave, with sizes left free.

    Raises:
        SettingsError: if torch can't compile it.
    """
    import torch._dynamo as dynamo

    free = [2, 3] if len(images) == 1 else [0, 2, 3]  # torch takes a batch of one for a constant
    dynamo.mark_dynamic(images, free)  # torch.compile(dynamic=True) would take equal sides for one number
    try:
        with dynamo.config.patch(recompile_limit=MAX_RECOMPILATIONS):
            return program(images)
    except (dynamo.exc.TorchDynamoException, dynamo.exc.FailOnRecompileLimitHit) as error:
        raise SettingsError(f"compile=true: {explain(error)}, or leave compile out") from error


def explain(error: Exception) -> str:
    """Return why torch could not compile, and what to do about it."""
    from torch._inductor.exc import InvalidCxxCompiler

    cause = getattr(error, "inner_exception", error)
    if isinstance(cause, InvalidCxxCompiler):
        return (
            "torch.compile found no working C++ compiler here; install one (Debian: apt install g++) or name it in "
            "the variable CXX"
        )
    lines = (line.strip() for line in str(cause).splitlines())
    telling = next((line for line in lines if "error:" in line), first_line(cause))
    return f"torch.compile can't compile this network here ({telling}); set TORCH_LOGS=dynamo,inductor for details"

"""Samplers and pruners of a study, by their names in the settings."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from detector.errors import MissingPackageError
from detector.tuning.storage import no_experimental_warnings


def make_sampler(name: str, seed: int, number: int, first: Mapping[str, Any]) -> Any:
    """Return the sampler of one trial. Its seed depends on the trial, so that no two processes draw the same.

    Args:
        name: "tpe" (Tree-structured Parzen Estimator: Bergstra et al., Algorithms for Hyper-Parameter Optimization,
            NIPS 2011), "random", or "gp" (Gaussian process).
        seed: of the study.
        number: of the trial, or of the one it repeats.
        first: values of trial 0.

    Raises:
        MissingPackageError: if the sampler needs a package that is not installed.
    """
    from optuna import samplers

    own_seed = zlib.crc32(f"{seed}/{number}".encode())
    sampler = SAMPLERS[name](samplers, own_seed)
    if number == 0 and first:
        with no_experimental_warnings():
            return samplers.PartialFixedSampler(dict(first), sampler)
    return sampler


def _gaussian_process(samplers: Any, seed: int) -> Any:
    if find_spec("scipy") is None:
        raise MissingPackageError("sampler=gp needs the scipy package: pip install scipy")
    return samplers.GPSampler(seed=seed, warn_independent_sampling=False)


SAMPLERS: Mapping[str, Callable[[Any, int], Any]] = MappingProxyType(
    {
        "tpe": lambda samplers, seed: samplers.TPESampler(seed=seed),
        "random": lambda samplers, seed: samplers.RandomSampler(seed=seed),
        "gp": _gaussian_process,
    }
)


def make_pruner(name: str | None, warmup_epochs: float, epochs: int | str) -> Any:
    """Return a pruner; it leaves the warm-up and the first tenth of the epochs alone.

    Args:
        name: "median" (worse than the median of the others at the same epoch), "hyperband" (Li et al., Hyperband: A
            Novel Bandit-Based Approach to Hyperparameter Optimization, JMLR 18, 2018), "asha" (Li et al., A System
            for Massively Parallel Hyperparameter Tuning, MLSys 2020), or None for none.
        warmup_epochs: length of the warm-up.
        epochs: of a trial, or "auto".
    """
    from optuna import pruners

    first = max(math.ceil(warmup_epochs), epochs // 10 if isinstance(epochs, int) else 0, 1)
    return PRUNERS[name](pruners, first, epochs)


PRUNERS: Mapping[str | None, Callable[[Any, int, int | str], Any]] = MappingProxyType(
    {
        None: lambda pruners, first, epochs: pruners.NopPruner(),
        "median": lambda pruners, first, epochs: pruners.MedianPruner(n_warmup_steps=first),
        "hyperband": lambda pruners, first, epochs: pruners.HyperbandPruner(
            min_resource=first, max_resource=epochs
        ),
        "asha": lambda pruners, first, epochs: pruners.SuccessiveHalvingPruner(min_resource=first),
    }
)

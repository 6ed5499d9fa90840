"""A process of a training, as the launcher starts it: `python -m detector.scale.worker FOLDER`."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from pathlib import Path
from time import time
from typing import Any

from detector.callbacks.state import is_stateful
from detector.scale.payload import OUTPUT, RESULT, Failure, Result, dumps, owners, problem_with, read_job
from detector.scale.ranks import RankLostError
from detector.scale.record import TrainerRecord
from detector.training.signals import Terminated


def main(folder: Path) -> int:
    """Train as the job in the folder says; rank 0 writes the result, any rank what it failed by."""
    rank = int(os.environ["RANK"])
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    os.environ.pop("PYTHONSAFEPATH", None)
    os.environ.pop("TORCHELASTIC_RUN_ID", None)  # such a launch is not restarted
    if (folder / OUTPUT).exists():
        output = os.open(folder / OUTPUT, os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
    model: Any = None
    try:
        model, settings, registry, transforms = read_job(folder)
        carried = owners(registry)  # the defaults are added to it
        model._train(settings, registry, transforms)
        if rank == 0:
            states = {
                number: owner.state_dict() for number, owner in enumerate(carried) if is_stateful(owner)
            }
            weights = {key: value.cpu() for key, value in model.model.state_dict().items()}
            record = TrainerRecord(model.trainer)
            result = Result(record, model.metrics, model.model.config, weights, states)
            (folder / RESULT).write_bytes(dumps(result))
    except BaseException as error:
        write_failure(folder, rank, error, getattr(getattr(model, "trainer", None), "ranks", None))
        return 1
    return 0


def write_failure(folder: Path, rank: int, error: BaseException, ranks: Any) -> None:
    """Write what ended a process, and when: the first is the cause of the others."""
    failure = Failure(
        getattr(ranks, "failed_at", 0.0) or time(),
        rank,
        "".join(traceback.format_exception(error)),
        dumps(error.with_traceback(None)) if problem_with(error) is None else None,
        isinstance(error, RankLostError),
        isinstance(error, Terminated),
    )
    part = folder / f"failure-{rank}.part"
    part.write_bytes(pickle.dumps(failure))
    part.rename(folder / f"failure-{rank}.pkl")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

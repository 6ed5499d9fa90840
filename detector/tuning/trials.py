"""Who runs which trial of a study: every process takes one after the other, none is lost and none is run twice.

A study of N trials has N slots, one for each trial that was not made to repeat another one, in the order of their
numbers. A slot has one attempt, and another one after each that was interrupted: its process was killed, or stopped
with Ctrl-C. Whatever is decided here follows from what is in the storage and does not change later, so that
processes need no lock between them: what two of them made at once is left out again by `is_surplus`, by the same
rule everywhere.
"""

from __future__ import annotations

import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from detector.tuning.storage import no_experimental_warnings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

MAX_DEATHS = 3
"""How often the process of a trial may die before the trial counts as failed: it may be the trial's fault."""

PROCESSES = "processes"
"""Folder of the files that running processes have locked; it also marks the run folder of a study."""

TOKEN = re.compile(r"[0-9a-f]{32}")


class ProcessMark:
    """A file that this process has locked for as long as it lives; the system releases it at its end, also by SIGKILL.

    Args:
        folder: the study's run folder.

    Attributes:
        token: name of this process in the study.
        host: name of this machine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / PROCESSES
        self.folder.mkdir(exist_ok=True)
        self.token, self.host = uuid.uuid4().hex, socket.gethostname()
        self._lock = FileLock(self._path(self.token))

    def __enter__(self) -> ProcessMark:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._path(self.token).unlink(missing_ok=True)

    def _path(self, token: str) -> Path:
        return self.folder / f"{token}.lock"

    def knows_as_ended(self, host: Any, token: Any) -> bool:
        """Return whether a process is known to be gone: it ran on this machine, in this run folder."""
        if host != self.host or not isinstance(token, str) or not TOKEN.fullmatch(token):
            return False
        if not (path := self._path(token)).is_file():
            return False
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        lock.release()
        return True


class Attempts:
    """Reads off a study what is to be run, and finds the trials whose process is gone.

    Args:
        study: Optuna's.
        count: trials that the study is to have.
        mark: of this process.
        silence: seconds without a sign of life after which a trial of another machine counts as dead.
        has_heartbeat: Optuna itself finds such trials in this storage.
    """

    def __init__(
        self, study: Study, count: int, mark: ProcessMark, silence: float, has_heartbeat: bool
    ) -> None:
        self.study, self.count, self.mark = study, count, mark
        self.silence, self.has_heartbeat = silence, has_heartbeat
        self._seen: dict[int, tuple[Any, float]] = {}

    def trials(self) -> list[FrozenTrial]:
        """Return all trials as they are now, in the order of their numbers."""
        return sorted(self.study.get_trials(deepcopy=False), key=lambda trial: trial.number)

    def slots(self) -> dict[int, list[FrozenTrial]]:
        """Return the attempts of each slot, by the number of the first."""
        return slots_of(self.trials(), self.count)

    def fail_dead(self) -> None:
        """Mark trials whose process is gone as failed, so that they are repeated."""
        from optuna.storages import fail_stale_trials
        from optuna.trial import TrialState

        with no_experimental_warnings():
            fail_stale_trials(self.study)
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and self._is_dead(trial):
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        host, token = trial.user_attrs.get("host"), trial.user_attrs.get("process")
        if token == self.mark.token or self.mark.knows_as_ended(host, token):
            return True  # this process has none while it looks for one
        if token is not None and self.has_heartbeat:
            return False  # Optuna says when; it does not know of those that were killed right at their start
        sign = trial.user_attrs.get("alive")
        before, since = self._seen.get(trial.number, (None, 0.0))
        if trial.number not in self._seen or before != sign:
            self._seen[trial.number] = sign, monotonic()
            return False
        return monotonic() - since > self.silence

    def repeat_interrupted(self) -> None:
        """Let the interrupted trials be run again, with the same settings."""
        from optuna.trial import TrialState, create_trial

        for number, attempts in self.slots().items():
            if not is_interrupted(attempts[-1]) or is_given_up(attempts):
                continue
            last = attempts[-1]
            history = [attempt.number for attempt in attempts]
            self.study.add_trial(
                create_trial(
                    state=TrialState.WAITING,
                    params=last.params,
                    distributions=last.distributions,
                    system_attrs={
                        "failed_trial": number,
                        "retry_history": history,
                    },  # as Optuna's own callback
                )
            )

    def left(self) -> str:
        """Return "some" if there is a trial to run, "elsewhere" if other processes run the last ones, or "none"."""
        from optuna.trial import TrialState

        self.fail_dead()
        self.repeat_interrupted()
        slots = self.slots()
        states = [attempt.state for attempts in slots.values() for attempt in attempts]
        if len(slots) < self.count or TrialState.WAITING in states:
            return "some"
        return "elsewhere" if TrialState.RUNNING in states else "none"

    def running(self) -> list[FrozenTrial]:
        """Return the trials that run now."""
        from optuna.trial import TrialState

        return [one for one in self.trials() if one.state == TrialState.RUNNING and not is_surplus(one)]

    def slot_of(self, number: int) -> int:
        """Return the number of the trial that this one repeats, or its own."""
        return next(origin(trial) for trial in self.trials() if trial.number == number)

    def is_needed(self, number: int) -> bool:
        """Return whether a trial that this process has just begun is one of the study's, and not made in excess."""
        trials = [trial for trial in self.trials() if not is_surplus(trial)]
        mine = next(trial for trial in trials if trial.number == number)
        slot = origin(mine)
        before = [trial for trial in trials if origin(trial) == slot and trial.number < number]
        if any(not is_interrupted(trial) for trial in before):
            return False
        return len({origin(trial) for trial in trials if origin(trial) < slot}) < self.count


def slots_of(trials: Sequence[FrozenTrial], count: int | None = None) -> dict[int, list[FrozenTrial]]:
    """Return the attempts of the first `count` slots (None = all), by the number of the first attempt."""
    slots: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        if not is_surplus(trial):
            slots.setdefault(origin(trial), []).append(trial)
    return {number: slots[number] for number in sorted(slots)[:count]}


def origin(trial: FrozenTrial) -> int:
    """Return the number of the trial that this one repeats, or its own."""
    return int(trial.system_attrs.get("failed_trial", trial.number))


def is_surplus(trial: FrozenTrial) -> bool:
    """Return whether a trial was made in excess, by two processes at once, and has not been run."""
    return bool(trial.user_attrs.get("surplus"))


def is_interrupted(trial: FrozenTrial) -> bool:
    """Return whether a trial did not come to an end, neither a good nor a bad one."""
    return trial.state.name == "FAIL" and "error" not in trial.user_attrs


def is_given_up(attempts: Sequence[FrozenTrial]) -> bool:
    """Return whether the process of a trial died too often; one that was stopped with Ctrl-C or SIGTERM did not."""
    deaths = [one for one in attempts if is_interrupted(one) and not one.user_attrs.get("stopped")]
    return len(deaths) >= MAX_DEATHS


def state_of(trial: FrozenTrial) -> str:
    """Return a trial's state in a word."""
    if is_surplus(trial):
        return "surplus"
    if is_interrupted(trial):
        return "interrupted"
    return STATES[trial.state.name]


STATES: Mapping[str, str] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}

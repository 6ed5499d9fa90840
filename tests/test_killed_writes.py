"""A process that is killed while it writes its record; see tests/support/killed_writes.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="lives are forked")
def test_readers_get_a_whole_state_of_a_run_that_was_killed_at_any_instant():
    """In a process of its own: threads of the test runner must not be forked."""
    command = [sys.executable, "-W", "error", "-m", "tests.support.killed_writes", "--kills", "25"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    kills, _, epochs = map(int, re.findall(r"\d+", done.stdout))
    assert kills == 25 and epochs > 25

"""The short form of `make crashtest`; see tests/support/crash.py."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="lives are forked")
def test_killed_trainings_end_bit_identical():
    """In a process of its own: threads of the test runner must not be forked."""
    command = [sys.executable, "-W", "error", "-m", "tests.support.crash", "--kills", "8", "--seconds", "500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    trainings, of = re.search(r"(\d+) of (\d+) trainings ended bit-identical", done.stdout).groups()
    assert trainings == of
    assert int(re.search(r"(\d+) kills", done.stdout)[1]) >= 8

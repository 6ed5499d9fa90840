import ast
import subprocess
import sys

import pytest

ASK_MALLOPT = """
import ctypes
from detector.inference import malloc
asked = []
class Libc:
    mallopt = staticmethod(lambda *what: asked.append(what))
malloc.ctypes.CDLL = lambda name: Libc
{calls}
print(asked)
"""


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ((False, False), [(-1, 2**28), (-3, 2**25)]),
        ((False, True), [(-1, 2**28), (-3, 2**25), (-1, 2**31 - 1), (-4, 0)]),
        ((True, False), [(-1, 2**31 - 1), (-4, 0)]),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_what_training_keeps_of_freed_memory_a_prediction_does_not_give_back(calls, expected):
    lines = "\n".join(f"malloc.keep_freed_memory(training={training})" for training in calls)
    command = [sys.executable, "-c", ASK_MALLOPT.format(calls=lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == expected

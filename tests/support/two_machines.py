"""Train on two machines that are network namespaces of this one, joined by a virtual cable; needs root and `ip`.

    python -m tests.support.two_machines                  two namespaces
    python -m tests.support.two_machines --loopback       two launchers side by side, without namespaces

Each machine has a torchrun with one process. The weights have to be those of two processes on one machine, bit by bit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .crash import digests, make_scene
from .group_kills import SETTINGS

NAMES = ("detector-a", "detector-b")
ADDRESS = "10.77.0."
CARD = "cable"


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


@contextlib.contextmanager
def machines() -> Iterator[list[list[str]]]:
    """Make two network namespaces for the `with` block; yield what a command in each begins with."""
    try:
        for name in NAMES:
            # one of a run that was killed may be left
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)
            ip(f"netns add {name}")
        ip(f"link add {CARD} netns {NAMES[0]} type veth peer name {CARD} netns {NAMES[1]}")
        for number, name in enumerate(NAMES, 1):
            ip(f"-n {name} addr add {ADDRESS}{number}/24 dev {CARD}")
            ip(f"-n {name} link set {CARD} up")
            ip(f"-n {name} link set lo up")
        yield [["ip", "netns", "exec", name] for name in NAMES]
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], check=False)


def train(scene: Path, name: str, launchers: list[list[str]], environment: dict[str, str]) -> Path:
    """Start a launcher on each machine and wait for the end; return the run folder."""
    run = [*("-m", "detector", "train"), *SETTINGS, "batch=4", "epochs=2", "project=runs", f"name={name}"]
    logs = [scene / f"{name}-{number}.log" for number in range(len(launchers))]
    started = []
    for launcher, log in zip(launchers, logs, strict=True):
        with log.open("wb") as file:
            started.append(
                subprocess.Popen([*launcher, *run], cwd=scene, env=environment, stdout=file, stderr=file)
            )
    codes = [process.wait() for process in started]
    if any(codes):
        print(*(log.read_text()[-3000:] for log in logs), sep="\n")
        raise SystemExit(f"{name}: exit codes {codes}")
    return scene / "runs" / name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loopback", action="store_true", help="no namespaces")
    options = parser.parse_args()
    environment = os.environ | {"DETECTOR_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    with contextlib.ExitStack() as stack:
        scene = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_scene(scene)
        one = train(scene, "one", [[*torchrun, "--standalone", "--nproc-per-node=2"]], environment)
        if options.loopback:
            starts, addresses = [[], []], ["127.0.0.1"] * 2
        else:
            starts, addresses = stack.enter_context(machines()), [f"{ADDRESS}{number}" for number in (1, 2)]
            environment["GLOO_SOCKET_IFNAME"] = CARD
        rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint={addresses[0]}:29517", "--rdzv-id=two"]
        launchers = [
            [
                *(*start, *torchrun, "--nnodes=2", "--nproc-per-node=1", *rendezvous),
                *(f"--local-addr={address}", f"--rdzv-conf=is_host={number == 0}"),
            ]
            for number, (start, address) in enumerate(zip(starts, addresses, strict=True))
        ]
        two = train(scene, "two", launchers, environment)
        found, wanted = digests(two), digests(one)
    different = [
        key for key in wanted if key != "random" and found[key] != wanted[key]
    ]  # nothing seeds them here
    print(
        f"two launchers at {' and '.join(addresses)}: {different or 'equal to one launcher of two processes'}"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())

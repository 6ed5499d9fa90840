"""Build the wheel and the sdist twice, from here and from a clean copy of the last commit; run by `make dist`.

Both must have the same bytes: then what is in `dist/` is what the commit says, with nothing of this machine in it,
and anybody can build it again and compare. Times inside the archives are those of the commit.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def git(*arguments: str) -> bytes:
    """Return what a git command prints."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def build(source: Path, folder: Path) -> None:
    """Build a wheel and a sdist of `source` into `folder`, the wheel from the sdist."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": git("log", "-1", "--format=%ct").decode().strip()}
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def compare(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Return a sentence for every file that differs or is in one build only."""
    names = sorted(first.keys() | second.keys())
    return [
        f"{name}: {first.get(name, 'missing')} here, {second.get(name, 'missing')} from the last commit; "
        "commit or remove what is not committed, and build again"
        for name in names
        if first.get(name) != second.get(name)
    ]


def main() -> int:
    """Build, compare, and print the checksums."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    build(ROOT, dist)
    with tempfile.TemporaryDirectory() as folder:
        copy, again = Path(folder, "copy"), Path(folder, "dist")
        with tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD"))) as archive:
            archive.extractall(copy, filter="data")
        build(copy, again)
        problems = compare(checksums(dist), checksums(again))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    for name, checksum in checksums(dist).items():
        print(f"{checksum}  dist/{name}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""No network, no programs, nothing written outside the run folder and the cache."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.models import write_tiny

OTHERS = ("cuda/pathfinder/", "matplotlib/font_manager.py")
"""Who asks for programs at its own import or first use: torch for its CUDA libraries, matplotlib for fonts."""


def contents(folder):
    """Name, time of change and SHA-256 of everything in a folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(folder.rglob("*"))
    }


def test_a_whole_life_stays_within_its_folders(drawn_dataset, tmp_path):
    """Train, die, resume, validate, predict and export."""
    scene, runs, home, scratch = (tmp_path / name for name in ("scene", "runs", "home", "scratch"))
    for folder in (home, scratch):
        folder.mkdir()
    shutil.copytree(Path(drawn_dataset).parent / "data", scene / "data")
    shutil.copy(drawn_dataset, scene / "data.yaml")
    write_tiny(scene / "tiny.yaml")
    for path in sorted(scene.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)  # root may write nevertheless: contents are compared
    before = contents(scene)
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DETECTOR_", "XDG_", "MPL", "TORCH"))
    }
    clean |= {"HOME": str(home), "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    clean |= {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, Path(__file__).parent / "support/watched_run.py", scene, runs]
    done = subprocess.run(command, cwd=scene, env=clean, capture_output=True, text=True, timeout=300)
    for path in scene.rglob("*"):
        path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert [call for call in seen["refused"] if not call.partition(" from ")[2].startswith(OTHERS)] == []
    allowed = [str(runs), str(home / ".cache"), str(home / ".config"), str(scratch), os.devnull]
    written = [(line, line.partition(" ")[2]) for line in seen["written"]]
    assert [
        line for line, path in written if not path.startswith(tuple(allowed)) and not path.isdigit()
    ] == []
    assert contents(scene) == before
    assert {path.name for path in tmp_path.iterdir()} == {"scene", "runs", "home", "scratch"}
    cached = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert cached <= {(".cache", "detector"), (".cache", "matplotlib")}
    assert {path.name for path in runs.iterdir()} == {"train", "val", "predict"}
    assert (runs / "train/weights/best.pt2").exists()

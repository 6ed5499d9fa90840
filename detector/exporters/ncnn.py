"""ncnn: a folder with the network's .param and .bin, made by pnnx from its trace."""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from detector.errors import ExportError
from detector.exporters import Write
from detector.exporters.job import ExportSpec
from detector.runtimes.ncnn import BIN, METADATA_FILE, PARAM

MAX_SECONDS = 600  # of pnnx, far more than it needs: a hang has an end


def export(job: ExportSpec) -> Write:
    """Convert the network of a job; fp16 stores the weights so."""
    import pnnx

    example = job.example()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of TorchScript
        traced: Any = torch.jit.trace(job.network(), example, check_trace=False)  # type: ignore[no-untyped-call]
        with TemporaryDirectory() as folder:
            traced.save(f"{folder}/network.pt")
            shape = "[" + ",".join(map(str, example.shape)) + "]f32"
            words = ["network.pt", f"inputshape={shape}", f"fp16={int(job.precision == 'fp16')}"]
            done = subprocess.run(
                [pnnx.EXEC_PATH, *words],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=MAX_SECONDS,
            )
            parts = {name: Path(folder, f"network.ncnn.{name}") for name in ("param", "bin")}
            if done.returncode or not all(part.is_file() for part in parts.values()):
                raise ExportError(
                    f"format=ncnn: pnnx failed with code {done.returncode}: {done.stderr[-200:]}"
                )
            param, weights = parts["param"].read_bytes(), parts["bin"].read_bytes()

    def write(path: Path, metadata: Mapping[str, Any]) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        (path / PARAM).write_bytes(param)
        (path / BIN).write_bytes(weights)
        (path / METADATA_FILE).write_text(json.dumps(metadata), encoding="utf-8")

    return write

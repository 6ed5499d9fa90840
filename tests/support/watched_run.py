"""Train, resume, validate, predict and export in a process that is watched; run by test_quiet.py.

    python watched_run.py SCENE RUNS    the folder of a data set and tiny.yaml, and the folder for runs

Prints, as JSON, everything that an audit hook saw: files opened for writing or changed otherwise, connections,
processes. What would leave the machine or start a program is refused as well.
"""

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path

REFUSED = (
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind",
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn",
    "urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect", "webbrowser.open",
)  # fmt: skip
CHANGES = (
    "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown",
    "os.utime", "shutil.move", "shutil.copyfile", "shutil.rmtree", "sqlite3.connect",
)  # fmt: skip
PACKAGE = str(Path(__file__).resolve().parents[2] / "detector") + os.sep  # a clone may be named so as well
seen: dict[str, list[str]] = {"written": [], "refused": []}


def callers() -> str:
    """Name the files that a call went through, the innermost first, without the standard library."""
    files = [frame.filename for frame in reversed(traceback.extract_stack())]
    named = [file for file in files if "site-packages" in file or file.startswith(PACKAGE)]
    return ", ".join(dict.fromkeys(file.rpartition("site-packages/")[2] for file in named[:30]))


def folder_of(event: str, arguments: tuple[object, ...]) -> str:
    """Return the folder that a removed path is relative to, where it is given as a descriptor (known on Linux)."""
    descriptor = arguments[-1]
    if event not in ("os.remove", "os.rmdir") or not isinstance(descriptor, int) or descriptor < 0:
        return ""
    with contextlib.suppress(OSError):
        return f"{Path(f'/proc/self/fd/{descriptor}').readlink()}/"
    return ""


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in REFUSED:
        seen["refused"].append(f"{event} {arguments!r}"[:120] + " from " + callers())
        raise PermissionError(f"{event} is not allowed here")
    if event == "open":
        path, _, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):  # type: ignore[operator]
            seen["written"].append(f"open {path}")
    elif event in CHANGES:
        for argument in arguments:
            if isinstance(argument, (str, bytes, os.PathLike)):
                seen["written"].append(f"{event} {folder_of(event, arguments)}{os.fsdecode(argument)}")


def main(scene: Path, runs: Path) -> None:
    sys.addaudithook(watch)
    from detector import YOLO

    settings = {
        "imgsz": 64,
        "batch": 4,
        "workers": 2,
        "device": "cpu",
        "cache": "ram",
        "verbose": False,
        "loggers": "none",
    }

    def die(trainer: object) -> None:
        raise KeyError("killed")

    yolo = YOLO(scene / "tiny.yaml")
    with contextlib.suppress(KeyError):
        yolo.train(
            data=scene / "data.yaml",
            epochs=2,
            project=runs,
            callbacks=[("on_fit_epoch_end", die)],
            **settings,
        )
    yolo.train(resume=runs / "train")
    best = YOLO(runs / "train/weights/best.pt")
    best.val(data=scene / "data.yaml", project=runs, imgsz=64, batch=4, workers=0, device="cpu")
    best.predict(scene / "data/images/val", project=runs, save=True, save_txt=True, imgsz=64, device="cpu")
    best.export(format="pt2", imgsz=64)
    best.export(format="safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps(seen))

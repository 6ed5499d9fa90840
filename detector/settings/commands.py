"""Settings of the commands that need no model: on data sets (`check`, `convert`) and on run folders."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from detector.settings.base import DATA_HELP, CommandSettings, DataSet, InputSize, setting

JSON_HELP = "print JSON in place of a table; `--json` and `json=true` do so too"


class CheckSettings(CommandSettings):
    """Settings of `check`."""

    command: ClassVar[str] = "check"

    data: DataSet | list[DataSet] | None = setting(None, "data", DATA_HELP)
    imgsz: InputSize = setting(
        640,
        "data",
        "longer side of the input that objects are compared with, or [height, width]",
        unit="px, multiple of 32",
    )
    as_json: bool = setting(False, "output", JSON_HELP)
    grid: str | Path | None = setting(
        None,
        "output",
        "image file to draw the worst cases into, such as faults.jpg; none = no file is written",
    )


class ConvertSettings(CommandSettings):
    """Settings of `convert`."""

    command: ClassVar[str] = "convert"

    data: DataSet | list[DataSet] | None = setting(None, "data", DATA_HELP)
    to: Literal["yolo", "coco", "voc"] = setting("yolo", "output", "format to write")
    out: str | Path | None = setting(None, "output", "folder to write; must not exist, or be empty")
    images: Literal["link", "copy"] = setting(
        "link", "output", "link = hard links to the images, where the file system can; copy = copies"
    )
    fix: bool = setting(
        False,
        "data",
        "mend the new folder: boxes over the edge, turned and broken images, copies, wrong labels (docs/data.md)",
    )


class RunsSettings(CommandSettings):
    """Settings of `runs`."""

    command: ClassVar[str] = "runs"

    folder: str | Path = setting(
        "runs", "runs", "folder whose runs are listed, at any depth; the first bare word"
    )
    sort: str = setting(
        "started",
        "output",
        "column to sort by, as mAP50-95, epoch or a setting; with a minus sign, highest first",
    )
    filter: str | None = setting(
        None, "output", "conditions on columns, separated by commas, such as state=failed,mAP50>0.5"
    )
    as_json: bool = setting(False, "output", JSON_HELP)


class CompareSettings(CommandSettings):
    """Settings of `compare`."""

    command: ClassVar[str] = "compare"

    runs: list[str] = setting([], "runs", "run folders, two or more; all bare words")
    out: str | Path | None = setting(
        "compare.png", "output", "image file to draw the curves into; none = no image"
    )
    as_json: bool = setting(False, "output", JSON_HELP)


class StopSettings(CommandSettings):
    """Settings of `stop`."""

    command: ClassVar[str] = "stop"

    runs: list[str] = setting([], "runs", "run folders; all bare words")
    wait: float = setting(10.0, "runs", "time to wait until the run has noticed", unit="s", ge=0.0)


class ReportSettings(CommandSettings):
    """Settings of `report`."""

    command: ClassVar[str] = "report"

    runs: list[str] = setting([], "runs", "run folders to write report.html into; all bare words")


class MonitorSettings(CommandSettings):
    """Settings of `monitor`."""

    command: ClassVar[str] = "monitor"

    folder: str | Path = setting(
        "runs", "runs", "folder whose runs are shown, at any depth; the first bare word"
    )
    port: int = setting(8765, "network", "port of the page; 0 = a free one", ge=0, le=65535)
    host: str = setting(
        "127.0.0.1",
        "network",
        "address to listen on; on any other than this machine's own a token is needed, which is printed",
    )

"""The command line: `key=value` words become one call of `YOLO`.

torch is loaded only once there is something to compute.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.errors import DataError, DetectorError, SettingsError, nearest
from detector.files.names import printable
from detector.reference import help_text
from detector.settings_file import read_cfg
from detector.version import __version__

if TYPE_CHECKING:
    from detector.yolo import YOLO

USAGE = """\
detector - train, validate and run object detectors

  detector train data=coco8.yaml epochs=3           train; yolo11n from scratch, or model=
  detector tune data=coco8.yaml trials=30           search for better settings: many trainings
  detector val model=best.pt data=coco8.yaml        measure a model
  detector predict model=best.pt source=street.jpg  find objects in images
  detector export model=best.pt format=onnx         write it as a file that runs without this package
  detector benchmark model=best.pt data=coco8.yaml  size, speed and accuracy in every export format
  detector show data=folder                         draw what a training would see
  detector check data=folder                        what is wrong with a data set
  detector convert data=folder to=coco out=new      write a data set in another format: yolo, coco, voc
  detector runs                                     all runs of a folder: state, metrics, what differs
  detector compare runs/train runs/train-2          settings, curves and classes of runs next to each other
  detector stop runs/train                          end a run cleanly after the current batch
  detector report runs/train                        report.html of a run: one file, opens without a network
  detector monitor                                  live page of the runs of a folder, on this machine
  detector settings                                 every setting, its default and what it does
  detector callbacks                                every event, and the ready-made callbacks

  detector train --help    the settings of one command
  --version  --debug (show the traceback of an error)

Settings are key=value words; later ones win; they override those of cfg=file.yaml. A bare word means true.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code (see `detector.errors`)."""
    words = list(sys.argv[1:] if words is None else words)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except DetectorError as error:
        if debug:
            raise
        if error.of_main:
            return error.exit_code
        start = _rank_text() + ("error: " if error.exit_code else "")
        for line in without_logins(str(error)).splitlines():
            print(f"{start}{printable(line)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if sys.stderr is not None:
            sys.stderr.close()
        return 141
    except Exception as error:
        if debug:
            raise
        from detector.callbacks.registry import failure_note
        from detector.errors import error_text

        where = failure_note(error)
        kind, place = ("error", f" {where}") if where else ("unexpected error", "")
        if (
            cause := getattr(error.__cause__, "text", None)
        ) is not None:  # it has no other place: another process
            print(printable(without_logins(cause)), file=sys.stderr)
        text = f"{_rank_text()}{kind}: {printable(without_logins(error_text(error)))}{place}"
        print(f"{text}; --debug shows the traceback", file=sys.stderr)
        return 1


def without_logins(text: str) -> str:
    """Return a text whose URLs do not show user and password, as of a database in `storage=`."""
    if "://" not in text or "@" not in text:
        return text
    from detector.callbacks.secrets import mask_urls

    return mask_urls(text, paths=False)


def _rank_text() -> str:
    """Name the process of a training under torchrun, for its errors; nothing elsewhere."""
    return f"rank {rank}: " if (rank := os.environ.get("RANK")) is not None else ""


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if words[0] in ("--version", "version"):
        print(f"detector {__version__}")
        return 0
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        raise SettingsError(
            f"unknown command {command!r}{nearest(command, COMMANDS)}; expected one of {', '.join(COMMANDS)}"
        )
    if command not in ("settings", "callbacks") and any(word in ("-h", "--help") for word in rest):
        print(help_text(command), end="")
        return 0
    return COMMANDS[command](rest) or 0


def parse_words(
    words: Sequence[str], engine: str, places: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Turn `key=value` words into settings.

    Args:
        words: as given.
        engine: the command.
        places: the setting that bare words are for, such as folders; None where there is none.

    Returns:
        The settings, and those of `cfg=file.yaml`, which they override.

    Raises:
        SettingsError: for words that are neither, and for unreadable cfg files.
    """
    from detector.settings import SETTINGS_OF

    fields = SETTINGS_OF[engine].model_fields
    given: dict[str, Any] = {}
    problems = []
    words = list(words)
    while words:
        word = words.pop(0)
        key, equals, text = word.partition("=")
        key = key.removeprefix("--")
        is_known = key in fields or key == "cfg"
        if places and not is_known and not word.startswith("--") and (not equals or Path(word).exists()):
            given[places] = [*given.get(places, []), word]
        elif equals:
            is_list = key == "data" and text.startswith("[") and text.endswith("]")
            is_text = not is_list and _is_text(fields.get(key))
            given[key] = text if key == "cfg" else parse_value(text, is_text)
        elif key in fields and "bool" in str(fields[key].annotation):
            given[key] = True
        elif key in fields and word.startswith("--") and words and "=" not in words[0]:
            problems.append(f"'{word} {words[0]}': settings are key=value words; write {key}={words.pop(0)}")
        elif key in fields:
            problems.append(f"{word!r} needs a value: {key}=...")
        else:
            problems.append(f"{word!r} is not a key=value word{nearest(key, fields)}")
    if problems:
        raise SettingsError("\n".join(problems))
    cfg = given.pop("cfg", None)
    return given, read_cfg(cfg) if cfg else {}


def _is_text(field: Any) -> bool:
    """Return whether a setting takes text, so that name=2024 stays text."""
    kinds = () if field is None else getattr(field.annotation, "__args__", (field.annotation,))
    return str in kinds and int not in kinds


def parse_value(text: str, is_text: bool = False) -> Any:
    """Read a value as YAML does (numbers, true, none, lists); `0,2` is a list as well."""
    from detector.files.safe_yaml import YamlError, parse_yaml

    if text.lower() in ("none", "null", "~"):
        return None
    if is_text and text.lower() not in ("true", "false"):
        return text
    if "," in text and not text.startswith(("[", "{", "(")):
        text = f"[{text}]"
    if text.startswith("(") and text.endswith(")"):
        text = f"[{text[1:-1]}]"
    try:
        value = parse_yaml(text)
    except YamlError:
        return text
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _run(kind: str, words: list[str], **defaults: Any) -> tuple[YOLO, Any]:
    """Check the settings of a command, then open its model and run it; returns the model and the result."""
    from detector.settings import DEFAULT_MODEL, SETTINGS_OF

    given, in_file = parse_words(words, kind)
    settings: Any = SETTINGS_OF[kind].parse(given, defaults | in_file)
    from detector.yolo import YOLO  # only now: importing torch is slow

    names = getattr(settings, "names", None)  # of an exported file without them
    imgsz = settings.imgsz if names is not None and "imgsz" in settings.model_fields_set else None
    model = YOLO(settings.model or DEFAULT_MODEL, names, imgsz, trust=getattr(settings, "trust", False))
    return model, model.run(settings)


def _train(words: list[str]) -> None:
    metrics = _run("train", words)[1]
    if metrics is not None and os.environ.get("RANK", "0") == "0":
        print_results(metrics)


def _tune(words: list[str]) -> None:
    print(_run("tune", words)[1].summary())


def _val(words: list[str]) -> None:
    print_results(_run("val", words)[1])


def _predict(words: list[str]) -> None:
    model, results = _run("predict", words, save=True)
    for _ in results:
        pass
    if model.predictor.save_dir is not None:
        print(model.predictor.save_dir)


def _export(words: list[str]) -> None:
    print(_run("export", words)[1])


def _benchmark(words: list[str]) -> None:
    rows = _run("benchmark", words)[1]
    from detector.engine.benchmark import table

    print(table(rows))


def _show(words: list[str]) -> None:
    from detector.settings import ShowSettings

    settings = ShowSettings.parse(*parse_words(words, "show"))
    from detector.engine.show import draw_samples  # only now: importing torch is slow

    for path in draw_samples(settings):
        print(path)


def _check(words: list[str]) -> int:
    from detector.settings import SETTINGS_OF

    given, in_file = parse_words(_json_words(words), "check")
    settings: Any = SETTINGS_OF["check"].parse(given, in_file)
    if settings.data is None:
        raise SettingsError("data= is missing, such as data=folder")
    import json

    from detector.data.doctor import check
    from detector.data.fault_grid import draw_faults, require_new_image

    if settings.grid is not None:
        require_new_image(settings.grid)
    report = check(settings.data, settings.imgsz)
    print(json.dumps(report.to_dict(), indent=2) if settings.as_json else report.table())
    if settings.grid is not None:
        drawn = draw_faults(report, settings.grid)
        print(f"grid: {drawn or 'not written, as there is no image to show'}", file=sys.stderr)
    return DataError.exit_code if report.has_errors else 0


def _json_words(words: Sequence[str]) -> list[str]:
    """Return words in which `json=true`, `json` and `--json` have the setting's name, which is a method's otherwise."""
    found = [word.removeprefix("--") if word.startswith("--json") else word for word in words]
    return [f"as_{word}" if word.partition("=")[0] == "json" else word for word in found]


def _folder_words(words: Sequence[str], command: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a command whose bare word is the folder of the runs; see `parse_words`."""
    given, in_file = parse_words(words, command, places="folder")
    if isinstance(folders := given.get("folder"), list):
        if len(folders) > 1:
            raise SettingsError(f"{len(folders)} folders were given; expected one that holds the runs")
        given["folder"] = folders[0]
    return given, in_file


def _runs(words: list[str]) -> None:
    from detector.settings import RunsSettings

    settings = RunsSettings.parse(*_folder_words(_json_words(words), "runs"))
    import json

    from detector.runs.listing import filter_rows, find_runs, read_runs, rows_of, sort_rows, table_text

    folder = Path(settings.folder)
    folders, problems = find_runs(folder)
    runs, unread = read_runs(folders)
    rows = sort_rows(rows_of(runs, folder), settings.sort)
    rows = filter_rows(rows, settings.filter) if settings.filter else rows
    if settings.as_json:
        print(json.dumps({"runs": rows, "problems": [*problems, *unread]}, indent=1))
        return
    print(table_text(rows) if rows else f"no runs in {printable(str(folder))}")
    for problem in (*problems, *unread):
        print(printable(problem), file=sys.stderr)


def _compare(words: list[str]) -> None:
    from detector.settings import CompareSettings

    settings = CompareSettings.parse(*parse_words(_json_words(words), "compare", places="runs"))
    import json

    from detector.runs.comparison import compare_runs, comparison_text

    found = compare_runs(settings.runs)
    print(json.dumps(found.to_dict(), indent=1) if settings.as_json else comparison_text(found))
    for problem in found.problems:
        print(printable(problem), file=sys.stderr)
    if settings.out is not None:
        from detector.runs.comparison_plot import plot_comparison

        print(f"curves: {plot_comparison(found, settings.out)}", file=sys.stderr)


def _stop(words: list[str]) -> None:
    from detector.settings import StopSettings

    settings = StopSettings.parse(*parse_words(words, "stop", places="runs"))
    if not settings.runs:
        raise SettingsError("stop: no run was given, such as detector stop runs/train")
    from detector.runs.stopping import stop_run

    for run in settings.runs:
        print(stop_run(run, settings.wait))


def _report(words: list[str]) -> None:
    from detector.settings import ReportSettings

    settings = ReportSettings.parse(*parse_words(words, "report", places="runs"))
    if not settings.runs:
        raise SettingsError("report: no run was given, such as detector report runs/train")
    from detector.pages.report import write_report

    for run in settings.runs:
        print(write_report(run))


def _monitor(words: list[str]) -> None:
    from detector.settings import MonitorSettings

    settings = MonitorSettings.parse(*_folder_words(words, "monitor"))
    from detector.pages.server import monitor

    monitor(Path(settings.folder), settings.host, settings.port)


def _convert(words: list[str]) -> None:
    from detector.settings import SETTINGS_OF

    given, in_file = parse_words(words, "convert")
    settings: Any = SETTINGS_OF["convert"].parse(given, in_file)
    for key, example in (("data", "data=folder"), ("out", "out=new-folder")):
        if getattr(settings, key) is None:
            raise SettingsError(f"{key}= is missing, such as {example}")
    from detector.data.convert import convert
    from detector.messages import configure_logging

    configure_logging()
    print(convert(settings.data, settings.to, settings.out, settings.images, settings.fix))


def print_results(metrics: Any) -> None:
    """Print the metrics on stdout, one `key value` per line."""
    for key, value in metrics.results_dict.items():
        print(f"{key} {value:.6f}")


def _settings(words: list[str]) -> None:
    from detector.reference import default_yaml

    print(default_yaml(), end="")


def _callbacks(words: list[str]) -> None:
    from detector.reference import callbacks_text

    print(callbacks_text(), end="")


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "train": _train,
    "tune": _tune,
    "val": _val,
    "predict": _predict,
    "export": _export,
    "benchmark": _benchmark,
    "show": _show,
    "check": _check,
    "convert": _convert,
    "runs": _runs,
    "compare": _compare,
    "stop": _stop,
    "report": _report,
    "monitor": _monitor,
    "settings": _settings,
    "callbacks": _callbacks,
}

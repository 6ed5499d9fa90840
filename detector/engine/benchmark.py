"""Benchmark: a model in every format that is installed; their sizes, speeds and accuracies in one table."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from detector.callbacks.registry import CallbackRegistry
from detector.data.images import read_image
from detector.data.sources import open_source
from detector.device import select_precision
from detector.engine.export import Exporter
from detector.engine.loaders import make_val_loader, num_workers, open_data, read_split
from detector.engine.predict import Predictor
from detector.engine.run_folder import make_run_folder
from detector.engine.val import Validator, form_of, validation_suppression
from detector.errors import DetectorError, MissingPackageError, SettingsError
from detector.exporters import Format, all_formats, find_format
from detector.fields import show_given
from detector.files.atomic import replace_file
from detector.inference.backend import InferenceBackend
from detector.inference.exported_backend import ExportedModel, make_backend
from detector.nn.model import DetectionModel
from detector.settings import BenchmarkSettings, ExportSettings, PredictSettings, ValSettings
from detector.tables import align, rows_to_csv

log = logging.getLogger(__name__)

WARM_UP = 10  # predictions before the timing starts
HALVES = ("fp16", "bf16")
COLUMNS = {
    "format": "{}",
    "file": "{}",
    "computes in": "{}",
    "MB": "{:.1f}",
    "network ms": "{:.1f}",
    "predict ms": "{:.1f}",
    "mAP50-95": "{:.4f}",
    "difference": "{:+.4f}",
    "box px": "{:.2g}",
}


@dataclass(frozen=True)
class Variant:
    """One thing to measure.

    Attributes:
        format: name of the format, or "pt" for the model itself.
        precision: of the file.
        compute: the `amp` it is run with.
        compile: run the model through torch.compile.
    """

    format: str
    precision: str
    compute: bool | str
    compile: bool = False


def benchmark(
    settings: BenchmarkSettings,
    model: DetectionModel,
    source: Path | None,
    checkpoint: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Export, validate and time a model in every format.

    The input has the same size for all. Accuracy is that of `detector val`; "predict ms" is the median time from
    a decoded image to its results at batch 1, "network ms" the part of it in the network.

    Args:
        settings: checked settings.
        model: the model; left as it is.
        source: the file it is from, or None.
        checkpoint: its checkpoint, without weights.

    Returns:
        One row per variant, also written as `benchmark.csv` and `benchmark.png`.

    Raises:
        DataError: if the data set can't be used.
        ExportError: for an unknown format in `formats`.
        MissingPackageError: if a format named there is not installed.
    """
    formats = chosen_formats(settings)
    bench = Bench(settings, model, source, checkpoint)
    rows: list[dict[str, Any]] = []
    for variant in variants(formats, bench.can_bf16, settings.compile):
        try:
            rows.append(row := bench.measure(variant))
            log.info("%s: %.1f ms, mAP50-95 %.4f", label(row), row["predict ms"], row["mAP50-95"])
        except DetectorError as error:
            log.warning("%s %s is left out: %s", name_of(variant), variant.precision, error)
    best = rows[0]["mAP50-95"] if rows else 0.0
    for row in rows:
        row["difference"] = row["mAP50-95"] - best
    replace_file(bench.folder / "benchmark.csv", rows_to_csv(rows).encode())
    if settings.plots and rows:
        from detector.plots import plot_speed_accuracy

        points = [(label(row), row["predict ms"], row["mAP50-95"]) for row in rows]
        plot_speed_accuracy(points, bench.folder / "benchmark.png")
    log.info("results are in %s", bench.folder)
    return rows


class Bench:
    """What all variants share: data, images, the folder."""

    def __init__(
        self,
        settings: BenchmarkSettings,
        model: DetectionModel,
        source: Path | None,
        checkpoint: Mapping[str, Any],
    ) -> None:
        self.settings, self.model, self.source, self.checkpoint = settings, model, source, checkpoint
        cpu = torch.device("cpu")
        self.can_bf16 = select_precision("auto", cpu).dtype is torch.bfloat16
        self.val_settings = {
            "data": settings.data,
            "split": settings.split,
            "val": settings.val,
            "imgsz": settings.imgsz,
            "rect": False,
            "device": "cpu",
            "nms": settings.nms,
        }
        val = ValSettings.parse(self.val_settings)
        config = open_data(val)
        self.annotations = read_split(config, settings.split, val)
        if len(self.annotations.names) != model.num_classes:
            raise SettingsError(
                f"data={show_given(settings.data)}: has {len(self.annotations.names)} classes, the model knows "
                f"{model.num_classes}; benchmark on the data it was trained for"
            )
        workers = num_workers(settings.workers, cpu)
        form = form_of(model, config)
        self.loader = make_val_loader(self.annotations, val, 16, workers, cpu, rect=False, form=form)
        paths = [Path(path) for path in self.annotations.paths]
        self.images = [read_image(path, form=form) for path in paths[: settings.repeats]]
        self.folder = make_run_folder(settings.project, settings.name or "benchmark", settings.exist_ok)

    def measure(self, variant: Variant) -> dict[str, Any]:
        """Return the row of one variant."""
        parity: dict[str, Any] = {}
        path = self.source
        opened: DetectionModel | ExportedModel = self.model
        if variant.format != "pt":
            exporter = self._exporter(variant)
            path = exporter.run()
            parity = exporter.parity
            opened = ExportedModel(path)
        val = ValSettings.parse({**self.val_settings, "amp": variant.compute, "compile": variant.compile})
        backend = make_backend(opened, val)
        validator = Validator(validation_suppression(val), CallbackRegistry())
        metrics = validator.run(backend, self.loader, self.annotations, final=False)
        network, whole = self._time(backend)
        return {
            "format": name_of(variant),
            "file": variant.precision,
            "computes in": computes_in(variant),
            "MB": size_of(path) / 1e6,
            "network ms": network,
            "predict ms": whole,
            "mAP50-95": metrics.results_dict["metrics/mAP50-95"],
            "difference": 0.0,
            "box px": parity.get("box", 0.0),
        }

    def _exporter(self, variant: Variant) -> Exporter:
        settings, precision = self.settings, variant.precision
        given: dict[str, Any] = {
            "format": variant.format,
            "imgsz": settings.imgsz,
            "data": settings.data,
            "half": precision if precision in HALVES else False,
            "int8": precision == "int8",
            "folder": self.folder / precision,
            "nms": settings.nms,
        }
        stem = Path("model" if self.source is None else self.source.stem)
        trained_on = self.checkpoint.get("settings", {}).get("data")
        exported = ExportSettings.parse(given)
        return Exporter(exported, self.model, stem, CallbackRegistry(), self.checkpoint, trained_on)

    def _time(self, backend: InferenceBackend) -> tuple[float, float]:
        """Return the median ms per image in the network, and from image to results."""
        settings = PredictSettings.parse({"imgsz": self.settings.imgsz, "rect": False, "verbose": False})
        network, whole = [], []
        for number in range(WARM_UP + len(self.images)):
            source = open_source(self.images[number % len(self.images)])
            start = perf_counter()
            (result,) = Predictor(settings, backend, CallbackRegistry()).stream(source)
            whole.append(1e3 * (perf_counter() - start))
            network.append(result.speed["inference"])
        return median(network[WARM_UP:]), median(whole[WARM_UP:])


def chosen_formats(settings: BenchmarkSettings) -> dict[str, Format]:
    """Return the formats to measure; of those not asked for by name, those that are installed."""
    if settings.formats is not None:
        names = settings.formats.split(",") if isinstance(settings.formats, str) else settings.formats
        chosen = {name.strip(): find_format(name.strip()) for name in names}
        for name, entry in chosen.items():
            entry.need(f"formats={name}")
        return chosen
    found = {}
    for name, entry in all_formats().items():
        try:
            entry.need(f"format={name}")
        except MissingPackageError as error:
            log.info("left out: %s", error)
        else:
            found[name] = entry
    return found


def variants(formats: Mapping[str, Format], can_bf16: bool, compile: bool = False) -> Iterator[Variant]:
    """Yield what to measure: the model, then each format in each precision, and as its runtime may compute it."""
    for compiled in (False, True) if compile else (False,):
        yield Variant("pt", "fp32", False, compiled)
        if can_bf16:
            yield Variant("pt", "fp32", "bf16", compiled)
    for name, entry in formats.items():
        if not entry.graph:  # weights are run as the model is
            continue
        for precision in entry.precisions:
            if precision == "bf16" and not can_bf16:
                continue
            yield Variant(name, precision, "auto" if not entry.computes else "fp32")
            if precision == "fp32" and "bf16" in entry.computes and can_bf16:
                yield Variant(name, precision, "bf16")


def name_of(variant: Variant) -> str:
    """Return what the table calls the format of a variant."""
    return f"{variant.format} compiled" if variant.compile else variant.format


def computes_in(variant: Variant) -> str:
    """Return what a variant is computed in."""
    if variant.precision == "int8":
        return "int8"
    if variant.compute in (False, "auto"):
        return "fp32" if variant.precision == "fp16" else variant.precision
    return str(variant.compute)


def label(row: Mapping[str, Any]) -> str:
    """Return the name of a row in the plot."""
    lowered = row["computes in"] == "bf16" != row["file"]
    return f"{row['format']} {row['file']}" + (" in bf16" if lowered else "")


def size_of(path: Path | None) -> float:
    """Return the bytes of a file, or of all files of a folder; NaN if there is none."""
    if path is None or not path.exists():
        return float("nan")
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as aligned text."""
    cells = [[form.format(row[name]) for name, form in COLUMNS.items()] for row in rows]
    return align([list(COLUMNS), *cells])

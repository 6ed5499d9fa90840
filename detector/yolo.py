"""The model a user holds: load, train, val, predict, export, and callbacks for each."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.callbacks.loading import load_callbacks, restorable_callbacks
from detector.callbacks.registry import CallbackRegistry
from detector.callbacks.secrets import mask_callbacks
from detector.checkpoints.checkpoint import read_weights, save_checkpoint
from detector.checkpoints.network import build_network, read_config
from detector.checkpoints.origin import describe_origin, joined, origin_of
from detector.checkpoints.starter import STARTER, read_starter_weights
from detector.checkpoints.transfer import require_any_match, transfer_weights
from detector.data.transforms import as_list, load_transform, name_of
from detector.device import select_device
from detector.engine.not_yet import no_engines
from detector.errors import DataError, ExportError, SettingsError
from detector.exporters import is_exported
from detector.fields import format_value
from detector.inference.backend import InferenceBackend
from detector.inference.exported_backend import ExportedModel, make_backend
from detector.messages import announce, configure_logging
from detector.nn.model import DetectionModel, ModelConfig, ModelInfo, load_model_config
from detector.settings import (
    DEFAULT_MODEL,
    BenchmarkSettings,
    EngineSettingsT,
    ExportSettings,
    PredictSettings,
    Settings,
    TrainSettings,
    TuneSettings,
    ValSettings,
    fold_of,
)
from detector.settings_file import read_cfg

if TYPE_CHECKING:
    from detector.metrics.metrics import Metrics
    from detector.results import Results
    from detector.scale.ranks import Ranks
    from detector.training.resume import RunState
    from detector.tuning.report import TuneResults

log = logging.getLogger("detector")

tensor_version = attrgetter("_version")

INHERITED = ("imgsz", "data", "single_cls", "classes")
"""Settings of its training that a loaded model brings to `val` and `predict`, unless given again."""

MEASURED_WITH = ("nms", "conf", "iou", "max_det", "agnostic_nms")
"""Settings of its training that change its metrics, which a loaded model brings to `val`, unless given again."""

MUCH_MEMORY = 1 << 30  # bytes of images in a list of results, above which it is said how to avoid it


class YOLO:
    """An object detector.

    Args:
        model: weights (`best.pt`, `best.safetensors`, or a detection checkpoint of ultralytics, which is read
            without running anything in it), an architecture (`yolo11n.yaml`, or the path of a custom one), or an
            exported file (`best.onnx`, `best_openvino/`, `best.torchscript`, `best.pt2`), which predicts and
            validates.
        names: class names of an exported file without them.
        imgsz: side, or height and width, of the input of such a file, px.
        task: "detect", for calls copied from elsewhere; there is no other.
        verbose: without effect, likewise: opening a model says nothing.
        trust: open a .torchscript or .pt2 that could run code; without it such a file is refused.

    Attributes:
        model: the network; an exported file has none.
        exported: the `ExportedModel` of an exported file, else None.
        names: class id -> name.
        ckpt: the checkpoint it was loaded from, without its weights; empty for an architecture.
        callbacks: event name -> list of functions; every engine gets a copy.
        metrics: those of the last `train` or `val`.
        trainer: the last training's engine; likewise `validator`, `predictor`, `exporter`. False before the first.

    Raises:
        CheckpointError: if the weights can't be read.
        ModelError: if the architecture can't be built.
        ExportError: if the exported file can't be opened.
    """

    task = "detect"

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        names: Mapping[int, str] | Sequence[str] | None = None,
        imgsz: int | Sequence[int] | None = None,
        *,
        task: str | None = None,
        verbose: bool = False,
        trust: bool = False,
    ) -> None:
        if task not in (None, self.task):
            raise SettingsError(f"task={task}: only detection is available; leave task out")
        self.callbacks = CallbackRegistry()
        self.metrics: Metrics | None = None
        self.trainer: Any
        self.validator: Any
        self.predictor: Any
        self.exporter: Any
        self.__dict__ |= no_engines()
        self.ckpt: dict[str, Any] = {}
        self._backend: tuple[tuple[object, ...], InferenceBackend] | None = None
        self._device: str | None = None
        self.exported: ExportedModel | None = None
        self.source = model
        suffix = Path(model).suffix
        if is_exported(model):
            self.exported = ExportedModel(model, names, imgsz, trust)
            height, width = self.exported.contract.imgsz
            self.ckpt = {"settings": {"imgsz": height if height == width else [height, width]}}
            self.trained = True
        elif names is not None or imgsz is not None:
            raise SettingsError(f"names= and imgsz= are for exported files; {str(model)!r} knows its own")
        elif suffix in (".yaml", ".yml", ""):
            self._set_network(DetectionModel(load_model_config(model)), trained=False)
        else:
            self._take_checkpoint(read_weights(model))

    def _take_checkpoint(self, content: dict[str, Any]) -> None:
        config = read_config(content["model"], self.source)
        self._set_network(build_network(config, content["weights"], self.source).eval())
        self.ckpt = {key: value for key, value in content.items() if key != "weights"}

    def _set_network(self, network: DetectionModel, trained: bool = True) -> None:
        self._network, self.trained, self._backend = network, trained, None
        self._tensors = [*network.parameters(), *network.buffers()]

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle and copy take along: not the engines, nor what is kept for the next prediction."""
        return self.__dict__ | no_engines() | dict.fromkeys(("_backend", "_tensors"))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.exported is None:
            self._set_network(self._network, self.trained)

    # ------------------------------------------------------------------ what it is

    @property
    def model(self) -> DetectionModel:
        """The network.

        Raises:
            ExportError: for an exported file, which has none that can be trained, changed or exported again.
        """
        if self.exported is not None:
            raise ExportError(
                f"{self.source}: an exported file predicts and validates only; to train, change or export, open the "
                f".pt it was made from"
            )
        return self._network

    @property
    def _opened(self) -> DetectionModel | ExportedModel:
        return self._network if self.exported is None else self.exported

    @property
    def names(self) -> dict[int, str]:
        """Class id -> name."""
        return self._opened.names

    @property
    def device(self) -> Any:
        """Device of the weights."""
        return self._opened.device

    def info(self, imgsz: int | Sequence[int] = 640, verbose: bool = True) -> ModelInfo:
        """Return layers, parameters, GFLOPs (2 x multiply-adds) at a size (height, width), and origin; maybe print."""
        info = replace(self.model.info(imgsz), origin=describe_origin(self.ckpt.get("origin")))
        if verbose:
            print(info)
        return info

    def to(self, device: Any) -> YOLO:
        """Move the weights to a device, on which everything is computed from now on unless `device=` is given.

        Args:
            device: as the setting: "cpu", "cuda", an index, or a `torch.device`.

        Raises:
            SettingsError: if there is no such device.
            ExportError: for an exported file.
        """
        network, given = self.model, Settings.parse({"device": device}).device
        place = select_device(given)
        self._set_network(network.to(place), self.trained)
        self._device = str(place)
        return self

    def fuse(self) -> YOLO:
        """Return the model as it is: val and predict fuse a copy, training needs the layers that fusing removes."""
        return self

    def load(self, weights: str | Path) -> YOLO:
        """Take every weight of another checkpoint whose name and shape agree; class rows by class name.

        Raises:
            CheckpointError: if nothing fits.
        """
        network = self.model
        content = read_weights(weights)
        origin = joined(content["origin"], self.ckpt.get("origin"))
        transfer = transfer_weights(network, content["weights"], class_names(content))
        require_any_match(transfer, weights)
        configure_logging()
        log.info("%s: %s", weights, transfer)
        self._set_network(network)
        self.ckpt = self.ckpt | {"origin": origin}
        return self

    def save(self, path: str | Path) -> Path:
        """Write the model as a checkpoint that `YOLO(path)` opens: `.pt`, or `.safetensors`."""
        path, network = Path(path), self.model
        weights = {"weights": {k: v.cpu() for k, v in network.state_dict().items()}}
        save_checkpoint(path, self._content() | weights)
        return path

    def _content(self) -> dict[str, Any]:
        """Return the model as a checkpoint, without its weights."""
        content = {"settings": {}, "epoch": -1, "metrics": {}} | self.ckpt
        return content | {"model": self.model.config.to_dict()}

    # ------------------------------------------------------------------ callbacks

    def add_callback(
        self,
        event: Any,
        fn: Callable[[Any], object] | None = None,
        *,
        first: bool = False,
        once: bool = False,
    ) -> Any:
        """Register a function for an event, or a callback object for all its events.

        Without `fn` this is a decorator: `@model.add_callback("on_fit_epoch_end")`.
        See `CallbackRegistry.add`.
        """
        return self.callbacks.add(event, fn, first=first, once=once)

    def remove_callback(self, event: Any, fn: Callable[[Any], object] | None = None) -> None:
        """Remove a function from an event, or an object from all its events."""
        self.callbacks.remove(event, fn)

    def clear_callback(self, event: str) -> None:
        """Remove all functions from an event."""
        self.callbacks.clear(event)

    def reset_callbacks(self) -> None:
        """Remove all functions from all events."""
        self.callbacks.clear()

    def added(self, *callbacks: Any) -> AbstractContextManager[None]:
        """Register callback objects for a `with` block: `with model.added(MyCallback()): model.train(...)`."""
        return self.callbacks.added(*callbacks)

    def _checked(
        self, kind: type[EngineSettingsT], given: dict[str, Any]
    ) -> tuple[EngineSettingsT, CallbackRegistry]:
        """Return the settings of one run, checked, and its callbacks: the model's, then those of `callbacks=`."""
        items = given.get("callbacks")
        items = [] if items is None else list(items) if isinstance(items, (list, tuple)) else [items]
        items = [str(item) if isinstance(item, Path) else item for item in items]
        texts = [item for item in items if isinstance(item, str)]
        given = given | ({"callbacks": texts or None} if "callbacks" in given else {})
        if self._device is not None and not given.get("resume"):
            given = {"device": self._device} | given
        in_file = read_cfg(cfg) if (cfg := given.pop("cfg", None)) else {}
        settings = kind.parse(given, in_file)
        if "callbacks" not in given:
            items = [settings.callbacks] if isinstance(settings.callbacks, str) else settings.callbacks or []
        return settings, self._registry(settings, items)

    def _registry(self, settings: Settings, items: Sequence[Any]) -> CallbackRegistry:
        """Return the callbacks of one run; the texts among them stay in the settings, without secrets."""
        registry = self.callbacks.copy()
        for item in items:
            for callback in load_callbacks(item) if isinstance(item, str) else [item]:
                registry.add_any(callback)
        if texts := [item for item in items if isinstance(item, str)]:
            settings.callbacks = [mask_callbacks(text) for text in texts]
        return registry

    def run(self, settings: Settings) -> Any:
        """Do what checked settings ask for, as the method of their engine does with keywords.

        Args:
            settings: `TrainSettings` and so on, from `parse`.

        Returns:
            What that method returns; of `PredictSettings` a generator.
        """
        texts = [settings.callbacks] if isinstance(settings.callbacks, str) else settings.callbacks or []
        run: Callable[..., Any] = getattr(self, f"_{settings.command}")
        return run(settings, self._registry(settings, texts))

    # ------------------------------------------------------------------ the engines

    def train(self, **settings: Any) -> Metrics | None:
        """Train on a data set; afterwards this model holds the best weights.

        Args:
            **settings: see `detector train --help` or docs/settings.md; `data` is needed. `callbacks`
                takes a list of callbacks for this run only: objects, functions named as an event,
                (event, function) pairs, dicts, and texts such as "hooks.py" (see `callbacks/loading.py`).

        Returns:
            The metrics of the best weights on the validation split, or None if there is none.

        Raises:
            SettingsError: for unknown, mistyped or out-of-range settings, all at once.
            DataError: if the data set can't be used.
            TrainingError: if the loss becomes non-finite, or nothing is learned any more.
        """
        transforms = named_transforms(settings)
        return self._train(*self._checked(TrainSettings, settings), transforms)

    def _train(
        self, settings: TrainSettings, registry: CallbackRegistry, transforms: Sequence[Any] = ()
    ) -> Metrics | None:
        from detector.scale.placement import settle_devices
        from detector.scale.ranks import join
        from detector.scale.restart import continue_marked

        transforms = [load_transform(item) for item in transforms or as_list(settings.transforms)]
        ranks = join(60 * settings.wait_limit)
        failed = True
        try:
            given = settings
            if ranks.is_group and not settings.resume:
                settings = ranks.from_main(
                    lambda: continue_marked(given), "the search for an interrupted run"
                )
            restarted = settings.resume != given.resume
            run = self._run_to_resume(settings, registry, transforms, ranks, restarted)
            processes = 1 if ranks.is_group else settle_devices(settings)
            if processes > 1:
                from detector.scale.launch import train_in_processes

                result = train_in_processes(self, settings, registry, transforms, run, processes)
                self.trainer, self.metrics = result.record, result.metrics
                self._set_network(build_network(result.config, result.weights, "the trained model").eval())
            else:
                self._train_here(settings, registry, transforms, run, ranks)
            failed = False
        finally:
            ranks.close(failed)
        if (weights_file := self.trainer.final_weights) is not None:
            self.source, self.ckpt = weights_file, self.trainer.final_checkpoint
            if weights_file.is_file():  # what comes next starts from this file
                self.ckpt = self.ckpt | {"origin": origin_of(weights_file, self.ckpt.get("origin"))}
        return self.metrics

    def _run_to_resume(
        self,
        settings: TrainSettings,
        registry: CallbackRegistry,
        transforms: Sequence[Any],
        ranks: Ranks,
        restarted: bool,
    ) -> RunState | None:
        """Open the run to resume, if one is asked for, and fill in its settings and callbacks."""
        from detector.training.resume import find_run

        run = None
        if resume := settings.resume:
            run = ranks.from_main(lambda: find_run(resume, settings.project), "the state of the run")
            named = "callbacks" in settings.model_fields_set
            run.complete(settings, restarted)
            if settings.transforms and not transforms:
                raise SettingsError(
                    f"the run in {run.folder} was trained with transforms={format_value(settings.transforms)}, "
                    f"which are code and not saved with it; give them again"
                )
            if not named:
                settings.callbacks = restorable_callbacks(settings.callbacks)
                for callback in load_callbacks(settings.callbacks):
                    registry.add_any(callback)
        if settings.data is None:
            raise DataError("data= is missing: name a data set, such as data=coco8.yaml")
        if ranks.is_main:
            announce(settings)
        return run

    def _train_here(
        self,
        settings: TrainSettings,
        registry: CallbackRegistry,
        transforms: Sequence[Any],
        run: RunState | None,
        ranks: Ranks,
    ) -> None:
        """Train in this process, alone or as one of a group."""
        from detector.engine.train import Trainer

        config, weights, names, origin, content = self.model.config, None, None, None, None
        if run is not None:
            config = ModelConfig.from_dict(run.content["model"])
        elif settings.pretrained is True and self.trained:
            weights, names, origin = self.model.state_dict(), self.names, self.ckpt.get("origin")
        elif settings.pretrained is True:
            content = read_starter_weights(config)
            if content is not None and ranks.is_main:
                log.info("weights: starting from the starter weights; pretrained=false for random ones")
        elif settings.pretrained == STARTER:
            content = read_starter_weights(config, required=True)
        elif settings.pretrained is not False:
            content = read_weights(settings.pretrained)
        if content is not None:
            weights, names, origin = content["weights"], class_names(content), content["origin"]
        if run is None or settings.model is None:
            settings.model = str(self.source)
        self.trainer = Trainer(settings, config, weights, names, registry, run, origin, transforms, ranks)
        self.metrics = self.trainer.run()
        self._set_network(self.trainer.final_model)

    def tune(self, **settings: Any) -> TuneResults:
        """Search for settings that train this model better: a study of many trainings, with Optuna.

        The model itself stays as it is. The same call resumes a study that was interrupted.

        Args:
            **settings: those of `train`, and `trials`, `space`, `storage` and so on; see `detector tune --help` and
                docs/tune.md. `data` is needed. `callbacks` run in every trial.

        Raises:
            SettingsError: for wrong settings, or if the study was begun with others.
            DataError: if the data set can't be used.
            TrainingError: if no trial came to a good end.
            MissingPackageError: if Optuna is not installed.
        """
        transforms = named_transforms(settings)
        return self._tune(*self._checked(TuneSettings, settings), transforms)

    def _tune(
        self, settings: TuneSettings, registry: CallbackRegistry, transforms: Sequence[Any] = ()
    ) -> TuneResults:
        from detector.engine.tune import Tuner

        if settings.data is None:
            raise DataError("data= is missing: name a data set, such as data=coco8.yaml")
        _ = self.model  # an exported file has none, and says so before a study is begun

        def train(trial_settings: TrainSettings, callbacks: CallbackRegistry) -> Any:
            model = copy.copy(self)
            model._train(trial_settings, callbacks, transforms)
            return model.trainer

        announce(settings)
        return Tuner(settings, registry, train, str(self.source)).run()

    def val(self, **settings: Any) -> Metrics:
        """Validate on a split of a data set: by default the one it was trained on.

        Args:
            **settings: see `detector val --help`.

        Raises:
            SettingsError: for wrong settings.
            DataError: if the data set can't be used.
            CheckpointError: if the model has other classes than the data set.
        """
        return self._val(*self._checked(ValSettings, settings))

    def _val(self, settings: ValSettings, registry: CallbackRegistry) -> Metrics:
        from detector.engine.val import validate

        self._complete(settings)
        if settings.data is None:
            raise DataError("data= is missing: name a data set, such as data=coco8.yaml")
        announce(settings)
        self.validator, self.metrics = validate(settings, self._ready(settings), registry)
        return self.metrics

    def predict(self, source: Any = None, stream: bool = False, **settings: Any) -> Any:
        """Find objects in images.

        Args:
            source: image path, folder, glob, list, .txt list, BGR array, PIL image or tensor.
            stream: yield the results one by one instead of returning a list, which keeps every image in memory.
            **settings: see `detector predict --help`.

        Returns:
            A list of `Results`, one per image, or a generator of them.

        Raises:
            SettingsError: for wrong settings.
            DataError: if the source matches nothing or can't be read.
        """
        given = settings | ({} if source is None else {"source": source})
        results = self._predict(*self._checked(PredictSettings, given))
        return results if stream else collect(results)

    __call__ = predict

    def export(self, **settings: Any) -> Path:
        """Write the model in another format, next to its weights, and verify the file against the model.

        Args:
            **settings: see `detector export --help` and docs/export.md.

        Returns:
            The path of the exported file or folder.

        Raises:
            SettingsError: for wrong settings.
            ExportError: for an unknown format, options it does not know, or a file whose predictions differ from
                the model's.
            MissingPackageError: if what the format needs is not installed.
        """
        return self._export(*self._checked(ExportSettings, settings))

    def _export(self, settings: ExportSettings, registry: CallbackRegistry) -> Path:
        from detector.engine.export import Exporter

        network = self.model
        trained_on = self.ckpt.get("settings", {}).get("data")
        self._complete(settings, but="data")
        announce(settings)
        path = Path(self.source)
        place = path.with_suffix("") if self.trained else Path(path.stem)
        exporter = self.exporter = Exporter(settings, network, place, registry, self._content(), trained_on)
        return exporter.run()

    def benchmark(self, **settings: Any) -> list[dict[str, Any]]:
        """Export to every format that is installed, and measure size, speed and accuracy of each.

        Args:
            **settings: see `detector benchmark --help`; `data` is needed.

        Returns:
            One row per format, as in `benchmark.csv` of the run folder.

        Raises:
            SettingsError: for wrong settings.
            DataError: if the data set can't be used.
        """
        return self._benchmark(*self._checked(BenchmarkSettings, settings))

    def _benchmark(self, settings: BenchmarkSettings, _: CallbackRegistry) -> list[dict[str, Any]]:
        from detector.engine.benchmark import benchmark

        network = self.model
        self._complete(settings)
        if settings.data is None:
            raise DataError("data= is missing: name a data set, such as data=coco8.yaml")
        announce(settings)
        source = Path(self.source) if self.trained else None
        return benchmark(settings, network, source, self._content())

    def _predict(
        self, settings: PredictSettings, callbacks: CallbackRegistry
    ) -> Generator[Results, None, None]:
        from detector.data.sources import open_source
        from detector.engine.predict import Predictor

        self._complete(settings)
        if settings.source is None:
            raise DataError(
                "source= is missing: give an image, a folder or a list, such as source=street.jpg"
            )
        if settings.verbose:
            announce(settings)
        source = open_source(settings.source, self._opened.value_range)
        predictor = self.predictor = Predictor(settings, self._ready(settings), callbacks)
        return predictor.stream(source)

    def _ready(self, settings: PredictSettings | ValSettings) -> InferenceBackend:
        """Return the fused network, kept from the last call if nothing has changed; or the exported file."""
        if self.exported is not None:
            return self.exported.backend(settings)
        version = sum(map(tensor_version, self._tensors))  # grows with every change in place
        key = (settings.device, settings.amp, settings.nms, settings.names, settings.compile, version)
        kept = self._backend  # read once: another thread may predict with other settings
        if kept is None or kept[0] != key:
            kept = self._backend = (key, make_backend(self.model, settings))
        return kept[1]

    def _complete(self, settings: Settings, but: str | None = None) -> None:
        """Fill in what was not set, but the model was trained with."""
        saved = self.ckpt.get("settings", {})
        keys = INHERITED + (MEASURED_WITH if isinstance(settings, ValSettings) else ())
        keys += self._cut(settings, saved)
        known = [key for key in keys if key in type(settings).model_fields and key != but]
        settings.inherit({key: saved[key] for key in known if saved.get(key) is not None})

    def _cut(self, settings: Settings, saved: Mapping[str, Any]) -> tuple[str, ...]:
        """Return which settings of the training say what it validated on, if this is the same data set."""
        from detector.engine.loaders import located_data

        given = settings.model_fields_set
        if "data" in given and located_data(settings.to_dict().get("data")) != saved.get("data"):
            return ()
        if "val" in given or ("split" in given and fold_of(getattr(settings, "split", ""))):
            return ()
        return ("val",) if "split" in given else ("val", "split")

    def __repr__(self) -> str:
        return f"YOLO({str(self.source)!r}, {len(self.names)} classes)"


def named_transforms(settings: dict[str, Any]) -> list[Any]:
    """Return what `transforms=` holds, and put names into the settings for what are objects."""
    transforms = as_list(settings.get("transforms"))
    if any(not isinstance(item, str) for item in transforms):
        settings["transforms"] = [item if isinstance(item, str) else name_of(item) for item in transforms]
    return transforms


def class_names(content: dict[str, Any]) -> dict[int, str]:
    """Return class id -> name of a checkpoint; empty if it has no names."""
    return dict(enumerate(content["model"].get("names") or ()))


def collect(results: Iterable[Any]) -> list[Any]:
    """Return results as a list; one that keeps much memory is said once to do so."""
    kept, count = [], 0
    for result in results:
        kept.append(result)
        read = Path(getattr(result, "path", "")).is_absolute()  # the others the caller has in memory anyway
        before, count = count, count + (result.orig_img.nbytes if read else 0)
        if before < MUCH_MEMORY <= count:
            log.warning(
                "the list of results keeps every image in memory, %d of %.1f GB so far; predict(stream=True) gives one "
                "result after the other and keeps none",
                len(kept),
                count / 1e9,
            )
    return kept

import re

import pytest
import torch
from support.models import make_finder

from detector import YOLO
from detector.cli import main
from detector.engine.benchmark import name_of, variants
from detector.errors import SettingsError
from detector.settings import TrainSettings

LOOSE = {"conf": 0.01, "imgsz": 96, "device": "cpu", "verbose": False, "amp": False}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Path of a tiny model of the synthetic data set's classes. Don't change it."""
    return make_finder(tmp_path_factory.mktemp("finder"))


@pytest.fixture
def scenes(drawn_dataset):
    return sorted((drawn_dataset.parent / "data" / "images" / "val").iterdir())


@pytest.fixture
def compiles(monkeypatch):
    """Every call of torch.compile, which here changes nothing: its options, and the inputs that were run."""
    calls = []

    def compile(run, **options):
        inputs = []
        calls.append((options, inputs))

        def program(images):
            inputs.append(images)
            return run(images)

        return program

    monkeypatch.setattr(torch, "compile", compile)
    return calls


def test_nothing_is_compiled_unless_asked(weights, scenes, compiles):
    YOLO(weights).predict(scenes, **LOOSE)
    assert compiles == []


def test_a_compiled_network_is_kept_between_calls(weights, scenes, compiles):
    model = YOLO(weights)
    for _ in range(2):
        model.predict(scenes, **LOOSE, compile=True)
    assert len(compiles) == 1
    options, inputs = compiles[0]
    assert options == {"fullgraph": True}  # else torch falls back in silence
    assert len(inputs) == 2 * len(scenes)
    model.predict(scenes, **LOOSE)
    assert len(inputs) == 2 * len(scenes), "compile=false has to run the network as it is"


def test_changed_weights_are_compiled_again(weights, scenes, compiles):
    model = YOLO(weights)
    model.predict(scenes[0], **LOOSE, compile=True)
    with torch.no_grad():
        model.model.head.cv3[0][-1].bias.add_(1)
    model.predict(scenes[0], **LOOSE, compile=True)
    assert len(compiles) == 2


def test_validation_takes_the_network_that_prediction_compiled(
    weights, scenes, drawn_dataset, compiles, tmp_path, monkeypatch
):
    # without packed convolutions both compute alike to the bit
    monkeypatch.setattr("detector.inference.torch_backend.can_pack", lambda dtype: False)
    model = YOLO(weights)
    settings = {"data": drawn_dataset, "plots": False, "project": tmp_path, **LOOSE}
    plain = model.val(**settings)
    assert compiles == []
    model.predict(scenes, **LOOSE, compile=True)
    compiled = model.val(**settings, compile=True)
    ((_, inputs),) = compiles
    assert len(inputs) > len(scenes)
    assert compiled.results_dict == plain.results_dict


@pytest.mark.parametrize(("batch", "free"), [(1, {2, 3}), (2, {0, 2, 3})])
def test_sizes_are_left_free(weights, scenes, compiles, batch, free):
    YOLO(weights).predict(scenes[:2], **LOOSE, compile=True, batch=batch)
    assert {frozenset(images._dynamo_dynamic_indices) for images in compiles[0][1]} == {frozenset(free)}


def test_exported_files_are_refused(weights, scenes, drawn_dataset, tmp_path, compiles):
    model = YOLO(YOLO(weights).export(format="torchscript", imgsz=96, verbose=False, folder=tmp_path))
    message = (
        "compile=true: expected a .pt, best.torchscript is run by torchscript as it is; leave compile out"
    )
    with pytest.raises(SettingsError, match=re.escape(message)):
        model.predict(scenes, **LOOSE, compile=True)
    with pytest.raises(SettingsError, match=re.escape(message)):
        model.val(data=drawn_dataset, compile=True, project=tmp_path)
    assert compiles == []


def failing(error):
    """Return a torch.compile whose programs fail with an error."""

    def compile(run, **options):
        def program(images):
            raise error

        return program

    return compile


def inductor_error(cause):
    from torch._inductor.exc import InductorError

    return InductorError(cause, None)


def test_a_missing_compiler_is_one_sentence(weights, scenes, monkeypatch, capsys, tmp_path):
    from torch._inductor.exc import InvalidCxxCompiler

    monkeypatch.setattr(torch, "compile", failing(inductor_error(InvalidCxxCompiler())))
    words = [f"model={weights}", f"source={scenes[0]}", "imgsz=96", "compile=true", f"project={tmp_path}"]
    assert main(["predict", *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert lines == [
        "error: compile=true: torch.compile found no working C++ compiler here; install one (Debian: apt install "
        "g++) or name it in the variable CXX, or leave compile out"
    ]


def test_other_failures_of_the_compiler_are_reported(weights, scenes, monkeypatch):
    from torch._dynamo.exc import FailOnRecompileLimitHit
    from torch._inductor.exc import CppCompileError

    for error, telling in (
        (inductor_error(CppCompileError(["g++"], "a.cpp:1\nfatal error: Python.h")), "fatal error: Python.h"),
        (FailOnRecompileLimitHit("too many\nsizes"), "too many"),
    ):
        monkeypatch.setattr(torch, "compile", failing(error))
        with pytest.raises(SettingsError) as caught:
            YOLO(weights).predict(scenes[0], **LOOSE, compile=True)
        assert str(caught.value) == (
            f"compile=true: torch.compile can't compile this network here ({telling}); set "
            f"TORCH_LOGS=dynamo,inductor for details, or leave compile out"
        )


def test_errors_that_are_not_of_the_compiler_stay_what_they_are(weights, scenes, monkeypatch):
    monkeypatch.setattr(torch, "compile", failing(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        YOLO(weights).predict(scenes[0], **LOOSE, compile=True)


def test_training_has_no_such_setting():
    with pytest.raises(
        SettingsError,
        match=r"compile=true: not available in train; .*; val, predict and benchmark take compile=",
    ):
        TrainSettings.parse({"compile": True})


def test_the_benchmark_measures_the_compiled_model_where_asked(weights, drawn_dataset, tmp_path, compiles):
    assert {name_of(variant) for variant in variants({}, True)} == {"pt"}
    settings = {"formats": "safetensors", "imgsz": 96, "repeats": 2, "plots": False, "verbose": False}
    rows = YOLO(weights).benchmark(data=drawn_dataset, project=tmp_path, compile=True, **settings)
    computed = {
        kind: [row["computes in"] for row in rows if row["format"] == kind] for kind in ("pt", "pt compiled")
    }
    assert computed["pt"] == computed["pt compiled"] != []
    assert len(compiles) == len(computed["pt"]) == len(rows) / 2
    assert {len(inputs) for _, inputs in compiles} == {1 + 10 + 2}  # a batch of validation, warm-up, repeats


@pytest.mark.slow
def test_compiled_boxes_are_those_of_the_network(weights, scenes, monkeypatch, tmp_path):
    """At several sizes and batches, with the real compiler."""
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    eager, compiled = YOLO(weights), YOLO(weights)
    before = counters["stats"]["unique_graphs"]
    for settings in (
        {"imgsz": [128, 96]},
        {"imgsz": [96, 128]},
        {"imgsz": [96, 96]},
        {"imgsz": [128, 96], "batch": 4},
        {"imgsz": [96, 96], "batch": 3},
    ):
        given = LOOSE | {"rect": False} | settings
        expected = eager.predict(scenes, **given)
        found = compiled.predict(scenes, **given, compile=True)
        for a, b in zip(expected, found, strict=True):
            assert len(a.boxes) > 0
            torch.testing.assert_close(a.boxes.data, b.boxes.data, atol=1e-3, rtol=1e-4)
    assert 1 <= counters["stats"]["unique_graphs"] - before <= 3, "a program for one image, one for several"

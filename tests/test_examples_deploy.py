"""The scripts under examples/deploy/: they run exported files without this package, and find what it finds."""

import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from support.models import make_finder

from detector import YOLO
from detector.data.drawn import FORMS
from detector.exporters.parity import synthetic_images

SCRIPTS = Path(__file__).resolve().parents[1] / "examples" / "deploy"
WITHOUT = {
    "onnx": ("torch", "detector"),
    "openvino": ("torch", "detector"),
    "torchscript": ("detector",),
    "pt2": ("detector",),
}


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("onnx", False),
        ("onnx", True),
        pytest.param("openvino", True, marks=pytest.mark.slow),
        ("torchscript", False),
        ("openvino", False),
        pytest.param("torchscript", True, marks=pytest.mark.slow),
        pytest.param("pt2", True, marks=pytest.mark.slow),
        pytest.param("pt2", False, marks=pytest.mark.slow),
    ],
)
def test_a_script_finds_what_the_model_finds(name, inside, tmp_path):
    model = YOLO(make_finder(tmp_path))
    options = {"nms": True, "preprocess": True} if inside else {"batch": 2}
    file = model.export(format=name, imgsz=96, verbose=False, **options)
    image = tmp_path / "scene.png"
    cv2.imwrite(str(image), synthetic_images((192, 192))[0][:150])
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({WITHOUT[name]!r}));"
        f"runpy.run_path({str(SCRIPTS / f'run_{name}.py')!r})['main']({str(file)!r}, {str(image)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    found = sorted((name, *map(float, numbers)) for name, *numbers in rows)
    (result,) = model.predict(image, imgsz=96, rect=False, amp=False, verbose=False)
    expected = sorted(
        (FORMS[int(box.cls)], float(box.conf), *box.xyxy.flatten().tolist()) for box in result.boxes
    )
    assert len(found) == len(expected) > 3
    precise = name != "openvino"  # it computes in bf16 where the processor does
    for mine, theirs in zip(expected, found, strict=True):
        assert mine[:1] == theirs[:1] and mine[1] == pytest.approx(theirs[1], abs=0.002 if precise else 0.05)
        height, width = result.orig_shape
        clipped = [
            min(max(side, 0), limit) for side, limit in zip(theirs[2:], (width, height) * 2, strict=True)
        ]
        assert mine[2:] == pytest.approx(clipped, abs=0.2 if precise else 5)


def test_every_script_is_short_and_says_how_to_run_it():
    for name in WITHOUT:
        text = (SCRIPTS / f"run_{name}.py").read_text()
        assert f"    detector export model=best.pt format={name}\n" in text
        assert f"    python examples/deploy/run_{name}.py best" in text
        assert len(text.splitlines()) < 65

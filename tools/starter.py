"""Pretrain a network on scenes of drawn motifs, and write its weights as a file to start other trainings from.

    python -m tools.starter --model yolo11n --images 600000 --imgsz 256 --batch 64 device=0

Called again, it resumes. Nothing is downloaded: every training image is drawn when it is needed
(`detector/data/scenes.py`) and seen once. What the trainer reads from the disk are placeholders, which count the images
of an epoch; validation has scenes of its own. In `--output` are then

* starter-MODEL.safetensors, the averaged weights in half precision, for `pretrained=`
* starter-MODEL.json and .md, the model card: ingredients, licences, checksum, recipe, metrics
* run, data: the run folder and the data set, which may be removed
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from detector import YOLO
from detector.checkpoints.checkpoint import load_checkpoint, read_weights, save_checkpoint
from detector.checkpoints.origin import describe_origin, links, origin_of
from detector.cli import parse_words
from detector.data.drawn import SPLIT_START, write_scene
from detector.data.motifs import NUM_MOTIFS, motif_of
from detector.data.scenes import SCENES_VERSION, FreshScene, draw_motif_scene
from detector.errors import DetectorError, RunCompleteError, SettingsError
from detector.files.atomic import move_into_place, replace_file, staging_folder
from detector.files.digest import file_sha256
from detector.reference import settings_by_theme
from detector.training.saving import STATE
from detector.version import __version__
from tools import teacher
from tools.teacher import SHA256, FeatureTeacher

LICENCE = "Apache-2.0"
MIN_EPOCHS, MAX_EPOCH = 20, 10_000  # an epoch is that many images at most
VAL_SCENES = 500
INGREDIENTS = {
    "images": f"drawn by detector/data/scenes.py, version {SCENES_VERSION} ({LICENCE}); none from elsewhere",
    "labels": "follow from the drawing; nobody annotated anything",
    "letters": "the shapes of the font that comes with OpenCV: Hershey's in version 4, an outline font in 5",
}
LIMITS = (
    "not for detection as they are: their classes are drawn motifs. For few training images; the more there are, the "
    "less they gain: nothing with 5,000 (docs/starter.md). Larger inputs than 320 px have been measured on one data "
    "set, with yolo11n"
)
TEACHER = (
    f"EfficientNet-Lite0, trained on ImageNet, SHA-256 {SHA256}; {teacher.LICENCE}. Its maps are what the backbone "
    "learns next to the scenes; none of its weights and no image of ImageNet is used"
)
AUGMENTATION = dict.fromkeys(
    ("mosaic", "close_mosaic", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr"), 0
)  # off: the scenes vary by themselves


def make_data(folder: Path, images: int, imgsz: int, classes: int) -> Path:
    """Write the placeholders of one epoch and the scenes to validate on; returns the data YAML.

    Args:
        folder: to make; it appears only when it is whole.
        images: of an epoch.
        imgsz: side of the scenes, px.
        classes: how many.
    """
    grey, whole = np.full((32, 32, 3), 114, np.uint8), np.array([[0, 0, 32, 32]], np.float32)
    with staging_folder(folder) as staging:
        for part in ("images/train", "images/val", "labels/train", "labels/val"):
            (staging / part).mkdir(parents=True)
        for number in range(images):
            write_scene(staging, "train", f"{number:06d}", grey, whole, np.array([number % classes]))
        for number in range(min(VAL_SCENES, images)):
            scene = draw_motif_scene(0, SPLIT_START["val"] + number, (imgsz, imgsz), classes)
            write_scene(staging, "val", f"{number:06d}", *scene)
        names = {class_id: motif_of(class_id).name for class_id in range(classes)}
        text = json.dumps(
            {"path": ".", "train": "images/train", "val": "images/val", "names": names}, indent=1
        )
        (staging / "motifs.yaml").write_text(text, encoding="utf-8")  # JSON is YAML
        move_into_place(staging, folder)
    return folder / "motifs.yaml"


def images_per_epoch(images: int) -> int:
    """Return the images of an epoch of a pretraining on `images` in all."""
    return min(MAX_EPOCH, images // MIN_EPOCHS)


def fixed_settings(folder: Path, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the training that follow from the recipe."""
    images, classes = recipe["images"], recipe["classes"]
    return {
        "data": folder / "data/motifs.yaml", "epochs": images // images_per_epoch(images), "imgsz": recipe["imgsz"],
        "batch": recipe["batch"], "seed": recipe["seed"], "project": folder, "name": "run", "exist_ok": True,
        "cache": False, "plots": False, "patience": 0, "transforms": FreshScene(classes),
        "pretrained": recipe["weights"] or False, **AUGMENTATION,
    }  # fmt: skip


def pretrain(folder: Path, recipe: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Train, or resume where an earlier call stopped; does nothing if the training is complete.

    Args:
        folder: with `data` and `run` in it.
        recipe: as `main` makes it.
        settings: further settings of `detector train`.

    Raises:
        SettingsError: for settings that the pretraining sets.
    """
    fixed = fixed_settings(folder, recipe)
    if not (data := fixed["data"]).is_file():
        make_data(data.parent, images_per_epoch(recipe["images"]), recipe["imgsz"], recipe["classes"])
    if taken := sorted(fixed.keys() & settings.keys()):
        raise SettingsError(f"{', '.join(taken)}: set by the pretraining and its options; leave them out")
    given = {"loggers": "none", **settings, **fixed}
    if (folder / "run" / STATE).is_file():
        given["resume"] = folder / "run"
    model = YOLO(Path(recipe["model"]).with_suffix(".yaml"))
    if recipe["teacher"]:
        model.add_callback(FeatureTeacher())
        given["cuda_graph"] = False  # a recorded step has no hooks
    with suppress(RunCompleteError):
        model.train(**given)


def write_weights(folder: Path, recipe: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Path:
    """Write the weights of the run in half precision with their origin, and the model card; returns their path.

    `before` is the card of the weights it began with.
    """
    best = folder / "run/weights/best.pt"
    content = load_checkpoint(best)
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in content["weights"].items()
    }
    if wrong := [name for name, value in weights.items() if not bool(value.isfinite().all())]:
        raise DetectorError(
            f"{best}: {wrong[0]} and {len(wrong) - 1} more do not fit half precision; train again"
        )
    path = folder / f"starter-{Path(recipe['model']).stem}.safetensors"
    kept = {key: content[key] for key in ("model", "epoch", "metrics")}
    origin = origin_of(best, content.get("origin"), LICENCE)  # trained on nothing but scenes
    rest = {"settings": {"imgsz": recipe["imgsz"]}, "licence": LICENCE, "origin": origin}
    save_checkpoint(path, {**kept, **rest, "weights": weights})
    write_card(path, recipe, content, before)
    return path


def further_settings(settings: Mapping[str, Any], fixed: Collection[str]) -> dict[str, Any]:
    """Return those that change what is learned, are not by default and do not follow from the recipe."""
    themes = settings_by_theme("train")
    return {
        name: settings[name]
        for theme in ("data", "training", "optimisation", "loss", "augmentation")
        for name, field in themes[theme].items()
        if not (name in fixed or name in ("cuda_graph", "resume") or settings[name] == field.default)
    }


def write_card(
    path: Path, recipe: Mapping[str, Any], content: Mapping[str, Any], before: Mapping[str, Any] | None
) -> None:
    """Write the model card next to the weights, as JSON and as Markdown."""
    further = further_settings(content["settings"], fixed_settings(path.parent, recipe).keys())
    versions = {"detector": __version__, "torch": torch.__version__, "numpy": np.__version__}
    card = {
        "file": {
            "name": path.name,
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
            "licence": LICENCE,
        },
        "ingredients": {
            **(before["ingredients"] if before else {}),
            **INGREDIENTS,
            "weights before": describe_origin(content.get("origin")),
            **({"teacher": TEACHER} if recipe["teacher"] else {}),
        },
        "recipe": {
            **{key: value for key, value in recipe.items() if key != "weights"},
            "model": Path(recipe["model"]).stem,
            "images seen": images_per_epoch(recipe["images"]) * (content["epoch"] + 1),
            **({"further settings": further} if further else {}),
        },
        **({"recipe of the weights before": before["recipe"]} if before else {}),
        "made with": {**versions, "opencv": cv2.__version__, "python": platform.python_version()},
        "metrics on scenes of the same kind": {
            name: value for name, value in content["metrics"].items() if name.startswith("metrics/")
        },
        "gain on other data sets": "docs/starter.md has that of the published files, and how to measure it",
        "limits": LIMITS,
    }
    replace_file(path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
    lines = [f"# {path.stem}", ""]
    for title, value in card.items():
        rows = [f"- {key}: {one}" for key, one in value.items()] if isinstance(value, dict) else [str(value)]
        lines += [f"## {title.capitalize()}", "", *rows, ""]
    replace_file(path.with_suffix(".md"), "\n".join(lines).encode())


def check_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Remember the recipe in the folder, or compare it with what is remembered.

    Raises:
        SettingsError: if the folder's training was begun with another.
    """
    file = folder / "recipe.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(recipe).encode())
    elif (before := json.loads(file.read_bytes())) != recipe:
        changed = ", ".join(f"--{key} {before.get(key)}" for key in recipe if before.get(key) != recipe[key])
        raise SettingsError(
            f"{folder}: was begun with {changed}; give the same to resume, or another --output to begin again"
        )


def read_card(weights: Path) -> dict[str, Any]:
    """Return the model card next to weights to begin with, whose ingredients are those of what is made from them, too.

    Raises:
        CheckpointError: if the weights can't be read.
        SettingsError: if a licence of theirs is another, or not known, or there is no card of these weights.
    """
    for link in links(read_weights(weights)["origin"]):
        if link["licence"] != LICENCE:
            raise SettingsError(
                f"--weights {weights}: the licence of {link['name']} is {link['licence'] or 'not stated'}, and that of "
                f"starter weights has to be {LICENCE}; give other weights, or leave --weights out"
            )
    file = weights.with_suffix(".json")
    try:
        card = json.loads(file.read_bytes())
        if card["file"]["sha256"] == file_sha256(weights) and isinstance(
            card["ingredients"] | card["recipe"], dict
        ):
            return dict(card)
    except (OSError, ValueError, TypeError, KeyError):
        pass  # said below
    raise SettingsError(f"--weights {weights}: {file.name} next to it is not its model card; copy both")


def main(arguments: Sequence[str] | None = None) -> int:
    """Pretrain, write the weights and print their path; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.starter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="yolo11n", help="an architecture: yolo11n, or a .yaml file")
    parser.add_argument(
        "--images", type=int, default=600_000, help=f"how many to train on, {MIN_EPOCHS} or more"
    )
    parser.add_argument("--imgsz", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--classes", type=int, default=NUM_MOTIFS, help=f"how many kinds of motifs, 1 to {NUM_MOTIFS}"
    )
    parser.add_argument(
        "--teacher",
        action="store_true",
        help="let the backbone learn the features of EfficientNet-Lite0, too",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the scenes, and of the weights without --weights"
    )
    parser.add_argument(
        "--weights", help="file to begin with, of this or a similar network; default: random weights"
    )
    parser.add_argument("--output", type=Path, help="folder; default: runs/starter-MODEL")
    parser.add_argument("settings", nargs="*", help="further settings of `detector train`, as device=0")
    args = parser.parse_args(arguments)
    if args.images < MIN_EPOCHS:
        parser.error(f"--images {args.images}: expected {MIN_EPOCHS} or more")
    if not 1 <= args.classes <= NUM_MOTIFS:
        parser.error(f"--classes {args.classes}: expected 1 to {NUM_MOTIFS}")
    recipe = {
        key: getattr(args, key)
        for key in ("model", "images", "imgsz", "batch", "classes", "teacher", "seed", "weights")
    }
    folder = args.output or Path("runs") / f"starter-{Path(args.model).stem}"
    try:
        given, in_file = parse_words(args.settings, "train")
        before = read_card(Path(args.weights)) if args.weights else None
        check_recipe(folder, recipe)
        pretrain(folder, recipe, in_file | given)
        print(write_weights(folder, recipe, before))
    except DetectorError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

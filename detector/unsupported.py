"""Settings that settings files of comparable trainers hold and this package has not.

Such a file, or a call copied from elsewhere, names everything, most of it switched off. What is off is taken, and
listed once as having no effect; what is on is refused, with what to use instead. Names and default values are those
of public documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Absent:
    """A setting that is not here.

    Attributes:
        instead: what to do where it is on.
        off: values with which it asks for nothing; None if no value has an effect on detection.
    """

    instead: str = ""
    off: tuple[object, ...] | None = (False, None)

    def is_off(self, value: object) -> bool:
        """Return whether a value asks for nothing."""
        if self.off is None:
            return True
        return any(value == off and isinstance(value, bool) == isinstance(off, bool) for off in self.off)


OTHER_TASK = Absent(off=None)
"""Of segmentation, keypoints, classification or rotated boxes: no value has an effect on detection."""

NO_AUGMENTATION = (0.0, 0, False, None)

VIDEO = Absent("videos are not read; extract frames and give their folder", (1, False, None))

ABSENT: Mapping[str, Absent] = MappingProxyType(
    {
        "task": Absent("only task=detect is here", ("detect", None)),
        "mode": Absent(
            "the method or the command says what is done",
            ("train", "val", "predict", "export", "benchmark", None),
        ),
        "save_dir": OTHER_TASK,  # project and name say where
        "cfg": Absent("cfg= takes the path of a YAML file", (None,)),
        "augment": Absent("there is no test-time augmentation; try a larger imgsz="),
        "half": Absent("use amp=fp16 (CUDA) or amp=bf16"),
        "int8": Absent("export with int8=true, and open the exported file"),
        "dnn": Absent("export with format=onnx, and open the exported file"),
        "visualize": Absent(
            "look at layers with a callback on_predict_batch_end and predictor.backend.network"
        ),
        "embed": Absent("register a forward hook on a layer of YOLO.model"),
        "vid_stride": VIDEO,
        "stream_buffer": VIDEO,
        "save_frames": VIDEO,
        "stream": Absent(
            "YOLO.predict(stream=True) takes it; the command line always streams", (True, False, None)
        ),
        "tracker": OTHER_TASK,
        "persist": Absent("there is no tracking"),
        "save_hybrid": Absent("use save_txt=true in predict"),
        "copy_paste_mode": OTHER_TASK,  # of masks
        "augmentations": Absent("change trainer.batch in a callback on_train_batch_start", (None, [])),
        "label_smoothing": Absent("leave it out", NO_AUGMENTATION),
        "auto_augment": OTHER_TASK,
        "erasing": OTHER_TASK,
        "crop_fraction": OTHER_TASK,
        "dropout": OTHER_TASK,
        "pose": OTHER_TASK,
        "kobj": OTHER_TASK,
        "rle": OTHER_TASK,
        "angle": OTHER_TASK,
        "overlap_mask": OTHER_TASK,
        "mask_ratio": OTHER_TASK,
        "retina_masks": OTHER_TASK,
        "profile": Absent("use detector benchmark"),
        "compile": Absent("training runs without torch.compile; val, predict and benchmark take compile="),
        "end2end": Absent("use nms=false for the NMS-free head, nms=true for the other", (None,)),
        "keras": Absent("use format=onnx or format=openvino"),
        "optimize": Absent("leave it out: exported files are fused as they are"),
        "workspace": OTHER_TASK,
        "format": Absent("use export", ("torchscript", None)),
        "image_weights": Absent("use balance= to show rare classes more often, or cls_pw= to weight them"),
    }
)
"""Name -> what is known of it. A name that an engine does have is that engine's own setting."""

RENAMED: Mapping[str, str] = MappingProxyType({"boxes": "show_boxes", "line_thickness": "line_width"})
"""Old name -> the setting of today."""

WHOLE_FILE = frozenset({"task", "mode"})
"""Keys by which a settings file of another trainer is known: it holds the settings of all commands."""

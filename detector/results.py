"""What predict returns: `Results`, one image with its detections, and `Boxes`, the detections."""

from __future__ import annotations

import base64
import html
import inspect
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.drawing import draw_boxes, notebook_png, show_image, writable_name, write_image, writing
from detector.errors import MissingPackageError, SettingsError, nearest
from detector.files.names import distinct_file_names, shortened
from detector.tables import rows_to_csv, rows_to_df

PLOT_WORDS = {
    "masks": None,
    "probs": None,
    "kpt_radius": None,
    "kpt_line": None,
    "im_gpu": None,
    "font": ("Arial.ttf", "text is drawn in OpenCV's font"),
    "color_mode": ("class", "each class has its colour"),
    "txt_color": ((255, 255, 255), "text is black or white, whichever reads better"),
}
"""Keywords of `plot` elsewhere: None where no value has an effect; else the default value, and how it is here."""

Rows = Any  # Tensor or NDArray: whichever the detections came in
CROP_GAIN, CROP_PAD = 1.02, 10  # saved crops are a little larger than their boxes: factor, px


class Boxes:
    """Detections of one image, in a torch tensor or a numpy array.

    Indexing with a number, a slice, a mask or a list gives another `Boxes`; iteration gives one for each row.

    Args:
        data: (N, 6) x1, y1, x2, y2, confidence, class, or (N, 7) with a track id before the confidence;
            image px. One detection may be given as (6,) or (7,).
        orig_shape: height and width of the image, px.

    Raises:
        ValueError: the rows have neither 6 nor 7 values.
    """

    def __init__(self, data: Rows, orig_shape: tuple[int, int]) -> None:
        data = data[None] if data.ndim == 1 else data
        if data.ndim != 2 or data.shape[1] not in (6, 7):
            raise ValueError(
                f"boxes of shape {tuple(data.shape)}: expected (N, 6), or (N, 7) with track ids."
            )
        self.data = data
        self.orig_shape = orig_shape

    @property
    def xyxy(self) -> Rows:
        """(N, 4) corners, image px."""
        return self.data[:, :4]

    @property
    def xywh(self) -> Rows:
        """(N, 4) centre, width and height, image px."""
        boxes = self.xyxy.clone() if isinstance(self.xyxy, Tensor) else self.xyxy.copy()
        boxes[:, 2:] -= boxes[:, :2]
        boxes[:, :2] += boxes[:, 2:] / 2
        return boxes

    @property
    def xyxyn(self) -> Rows:
        """(N, 4) corners, normalised by the size of the image."""
        return self.xyxy / self._scale()

    @property
    def xywhn(self) -> Rows:
        """(N, 4) centre, width and height, normalised by the size of the image."""
        return self.xywh / self._scale()

    @property
    def conf(self) -> Rows:
        """(N,) confidences."""
        return self.data[:, -2]

    @property
    def cls(self) -> Rows:
        """(N,) class ids, as floats."""
        return self.data[:, -1]

    @property
    def id(self) -> Rows | None:
        """(N,) track ids, or None without tracking."""
        return self.data[:, 4] if self.is_track else None

    @property
    def is_track(self) -> bool:
        """Whether the rows carry track ids."""
        return bool(self.data.shape[1] == 7)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    def cpu(self) -> Boxes:
        """Return a copy in main memory."""
        return self.to("cpu")

    def cuda(self) -> Boxes:
        """Return a copy on the CUDA device."""
        return self.to("cuda")

    def numpy(self) -> Boxes:
        """Return a copy as a numpy array."""
        data = self.data.detach().cpu().numpy() if isinstance(self.data, Tensor) else self.data
        return Boxes(data.copy(), self.orig_shape)

    def to(self, *args: Any, **kwargs: Any) -> Boxes:
        """Return a copy as a tensor of another device or dtype; arguments as for `torch.Tensor.to`."""
        return Boxes(torch.as_tensor(self.data).to(*args, **kwargs), self.orig_shape)

    def _scale(self) -> Rows:
        height, width = self.orig_shape
        scale = (width, height, width, height)
        return (
            self.data.new_tensor(scale) if isinstance(self.data, Tensor) else np.array(scale, self.data.dtype)
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Boxes:
        return Boxes(self.data[index], self.orig_shape)

    def __iter__(self) -> Iterator[Boxes]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return (
            f"Boxes({len(self)} of an image of {self.orig_shape[1]}x{self.orig_shape[0]} px)\n{self.data!r}"
        )


class Results:
    """One image and what was found in it.

    Indexing with a number, a slice, a mask or a list gives the `Results` with only those detections.

    Args:
        orig_img: (H, W, 3) uint8 BGR.
        path: where the image came from.
        names: class id -> name.
        boxes: (N, 6) or (N, 7), see `Boxes`; none by default.
        speed: ms spent in preprocess, inference and postprocess.
        save_dir: folder of the run, if it has one.

    Attributes:
        orig_shape: height and width, px.
        boxes: the detections.
        masks: None, as are `probs`, `keypoints` and `obb`: other tasks than detection.
    """

    masks = probs = keypoints = obb = None

    def __init__(
        self,
        orig_img: NDArray[np.uint8],
        path: str | Path,
        names: dict[int, str],
        boxes: Rows | None = None,
        speed: dict[str, float] | None = None,
        save_dir: str | Path | None = None,
    ) -> None:
        self.orig_img = orig_img
        self.orig_shape: tuple[int, int] = (orig_img.shape[0], orig_img.shape[1])
        self.path = str(path)
        self.names = names
        self.boxes = Boxes(torch.zeros(0, 6) if boxes is None else boxes, self.orig_shape)
        self.speed = speed or {}
        self.save_dir = save_dir

    def new(self) -> Results:
        """Return the same image without detections."""
        return Results(self.orig_img, self.path, self.names, None, self.speed, self.save_dir)

    def update(self, boxes: Rows) -> None:
        """Replace the detections by (N, 6) or (N, 7) rows, clipped to the image."""
        height, width = self.orig_shape
        self.boxes = Boxes(boxes.clone() if isinstance(boxes, Tensor) else boxes.copy(), self.orig_shape)
        self.boxes.data[:, 0:4:2] = self.boxes.data[:, 0:4:2].clip(0, width)
        self.boxes.data[:, 1:4:2] = self.boxes.data[:, 1:4:2].clip(0, height)

    def cpu(self) -> Results:
        """Return a copy with the boxes in main memory."""
        return self._with(self.boxes.cpu())

    def cuda(self) -> Results:
        """Return a copy with the boxes on the CUDA device."""
        return self._with(self.boxes.cuda())

    def numpy(self) -> Results:
        """Return a copy with the boxes in a numpy array."""
        return self._with(self.boxes.numpy())

    def to(self, *args: Any, **kwargs: Any) -> Results:
        """Return a copy with the boxes on another device or of another dtype, as `torch.Tensor.to`."""
        return self._with(self.boxes.to(*args, **kwargs))

    def _with(self, boxes: Boxes) -> Results:
        copy = self.new()
        copy.boxes = boxes
        return copy

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> Results:
        return self._with(self.boxes[index])

    def __iter__(self) -> Iterator[Results]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Results({self.path}: {self.verbose().removesuffix(', ')})"

    def plot(
        self,
        conf: bool = True,
        line_width: int | None = None,
        font_size: int | None = None,
        pil: bool = False,
        img: NDArray[np.uint8] | None = None,
        labels: bool = True,
        boxes: bool = True,
        show: bool = False,
        save: bool = False,
        filename: str | Path | None = None,
        **elsewhere: Any,
    ) -> Any:
        """Draw the detections.

        Args:
            conf: write confidences.
            line_width: px; by default after the size of the image.
            font_size: px; by default after `line_width`.
            pil: return a PIL image (RGB).
            img: draw on this (H, W, 3) BGR image instead of `orig_img`.
            labels: write class names.
            boxes: false = return the image without any drawing.
            show: also open a window, or show it in the notebook.
            save: also write the image.
            filename: where to; by default `results_<name of the image>`.
            **elsewhere: keywords known from other trainers, at values that ask for nothing: see `PLOT_WORDS`.

        Returns:
            (H, W, 3) uint8 BGR, a copy, or a PIL image.

        Raises:
            DataError: the image can't be written.
            MissingPackageError: pil=True without Pillow.
            SettingsError: show=True without a display, or a keyword whose value asks for what is not available.
            TypeError: an unknown keyword.
        """
        check_plot_words(elsewhere)
        line_width = None if line_width is None else max(round(line_width), 1)
        image = self.orig_img if img is None else img
        if boxes:
            found = self.boxes.numpy()
            drawn = draw_boxes(
                image, found.xyxy, found.cls, found.conf, self.names, line_width, font_size, labels, conf
            )
        else:
            drawn = image.copy()
        if show:
            show_image(drawn, self.path)
        if save:
            write_image(filename or self._default_filename(), drawn)
        return to_pil(drawn) if pil else drawn

    def show(self, **plot_settings: Any) -> None:
        """Show the image with its detections in the notebook, or in a window until a key is pressed.

        Raises:
            SettingsError: there is no display.
        """
        self.plot(show=True, **plot_settings)

    def _repr_png_(self) -> bytes:
        """Return the image with its detections for notebooks, shrunk if it is large."""
        return notebook_png(self.plot())

    def _repr_html_(self) -> str:
        """Return the image with its detections and what was found, for notebooks."""
        data = base64.b64encode(self._repr_png_()).decode()
        words = html.escape(f"{self.path}: {self.verbose().removesuffix(', ')}")
        return f'<figure><img src="data:image/png;base64,{data}"><figcaption>{words}</figcaption></figure>'

    def save(self, filename: str | Path | None = None, **plot_settings: Any) -> Path:
        """Write the image with its detections, by default to `results_<name of the image>`; return where.

        Raises:
            DataError: the file can't be written.
        """
        return write_image(filename or self._default_filename(), self.plot(**plot_settings))

    def _default_filename(self) -> Path:
        return Path(f"results_{writable_name(Path(self.path).name or 'image')}")

    def verbose(self) -> str:
        """Return the counts in words: "2 persons, 1 car, ", or "(no detections), "."""
        counts = Counter(int(number) for number in self.boxes.cls.tolist())
        if not counts:
            return "(no detections), "
        return "".join(
            f"{n} {shortened(self.names[c])}{'s' if n > 1 else ''}, " for c, n in sorted(counts.items())
        )

    def save_txt(self, path: str | Path, save_conf: bool = False) -> Path:
        """Append a line `class cx cy w h [confidence] [track id]` per detection, normalised.

        Returns:
            The path; without detections nothing is written to it.

        Raises:
            DataError: the file can't be written.
        """
        boxes = self.boxes.numpy()
        columns = [boxes.cls[:, None], boxes.xywhn]
        columns += [boxes.conf[:, None]] if save_conf else []
        columns += [boxes.id[:, None]] if boxes.id is not None else []
        lines = ["".join(("%g " * len(row)) % tuple(row)).rstrip() + "\n" for row in np.hstack(columns)]
        path = Path(path)
        if lines:
            with writing(path, "labels"), path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
        return path

    def save_crop(self, save_dir: str | Path, file_name: str | Path = "crop.jpg") -> list[Path]:
        """Cut every detection out of the image, enlarged by 2 % and 10 px.

        Args:
            save_dir: a crop goes to `<save_dir>/<class name>/<stem of file_name>.jpg`, the next one of the
                class to `<stem>-2.jpg` and so on.
            file_name: names the crops.

        Returns:
            The files written.

        Raises:
            DataError: a file can't be written.
        """
        height, width = self.orig_shape
        boxes = self.boxes.numpy()
        half = boxes.xywh[:, 2:] / 2 * CROP_GAIN + CROP_PAD / 2
        corners = np.concatenate([boxes.xywh[:, :2] - half, boxes.xywh[:, :2] + half], axis=1)
        corners = corners.clip(0, (width, height, width, height)).astype(int)
        written = []
        folders = distinct_file_names(self.names.values())
        for (x1, y1, x2, y2), number in zip(corners.tolist(), boxes.cls.tolist(), strict=True):
            if x2 <= x1 or y2 <= y1:  # a box beyond the image has nothing to show
                continue
            folder = Path(save_dir) / folders[self.names[int(number)]]
            path = free_path(folder / f"{Path(file_name).stem}.jpg")
            written.append(write_image(path, self.orig_img[y1:y2, x1:x2]))
        return written

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[dict[str, Any]]:
        """Return one dict per detection: name, class, confidence, box with x1, y1, x2, y2 (and track_id).

        Args:
            normalize: divide the corners by the size of the image.
            decimals: digits kept.
        """
        boxes = self.boxes.numpy()
        corners = (boxes.xyxyn if normalize else boxes.xyxy).astype(np.float64).round(decimals)
        rows: list[dict[str, Any]] = []
        for i, row in enumerate(corners.tolist()):
            number = int(boxes.cls[i])
            score = round(float(boxes.conf[i]), decimals)
            box = dict(zip(("x1", "y1", "x2", "y2"), row, strict=True))
            rows.append({"name": self.names[number], "class": number, "confidence": score, "box": box})
            if boxes.id is not None:
                rows[-1]["track_id"] = int(boxes.id[i])
        return rows

    def to_json(self, normalize: bool = False, decimals: int = 5) -> str:
        """Return `summary` as a JSON list."""
        return json.dumps(self.summary(normalize, decimals), indent=2, ensure_ascii=False)

    def to_csv(self, normalize: bool = False, decimals: int = 5) -> str:
        """Return `summary` as CSV, the corners in separate columns."""
        return rows_to_csv(self._flat_rows(normalize, decimals))

    def to_df(self, normalize: bool = False, decimals: int = 5) -> Any:
        """Return `summary` as a polars DataFrame, the corners in separate columns.

        Raises:
            MissingPackageError: polars is not installed.
        """
        return rows_to_df(self._flat_rows(normalize, decimals))

    def _flat_rows(self, normalize: bool, decimals: int) -> list[dict[str, Any]]:
        rows = self.summary(normalize, decimals)
        corners = [row.pop("box") for row in rows]
        return [{**row, **box} for row, box in zip(rows, corners, strict=True)]


def check_plot_words(given: dict[str, Any]) -> None:
    """Refuse what `plot` does not know, and what it knows from elsewhere but does not do.

    Raises:
        SettingsError: the value of a keyword asks for what is not available.
        TypeError: an unknown keyword.
    """
    for name, value in given.items():
        if name not in PLOT_WORDS:
            raise TypeError(f"plot() has no keyword {name!r}{nearest(name, [*PLOT_KEYWORDS, *PLOT_WORDS])}")
        known = PLOT_WORDS[name]
        if known is not None and value not in (known[0], None):
            raise SettingsError(f"{name}={value}: {known[1]}; leave {name} out")


PLOT_KEYWORDS = tuple(inspect.signature(Results.plot).parameters)[1:-1]


def free_path(path: Path) -> Path:
    """Return the path, or with -2, -3 ... before its suffix where that is taken."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return candidate


def to_pil(image: NDArray[np.uint8]) -> Any:
    """Turn a BGR array into a PIL image.

    Raises:
        MissingPackageError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("pil=True needs the pillow package: pip install pillow.") from error
    return Image.fromarray(image[..., ::-1])

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from detector.errors import DataError, SettingsError
from detector.results import Boxes, Results

NAMES = {0: "person", 1: "car", 2: "traffic/light"}
ROWS = [[10, 20, 50, 60, 0.9, 0], [30, 10, 90, 40, 0.8, 1], [0, 0, 20, 100, 0.5, 0]]


@pytest.fixture
def result():
    image = np.arange(100 * 200 * 3, dtype=np.uint32).reshape(100, 200, 3).astype(np.uint8)
    return Results(image, "folder/street.jpg", NAMES, torch.tensor(ROWS), {"inference": 1.5})


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_boxes_in_every_format(kind):
    boxes = Boxes(kind(ROWS), (100, 200))
    assert boxes.xywh[0].tolist() == [30, 40, 40, 40]
    assert boxes.xyxyn[0].tolist() == pytest.approx([0.05, 0.2, 0.25, 0.6])
    assert boxes.xywhn[0].tolist() == pytest.approx([0.15, 0.4, 0.2, 0.4])
    assert boxes.xyxy.tolist() == [row[:4] for row in ROWS]
    assert boxes.conf.tolist() == pytest.approx([0.9, 0.8, 0.5])
    assert boxes.cls.tolist() == [0, 1, 0]
    assert (
        boxes.id is None and not boxes.is_track and boxes.shape == (3, 6) and boxes.orig_shape == (100, 200)
    )


def test_boxes_index_and_iterate_as_boxes():
    boxes = Boxes(torch.tensor(ROWS), (100, 200))
    assert boxes[1].shape == (1, 6) and boxes[1].cls.tolist() == [1]
    assert len(boxes[boxes.conf > 0.6]) == 2 and len(boxes[1:]) == 2
    assert [box.conf.item() for box in boxes] == pytest.approx([0.9, 0.8, 0.5])


def test_boxes_convert_as_copies():
    boxes = Boxes(torch.tensor(ROWS), (100, 200))
    array = boxes.numpy()
    array.data[:] = 0
    assert isinstance(array.data, np.ndarray) and boxes.data[0, 0] == 10
    assert array.to(torch.float64).data.dtype == torch.float64
    assert boxes.cpu().data.device.type == "cpu"


def test_tracked_boxes_carry_ids():
    boxes = Boxes(torch.tensor([[0.0, 0, 9, 9, 17, 0.5, 1]]), (10, 10))
    assert boxes.is_track and boxes.id.tolist() == [17] and boxes.conf.tolist() == [0.5]
    with pytest.raises(ValueError, match=r"shape \(1, 5\)"):
        Boxes(torch.zeros(1, 5), (10, 10))


def test_results_are_subset_and_emptied(result):
    assert len(result) == 3 and result.orig_shape == (100, 200)
    assert len(result[0]) == 1 and len(result[result.boxes.cls == 0]) == 2
    assert result[1].verbose() == "1 car, " and result[1].orig_img is result.orig_img
    assert len(result.new()) == 0 and result.new().path == result.path
    assert isinstance(result.numpy().boxes.data, np.ndarray)
    assert (result.masks, result.probs, result.keypoints, result.obb) == (None, None, None, None)
    assert [len(part) for part in result] == [1, 1, 1]


def test_update_clips_to_the_image(result):
    result.update(torch.tensor([[-5.0, -5, 300, 300, 0.5, 1]]))
    assert result.boxes.xyxy.tolist() == [[0, 0, 200, 100]]


def test_verbose_counts_in_words(result):
    assert result.verbose() == "2 persons, 1 car, "
    assert result.new().verbose() == "(no detections), "
    assert repr(result) == "Results(folder/street.jpg: 2 persons, 1 car)"


def test_plot_draws_a_copy(result):
    before = result.orig_img.copy()
    drawn = result.plot()
    assert drawn.shape == before.shape and (drawn != before).any()
    assert (result.orig_img == before).all()
    assert (result.plot(boxes=False) == before).all()
    assert (result.plot(img=np.zeros((100, 200, 3), np.uint8), labels=False, conf=False)[45, 150] == 0).all()
    assert (np.asarray(result.plot(pil=True)) == drawn[..., ::-1]).all()


def test_saved_image_has_the_name_of_the_image(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert result.save().name == "results_street.jpg" and (tmp_path / "results_street.jpg").exists()
    path = result.save(tmp_path / "deep" / "a.png", labels=False)
    assert (cv2.imread(str(path)) == result.plot(labels=False)).all()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't write"):
        result.save(tmp_path / "file" / "a.png")


def test_save_txt_appends_normalised_rows(result, tmp_path):
    path = tmp_path / "labels" / "street.txt"
    assert result.save_txt(str(path)) == path
    result[1].save_txt(path, save_conf=True)
    assert path.read_text().splitlines() == [
        "0 0.15 0.4 0.2 0.4",
        "1 0.3 0.25 0.3 0.3",
        "0 0.05 0.5 0.1 1",
        "1 0.3 0.25 0.3 0.3 0.8",
    ]
    result.new().save_txt(tmp_path / "empty.txt")
    assert not (tmp_path / "empty.txt").exists()


def test_save_crop_cuts_slightly_more_than_the_box(result, tmp_path):
    paths = result.save_crop(tmp_path, "street.jpg")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "person/street.jpg",
        "car/street.jpg",
        "person/street-2.jpg",
    ]
    assert cv2.imread(str(paths[0])).shape == (51, 51, 3)  # 40 px x 1.02 + 10 px
    result.update(torch.tensor([[0.0, 0, 9, 9, 0.5, 2]]))
    assert result.save_crop(tmp_path)[0].parent.name == "traffic_light"


def test_summary_and_its_exports(result):
    rows = result.summary()
    assert rows[0] == {
        "name": "person",
        "class": 0,
        "confidence": 0.9,
        "box": {"x1": 10, "y1": 20, "x2": 50, "y2": 60},
    }
    assert result.summary(normalize=True)[1]["box"] == {"x1": 0.15, "y1": 0.1, "x2": 0.45, "y2": 0.4}
    assert json.loads(result.to_json()) == rows
    assert result.to_csv().splitlines()[:2] == [
        "name,class,confidence,x1,y1,x2,y2",
        "person,0,0.9,10.0,20.0,50.0,60.0",
    ]
    tracked = Results(result.orig_img, "a.jpg", NAMES, torch.tensor([[0.0, 0, 9, 9, 17, 0.5, 1]]))
    assert tracked.summary()[0]["track_id"] == 17


def test_classes_of_any_name_have_their_own_folders_of_crops(result, tmp_path):
    result.names = {0: "a/b", 1: "a:b", 2: "x" * 300}
    result.update(torch.tensor([[10.0, 10, 40, 40, 0.9, number] for number in range(3)]))
    folders = [path.parent.name for path in result.save_crop(tmp_path)]
    assert folders == ["a_b", "a_b-2", "x" * 120]


def test_a_class_name_does_nothing_to_a_terminal(result):
    result.names = {0: "evil\x1b[2J", 1: "x" * 300}
    assert result.verbose() == f"2 evil\\x1b[2Js, 1 {'x' * 57}..., "


def test_plot_takes_the_keywords_of_a_copied_call(result):
    plain = result.plot()
    assert (result.plot(masks=True, probs=False, kpt_radius=3, kpt_line=False, im_gpu=None) == plain).all()
    assert (result.plot(font="Arial.ttf", color_mode="class", txt_color=(255, 255, 255)) == plain).all()
    assert (result.plot(line_width=2.0) == result.plot(line_width=np.int64(2))).all()
    with pytest.raises(
        SettingsError, match="color_mode=instance: each class has its colour; leave color_mode out"
    ):
        result.plot(color_mode="instance")
    with pytest.raises(TypeError, match=r"plot\(\) has no keyword 'line_widht'; did you mean 'line_width'"):
        result.plot(line_widht=2)


def test_a_notebook_shows_the_image_with_its_detections(result):
    image = cv2.imdecode(np.frombuffer(result._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert (image == result.plot()).all()
    result.path = "<b>.jpg"
    text = result._repr_html_()
    assert (
        text.startswith('<figure><img src="data:image/png;base64,')
        and "&lt;b&gt;.jpg: 2 persons, 1 car" in text
    )


def test_a_notebook_gets_a_large_image_shrunk():
    large = Results(np.zeros((2560, 1280, 3), np.uint8), "a.jpg", {0: "dog"})
    shown = cv2.imdecode(np.frombuffer(large._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (1280, 640, 3)


def test_show_is_inline_in_a_notebook_and_a_window_elsewhere(result, monkeypatch):
    shown = []
    display = SimpleNamespace(display=shown.append, Image=lambda data: data)
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, __path__=[]))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    result.show()
    assert shown == [result._repr_png_()]
    del shell.kernel  # an IPython in a terminal
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SettingsError, match="needs a display"):
        result.show()

from __future__ import annotations

import cv2
import numpy as np
import pytest

from detector import drawing
from detector.drawing import class_color, draw_boxes, mosaic, place_labels, text_color, write_image
from detector.errors import DataError, SettingsError

GRAY = np.full((120, 160, 3), 128, np.uint8)


def test_boxes_are_drawn_in_the_colour_of_their_class_on_a_copy():
    drawn = draw_boxes(GRAY, [[20, 40, 100, 90]], [1], line_width=3, show_labels=False)
    assert tuple(drawn[60, 20]) == class_color(1)
    assert (drawn[55:80, 30:90] == 128).all()
    assert (GRAY == 128).all()


def test_the_highest_score_is_on_top():
    boxes = [[20, 40, 100, 90], [20, 40, 100, 90]]
    first = draw_boxes(GRAY, boxes, [0, 1], [0.9, 0.3], show_labels=False, show_conf=False)
    assert tuple(first[60, 20]) == class_color(0)


@pytest.mark.parametrize(
    "box", [[-30, -30, 40, 40], [150, 110, 400, 300], [60, 0, 70, 120], [0, 0, np.inf, np.nan], [5, 5, 5, 5]]
)
def test_labels_stay_inside_the_image(box, monkeypatch):
    fields = []
    rectangle = cv2.rectangle

    def spy(image, start, end, color, width, *rest):
        if width == cv2.FILLED:
            fields.append((*start, *end))
        return rectangle(image, start, end, color, width, *rest)

    monkeypatch.setattr(drawing.cv2, "rectangle", spy)
    draw_boxes(GRAY, [box], [0], [0.5], {0: "dog"})
    (x1, y1, x2, y2), *_ = fields
    assert 0 <= x1 < x2 < 160 and 0 <= y1 < y2 < 120


def shared_area(places, sizes):
    """The px that each two labels share."""
    first = np.array(places)
    last = first + np.array(sizes)
    common = np.minimum(last[:, None], last) - np.maximum(first[:, None], first)
    areas = common.clip(0).prod(-1)
    return areas[np.triu_indices(len(areas), 1)]


def test_a_label_is_above_its_box_where_it_is_alone():
    assert place_labels([[50, 60, 90, 90]], [(30, 10)], (100, 200), edge=1) == [(49, 49)]
    assert place_labels([], [], (100, 200)) == []


def test_labels_of_one_box_find_a_place_each():
    boxes, sizes = [[80, 40, 140, 90]] * 8, [(30, 12)] * 8
    places = place_labels(boxes, sizes, (120, 220), edge=1)
    assert not shared_area(places, sizes).any()
    assert places[-1] == (79, 27), "the last one, with the highest score, is above its box"
    assert places == place_labels(boxes, sizes, (120, 220), edge=1)


def test_labels_of_a_dense_image_stay_inside_and_share_little():
    random = np.random.default_rng(0)
    corners = random.integers(-40, 1000, (300, 2))
    boxes = np.concatenate([corners, corners + random.integers(10, 200, (300, 2))], 1).tolist()
    sizes = [(int(width), 20) for width in random.integers(30, 110, 300)]
    places = place_labels(boxes, sizes, (1000, 1000))
    first, last = np.array(places), np.array(places) + sizes
    assert first.min() >= 0 and last.max() <= 1000
    above = np.clip([(x, y - 20) for x, y, *_ in boxes], 0, 1000 - np.array(sizes))
    assert shared_area(places, sizes).sum() < shared_area(above, sizes).sum() / 4


def test_labels_larger_than_the_image_begin_at_its_corner():
    assert place_labels([[5, 5, 9, 9]], [(50, 30)], (20, 20)) == [(0, 0)]


def test_names_beyond_ascii_are_drawn_or_numbered(monkeypatch):
    box = [[20, 40, 100, 90]]
    number = draw_boxes(GRAY, box, [3], names={3: "class 3"})
    if hasattr(cv2, "FontFace"):
        assert (draw_boxes(GRAY, box, [3], names={3: "犬"}) != number).any()
        monkeypatch.delattr(cv2, "FontFace")  # OpenCV 4
        number = draw_boxes(GRAY, box, [3], names={3: "class 3"})
    assert (draw_boxes(GRAY, box, [3], names={3: "犬"}) == number).all()


def test_colors_of_48_classes_differ_and_carry_readable_text():
    assert len({class_color(n) for n in range(48)}) == 48
    assert text_color((255, 255, 255)) == (0, 0, 0) and text_color((90, 20, 20)) == (255, 255, 255)


def test_mosaic_puts_images_side_by_side_and_drops_padding():
    images = [np.full((3, 64, 96), level, np.uint8) for level in (40, 80, 120)]
    boxes = [[[10, 30, 60, 60], [0, 0, 0, 0]], [[10, 30, 60, 60]], np.zeros((0, 4))]
    labels = [[2, -1], [-1], []]
    grid = mosaic(images, boxes, labels, [[0.9, 0.9], [0.1], []], {2: "cat"}, size=2000)
    assert grid.shape == (128, 192, 3)
    assert tuple(grid[45, 10]) == class_color(2)
    assert (grid[1:63, 97:191] == 80).all()
    assert (grid[65:127, 1:95] == 120).all()


def test_mosaic_is_scaled_to_its_size_and_limited_in_number():
    images = np.zeros((5, 3, 100, 100), np.uint8)
    empty = [np.zeros((0, 4))] * 5
    titles = ["a" * 90 + ".jpg"] * 5
    assert mosaic(images, empty, [[]] * 5, titles=titles, max_images=4, size=150).shape == (150, 150, 3)
    assert mosaic([], [], []).ndim == 3


def test_small_images_are_enlarged_where_the_grid_has_room():
    images = np.full((4, 3, 64, 96), 80, np.uint8)
    boxes = [[[10, 30, 60, 60]], *[np.zeros((0, 4))] * 3]
    grid = mosaic(images, boxes, [[0], [], [], []], min_side=192)
    assert grid.shape == (256, 384, 3) and tuple(grid[100, 20]) == class_color(0)
    assert mosaic(images, boxes, [[0], [], [], []], size=288, min_side=192).shape == (192, 288, 3)


def test_mosaic_reads_rgb():
    image = np.zeros((3, 50, 50), np.uint8)
    image[0] = 200  # red
    assert mosaic([image], [[]], [[]])[25, 25].tolist() == [0, 0, 200]


def test_images_are_written_into_new_folders(tmp_path):
    path = write_image(tmp_path / "nów" / "a.png", GRAY)
    assert (cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) == 128).all()


def test_what_cannot_be_written_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't write the image"):
        write_image(tmp_path / "file" / "a.png", GRAY)
    with pytest.raises(DataError, match=r"can't write '.docx' images"):
        write_image(tmp_path / "a.docx", GRAY)


def test_showing_without_a_display_says_so(monkeypatch):
    monkeypatch.setattr(drawing.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SettingsError, match="needs a display"):
        drawing.show_image(GRAY, "a")

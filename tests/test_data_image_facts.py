import cv2
import numpy as np
import pytest

from detector.data import image_facts
from detector.data.image_facts import DEEP, GREY, SIDE, UNREAD, find_alike, known_contents, look_at


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))


def noise(seed, size=(96, 128)):
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def write(path, image):
    cv2.imwrite(str(path), image)
    return str(path)


def sizes(paths):
    return np.array([[96, 128]] * len(paths))


def test_what_is_known_of_an_image(tmp_path):
    paths = [
        write(tmp_path / "a.png", noise(0)),
        write(tmp_path / "b.png", noise(0)),
        write(tmp_path / "c.png", noise(1)[..., 0].astype(np.uint16) * 256),
        str(tmp_path / "none.png"),
    ]
    facts = look_at(paths, sizes(paths))
    assert facts.contents[0] == facts.contents[1] != facts.contents[2]
    assert facts.contents[3] == UNREAD
    assert facts.kinds.tolist() == [0, 0, DEEP | GREY, 0]
    assert facts.looks.shape == (4, SIDE * SIDE)


def test_only_changed_images_are_read_again(tmp_path, monkeypatch):
    paths = [write(tmp_path / f"{n}.png", noise(n)) for n in range(3)]
    assert known_contents(paths) is None
    first = look_at(paths, sizes(paths))
    write(tmp_path / "1.png", noise(9))
    known = known_contents(paths)
    assert known.tolist() == [first.contents[0], UNREAD, first.contents[2]]
    read, look = [], image_facts._look_at_one
    monkeypatch.setattr(image_facts, "_look_at_one", lambda path, size: read.append(path) or look(path, size))
    again = look_at(paths, sizes(paths))
    assert read == [paths[1]]
    assert again.contents[0] == first.contents[0]
    assert again.contents[1] != first.contents[1]


def test_alike_images_are_found_in_any_block(tmp_path, monkeypatch):
    monkeypatch.setattr(image_facts, "BLOCK", 3)
    paths = [write(tmp_path / f"{n}.png", noise(n)) for n in range(10)]
    others = [
        write(tmp_path / "x.jpg", noise(77)),
        write(tmp_path / "y.jpg", cv2.convertScaleAbs(noise(8), alpha=1.05, beta=5)),
        write(tmp_path / "z.png", np.full((96, 128, 3), 90, np.uint8)),
        write(tmp_path / "w.png", np.roll(noise(2), 1, 1)),
    ]
    looks = [look_at(some, sizes(some)).looks for some in (paths, others)]
    assert find_alike(looks[1], looks[0]).tolist() == [-1, 8, -1, 2]


def test_images_without_contrast_are_alike_to_none(tmp_path):
    paths = [write(tmp_path / f"{n}.png", np.full((96, 128, 3), 90 + n, np.uint8)) for n in range(2)]
    looks = look_at(paths, sizes(paths)).looks
    assert find_alike(looks[:1], looks[1:]).tolist() == [-1]

import pytest
from support.exports import SCENES, write_image

from detector.data import formats
from detector.data.config import load_data_config
from detector.data.formats import FileFormat
from detector.data.formats.coco import read_like_coco


class Mine:
    """The entry point of a package's own format: `name,class,x,y,width,height` after a first line "mine"."""

    name = "mine"

    def load(self):
        def is_one(path):
            return path.read_text().startswith("mine\n")

        def to_coco(text, path):
            rows = [line.split(",") for line in text.splitlines()[1:]]
            names = sorted({row[0] for row in rows})
            classes = sorted({row[1] for row in rows})
            return {
                "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
                "categories": [{"id": n, "name": name} for n, name in enumerate(classes)],
                "annotations": [
                    {
                        "id": n,
                        "image_id": names.index(row[0]),
                        "category_id": classes.index(row[1]),
                        "bbox": [float(value) for value in row[2:]],
                    }
                    for n, row in enumerate(rows)
                ],
            }

        def read(path, images):
            return read_like_coco(
                "mine", path, images, lambda _, where: to_coco(path.read_text(), where), load=False
            )

        return FileFormat("Mine", ".mine", is_one, read)


class Broken:
    name = "broken"

    def load(self):
        raise ImportError("no such thing")


@pytest.fixture
def plugins(monkeypatch):
    """Install a package with a format, and one with a broken one."""
    formats.all_formats.cache_clear()
    monkeypatch.setattr(formats, "entry_points", lambda group: [Mine(), Broken()])
    yield
    formats.all_formats.cache_clear()


def test_a_package_adds_a_format(plugins, tmp_path, train_tiny, monkeypatch, caplog):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))
    rows = ["mine"]
    for stem, objects in SCENES.items():
        write_image(tmp_path / "set" / f"{stem}.jpg")
        rows += [f"{stem}.jpg,{name},{x1},{y1},{x2 - x1},{y2 - y1}" for name, (x1, y1, x2, y2) in objects]
    path = tmp_path / "set/labels.mine"
    path.write_text("\n".join(rows))
    config = load_data_config(path)
    assert config.names == {0: "cat", 1: "dog"}
    assert {part.format for part in config.read_labels("train")} == {"Mine"}
    assert "the data format broken is left out: no such thing" in caplog.text
    assert "metrics/mAP50" in train_tiny(data=path, epochs=1).trainer.metrics

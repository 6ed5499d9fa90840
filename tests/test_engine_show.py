"""Image grids of what a training would see."""

import cv2
import numpy as np
import pytest
from support.training import train

from detector.cli import main
from detector.engine import show as module
from detector.engine.show import show
from detector.errors import DataError, SettingsError


@pytest.fixture
def drawn(monkeypatch):
    """Collect what is drawn: images, boxes, labels and titles of each grid."""
    grids = []
    mosaic = module.mosaic

    def noted(images, boxes, labels, **rest):
        grids.append((images, boxes, labels, rest["names"], rest["titles"]))
        return mosaic(images, boxes, labels, **rest)

    monkeypatch.setattr(module, "mosaic", noted)
    return grids


def paint(image, boxes, labels):
    image[:4] = (255, 0, 0)
    return image, boxes, labels


def test_the_samples_are_those_a_training_gets(drawn_dataset, tiny_model, tmp_path, drawn):
    seen = []
    settings = {"data": drawn_dataset, "imgsz": 96, "seed": 3, "degrees": 20.0, "batch": 4}

    def note(trainer):
        seen.append(
            (trainer.epoch, trainer.batch.images.clone().numpy(), trainer.batch.boxes.clone().numpy())
        )

    train(
        tiny_model, ("on_train_batch_start", note), project=tmp_path, epochs=3, close_mosaic=1, transforms=[paint],
        **settings,
    )  # fmt: skip
    for epoch in (0, 2):
        show(**settings, project=tmp_path, epochs=3, close_mosaic=1, transforms=[paint], epoch=epoch)
        images, boxes, *_ = drawn.pop()
        trained = [
            (image, rows)
            for at, some, all_rows in seen
            if at == epoch
            for image, rows in zip(some, all_rows, strict=True)
        ]
        assert len(images) == len(trained) == 8
        for image, rows, (expected, padded) in zip(images, boxes, trained, strict=True):
            np.testing.assert_array_equal(image, expected)
            np.testing.assert_array_equal(rows, padded[: len(rows)])
        assert all((image[0, :4] == 255).all() for image in images)


def test_grids_of_sixteen_are_written_into_a_run_folder_each_time_a_new_one(drawn_dataset, tmp_path):
    first = show(data=drawn_dataset, imgsz=64, project=tmp_path)
    again = show(data=drawn_dataset, imgsz=64, project=tmp_path)
    assert first == [tmp_path / "show/train0.jpg"]
    assert again == [tmp_path / "show-2/train0.jpg"]
    assert cv2.imread(str(first[0])).shape == (3 * 64, 3 * 64, 3)


def test_count_and_the_size_of_a_grid(drawn_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PER_GRID", 4)
    paths = show(data=drawn_dataset, imgsz=64, project=tmp_path, count=6)
    assert [path.name for path in paths] == ["train0.jpg", "train1.jpg"]
    assert [cv2.imread(str(path)).shape for path in paths] == [(128, 128, 3), (64, 128, 3)]


def test_validation_images_are_letterboxed_and_spread_over_the_split(drawn_dataset, tmp_path, drawn):
    paths = show(data=drawn_dataset, split="val", imgsz=96, project=tmp_path, count=2)
    ((images, boxes, labels, names, titles),) = drawn
    assert [path.name for path in paths] == ["val0.jpg"]
    assert titles == ["000000.jpg", "000003.jpg"]
    assert {image.shape[0] for image in images} == {3}
    assert all(len(rows) == len(ids) > 0 for rows, ids in zip(boxes, labels, strict=True))
    assert len(names) == 6


def test_of_a_fold_the_training_images_are_drawn(drawn_dataset, tmp_path, drawn):
    paths = [show(data=drawn_dataset, split=f"{k}/2", imgsz=64, project=tmp_path)[0] for k in (1, 2)]
    assert [path.name for path in paths] == ["train0.jpg", "train0.jpg"]
    assert len(drawn[0][0]) + len(drawn[1][0]) == 12


def test_data_settings_apply(drawn_dataset, tmp_path, drawn):
    show(data=drawn_dataset, imgsz=64, project=tmp_path, fraction=0.5, single_cls=True)
    images, _, labels, names, _ = drawn.pop()
    assert (len(images), names, set(np.concatenate(labels).tolist())) == (4, {0: "item"}, {0})
    show(data=drawn_dataset, imgsz=64, project=tmp_path, classes=[0], mosaic=0.0)
    assert set(np.concatenate(drawn.pop()[2]).tolist()) == {0}
    show(data=drawn_dataset, imgsz=160, project=tmp_path, rect=True, batch=2)
    assert len({image.shape for image in drawn.pop()[0]}) > 1


def test_images_with_wrong_labels_are_skipped_if_asked_for(tmp_path, drawn):
    from support.exports import EXPORTS

    EXPORTS["roboflow_yolo"](tmp_path / "set")
    (tmp_path / "set/train/labels/b.txt").write_text("0 5 5 5")
    with pytest.raises(DataError, match=r"b\.txt line 1: 4 columns"):
        show(data=tmp_path / "set", imgsz=64, project=tmp_path)
    assert not (tmp_path / "show").exists()
    show(data=tmp_path / "set", imgsz=64, project=tmp_path, errors="skip")
    assert drawn.pop()[4] == ["a.jpg"]


def test_the_command_prints_the_paths(drawn_dataset, tmp_path, capsys):
    assert (
        main(["show", f"data={drawn_dataset}", "imgsz=64", f"project={tmp_path}", "name=seen", "epochs=3"])
        == 0
    )
    assert capsys.readouterr().out == f"{tmp_path}/seen/train0.jpg\n"
    assert main(["show", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "all settings of train" in printed
    assert "lr0" not in printed


def test_an_epoch_beyond_the_last_is_refused(drawn_dataset, tmp_path):
    with pytest.raises(SettingsError, match=r"epoch=3: expected 0 to 2, as epochs=3"):
        show(data=drawn_dataset, imgsz=64, project=tmp_path, epochs=3, epoch=3)
    with pytest.raises(DataError, match="data= is missing"):
        show()


@pytest.mark.parametrize(("split", "shape"), [("train", (1, 64, 96)), ("val", (1, 96, 96))])
def test_grey_data_in_a_rectangular_input_are_drawn_as_the_network_sees_them(
    split, shape, drawn_dataset, tmp_path, drawn
):
    yaml = tmp_path / "grey.yaml"
    text = drawn_dataset.read_text().replace("path: data", f"path: {drawn_dataset.parent / 'data'}")
    yaml.write_text(f"{text}channels: 1\n")
    show(data=yaml, imgsz=[64, 96], split=split, count=4, project=tmp_path / "runs")
    ((images, *_),) = drawn
    assert {image.shape for image in images} == {shape}

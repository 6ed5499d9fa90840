import pytest
from support.models import assert_same_boxes

from detector import YOLO
from detector.errors import ExportError, ModelError, SettingsError


@pytest.fixture
def exported_with_nms(exported):
    """An ONNX file with suppression inside, opened."""
    return YOLO(exported(format="onnx", nms=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"imgsz": 64}, "imgsz=64: best.onnx takes 96 x 96 px only; leave imgsz out"),
        ({"rect": True}, "rect=true: best.onnx takes 96 x 96 px only"),
        ({"conf": 0.1}, r"conf=0.1: expected conf >= 0.25, which best.onnx was exported with"),
        ({"iou": 0.5}, r"iou=0.5: expected iou=0.7"),
        ({"max_det": 500}, "max_det=500: expected max_det <= 300"),
        ({"agnostic_nms": True}, "agnostic_nms=true: expected false"),
        ({"nms": False}, "nms=false: best.onnx holds the one2many head"),
        ({"device": 0}, "device=0: "),
        ({"amp": "bf16"}, "amp=bf16: best.onnx computes in fp32, as it was exported"),
        ({"names": ["a"]}, r"names=\[a\]: best.onnx has \[disc,"),
    ],
)
def test_settings_that_contradict_a_file_are_refused(settings, message, exported_with_nms, sample_image):
    with pytest.raises(SettingsError, match=message):
        exported_with_nms.predict(sample_image, verbose=False, **settings)


def test_validation_warns_of_a_threshold_inside_the_file(exported_with_nms, drawn_dataset, tmp_path, caplog):
    with caplog.at_level("WARNING", "detector"):
        exported_with_nms.val(data=drawn_dataset, plots=False, project=tmp_path)
    assert "best.onnx gives detections from conf=0.25 up" in caplog.text


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ExportError, match=r"exported file 'nowhere.onnx' does not exist: looked at /"):
        YOLO("nowhere.onnx")
    (tmp_path / "empty_openvino").mkdir()
    with pytest.raises(ExportError, match=r"expected a folder with one .xml file"):
        YOLO(tmp_path / "empty_openvino")


def test_an_exported_file_is_not_trained_changed_or_exported(trained, drawn_dataset, tmp_path):
    opened = YOLO(trained.export(format="torchscript", imgsz=96, verbose=False))
    for call in (
        lambda: opened.train(data=drawn_dataset),
        lambda: opened.load(tmp_path / "best.pt"),
        lambda: opened.save(tmp_path / "other.pt"),
        lambda: opened.export(format="onnx"),
        lambda: opened.info(),
    ):
        with pytest.raises(
            ExportError, match="an exported file predicts and validates only; to train, change or export"
        ):
            call()
    with pytest.raises(SettingsError, match="names= and imgsz= are for exported files"):
        YOLO(tmp_path / "best.pt", imgsz=96)


def test_ids_that_json_wrote_as_text_are_the_ids(exported):
    path = exported(format="torchscript")
    names = YOLO(path).names
    assert YOLO(path, names={str(number): name for number, name in names.items()}).names == names


def test_a_single_head_has_no_nms_free_form(trained, sample_image):
    path = trained.export(format="torchscript", nms=False, imgsz=96, verbose=False)
    assert YOLO(path).exported.contract.kind == "raw", "raw output, as the head has it"
    with pytest.raises(ModelError):
        trained.predict(sample_image, nms=False)


def test_an_oblong_file_predicts_and_validates(trained, sample_image, drawn_dataset, tmp_path):
    opened = YOLO(trained.export(format="torchscript", imgsz=[64, 96], verbose=False))
    (mine,) = trained.predict(sample_image, imgsz=[64, 96], rect=False, amp=False, verbose=False, conf=0.1)
    (theirs,) = opened.predict(sample_image, verbose=False, conf=0.1)
    assert_same_boxes(mine, theirs)
    opened.val(data=drawn_dataset, plots=False, verbose=False, project=tmp_path)
    assert opened.validator.settings.imgsz == [64, 96]
    with pytest.raises(SettingsError, match="takes 64 x 96 px only"):
        opened.val(data=drawn_dataset, imgsz=96, project=tmp_path)


def test_a_single_class_name_is_not_a_list_of_letters():
    from detector.inference.exported_backend import enumerate_names

    assert dict(enumerate_names("cat")) == {0: "cat"}
    assert dict(enumerate_names(["cat", "dog"])) == dict(enumerate_names({0: "cat", 1: "dog"}))

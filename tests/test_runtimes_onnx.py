import cv2
import pytest
import torch
from support.models import assert_same_boxes

from detector import YOLO
from detector.cli import main
from detector.data.drawn import FORMS
from detector.errors import ExportError


def strip(path, tmp_path):
    """Copy an ONNX file without its metadata."""
    import onnx

    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    return tmp_path / "bare.onnx"


def test_a_file_without_metadata_works_when_names_and_size_are_given(
    trained, exported, sample_image, tmp_path
):
    bare = strip(exported(format="onnx"), tmp_path)
    with pytest.raises(ExportError, match=r"bare.onnx: was not exported by detector.*give names= and imgsz="):
        YOLO(bare)
    settings = {"verbose": False, "conf": 0.1}
    (mine,) = trained.predict(sample_image, imgsz=96, rect=False, amp=False, **settings)
    (theirs,) = YOLO(bare, names=FORMS[:6], imgsz=96).predict(sample_image, **settings)
    assert_same_boxes(mine, theirs)
    cv2.imwrite(str(tmp_path / "p.png"), sample_image)
    names = "names=" + ",".join(FORMS[:6])
    words = [f"model={bare}", names, "imgsz=96", f"source={tmp_path / 'p.png'}", f"project={tmp_path}"]
    assert main(["predict", *words]) == 0
    with pytest.raises(ExportError, match=r"expected \(B, 6, A\).*do names= name all classes"):
        YOLO(bare, names=["cat", "dog"], imgsz=96)
    with pytest.raises(ExportError, match=r"takes images of 96 x 96 px; give imgsz=\[96,96\]"):
        YOLO(bare, names=FORMS[:6], imgsz=64)


def test_torch_keeps_its_threads(exported, sample_image):
    opened = YOLO(exported(format="onnx"))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    inside = []
    opened.add_callback("on_predict_batch_end", lambda predictor: inside.append(torch.get_num_threads()))
    opened.predict(sample_image, verbose=False)
    assert inside == [2] and torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_file_of_two_inputs_is_refused(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "sum", ports[:2], ports[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "sum.onnx")
    with pytest.raises(
        ExportError, match=r"has 2 inputs and 1 outputs; expected a detector with one of each"
    ):
        YOLO(tmp_path / "sum.onnx", names=["a"], imgsz=32)

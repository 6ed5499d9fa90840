import json

from detector.data.drawn import FORMS


def test_what_a_file_says_of_itself(trained):
    path = trained.export(format="onnx", batch=2, licence="CC-BY-4.0", imgsz=96, verbose=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["detector"])
    assert metadata == trained.exporter.metadata
    assert metadata["names"] == {str(n): name for n, name in enumerate(FORMS[:6])}
    assert (metadata["stride"], metadata["imgsz"], metadata["batch"]) == (32, [96, 96], 2)
    assert (metadata["task"], metadata["head"], metadata["licence"]) == ("detect", "one2many", "CC-BY-4.0")
    assert metadata["input"]["shape"] == [2, 3, 96, 96]
    assert metadata["output"]["kind"] == "raw"
    assert metadata["parity"]["pictures"] == 4
    assert [node.name for node in (*session.get_inputs(), *session.get_outputs())] == ["images", "preds"]

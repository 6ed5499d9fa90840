import numpy as np

from detector.data import scan
from detector.data.formats import FileFormat
from detector.data.labels import Labels


def test_a_label_file_is_read_once_within_a_block(tmp_path, monkeypatch):
    calls = []

    def read(path, images):
        calls.append(path)
        empty = np.zeros(0, np.int64)
        return Labels(
            [],
            [],
            empty,
            empty,
            empty,
            np.zeros((0, 4)),
            np.zeros(0, np.uint8),
            np.zeros((0, 2), np.int64),
            empty,
        )

    known = FileFormat("ours", ".ours", lambda path: True, read)
    monkeypatch.setattr(scan, "all_formats", lambda: {"ours": known})
    monkeypatch.setattr(scan, "file_format", lambda path: known)
    entry = tmp_path / "a.ours"
    with scan.reading_once():
        scan.split_images([entry])
        with scan.reading_once():  # such blocks may be nested
            scan.read_labels([entry], [])
        scan.read_labels([entry], [])
    assert len(calls) == 1
    scan.split_images([entry])
    assert len(calls) == 2

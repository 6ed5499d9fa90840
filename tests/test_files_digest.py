import hashlib

import pytest

from detector.files import digest
from detector.files.digest import file_sha256


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_the_checksum_is_that_of_all_bytes_whatever_is_read_at_once(tmp_path, monkeypatch, size):
    monkeypatch.setattr(digest, "PART", 3)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(size)))
    assert file_sha256(path) == hashlib.sha256(bytes(range(size))).hexdigest()

import cv2
import numpy as np
import pytest

from detector.data.annotations import build_annotations
from detector.data.formats.table import is_table, read_table
from detector.errors import DataError

NAMES = {0: "cat", 1: "dog"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path):
    """Write a table next to an image of 60 x 40 px, a.jpg; returns its path."""

    def writer(text):
        cv2.imwrite(str(tmp_path / "a.jpg"), np.full((40, 60, 3), 90, np.uint8))
        (tmp_path / "x.csv").write_bytes(text.encode())
        return tmp_path / "x.csv"

    return writer


@pytest.mark.parametrize(
    "text",
    [
        'image,class,bbox\na,dog,"[6, 4, 30, 20]"\n',
        "XMin,YMin,XMax,YMax,filename,label\n6,4,36,24,a.jpg,dog\n",
        "label,x1,y1,x2,y2,path\r\ndog,6,4,36,24,images/a.jpg\r\n",
        "x_min,y_min,x_max,y_max,img,name\r6,4,36,24,a,dog\r",
    ],
)
def test_columns_in_any_order_and_lines_of_any_system_are_read(write, text):
    path = write(text)
    assert is_table(path)
    found = build_annotations(read_table(path), NAMES)
    assert found.labels.tolist() == [1]
    np.testing.assert_allclose(found.boxes, [[21 / 60, 14 / 40, 0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("dog", "line 3: 'dog' is not a box of four numbers"),
        ('"""dog"""', """line 3: '"dog"' is not a box of four numbers"""),
        ("5", "line 3: '5' is not a box of four numbers"),
        ("null", "line 3: 'null' is not a box of four numbers"),
        ('"{""x"": 1}"', "line 3: '{\"x\": 1}' is not a box of four numbers"),
        ('"[1, 2, 3]"', "line 3: '[1, 2, 3]' is not a box of four numbers"),
        ('"[1, 2, 3, null]"', "line 3: '[1, 2, 3, null]' is not a box of four numbers"),
        ('"[1, 2, 3, [4]]"', "line 3: '[1, 2, 3, [4]]' is not a box of four numbers"),
        ("[" * 100_000, "is not a box of four numbers"),
        ("9" * 5000, "is not a box of four numbers"),
        ("9" * 200_000, "line 3: field larger than field limit"),
        ('"[1, 2, 3, NaN]"', "line 3: bbox is [1, 2, 3, nan]; expected 4 numbers, px"),
        ('"[1, 2, -3, 4]"', "line 3: bbox is [1, 2, -3, 4]; expected x, y, width and height, px"),
        ('"[100, 2, 3, 4]"', "line 3: corners 100, 2, 103, 6 are not those of a box in 60 x 40 px"),
    ],
)
def test_a_wrong_box_is_named_with_its_line(write, box, message):
    path = write(f'image,class,bbox\na.jpg,dog,"[1, 2, 3, 4]"\na.jpg,cat,{box}\n')
    with pytest.raises(DataError) as caught:
        build_annotations(read_table(path), NAMES)
    assert str(caught.value).startswith(f"{path} line 3: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,dog,1,2,3", "line 2: 5 columns; the first line has more"),
        ("a.jpg,dog,1,2,x,4", "line 2: '1, 2, x, 4' is not a box of four numbers"),
        ("a.jpg,dog,1,2,,4", "line 2: '1, 2, , 4' is not a box of four numbers"),
        (",dog,1,2,3,4", "line 2: '' is not the name of an image"),
        ("..,dog,1,2,3,4", "line 2: '..' is not the name of an image"),
        ("a.jpg,bird,1,2,3,4", "line 2: class 'bird', but the data file names cat, dog"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(write, row, message):
    path = write(f"filename,class,xmin,ymin,xmax,ymax\n{row}\n")
    with pytest.raises(DataError) as caught:
        build_annotations(read_table(path), NAMES)
    assert str(caught.value).startswith(f"{path} line 2: ")
    assert message in str(caught.value)


def test_images_that_are_not_there_are_said_to_be_missing(write, tmp_path):
    path = write('image,bbox\na.jpg,"[1, 2, 3, 4]"\n')
    with pytest.raises(DataError, match=r"no image of it is found, such as 'a\.jpg'; looked in .*/none"):
        read_table(path, tmp_path / "none")

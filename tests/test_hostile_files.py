"""Files written to do harm: no code runs, no other files appear, and each ends in one sentence."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.ultralytics_files import ultralytics_network, write_program, write_ultralytics

from detector import YOLO
from detector.checkpoints.checkpoint import FORMAT, load_checkpoint, read_weights, save_checkpoint
from detector.checkpoints.safetensors_file import read_tensor_file
from detector.checkpoints.torch_zip import append_checksum
from detector.checkpoints.ultralytics import read_ultralytics_checkpoint
from detector.data.config import load_data_config
from detector.errors import CheckpointError, DataError, DetectorError, ModelError
from detector.files.archives import unpack
from detector.nn.model import DetectionModel, load_model_config
from detector.runtimes.contract import contract_of
from detector.version import __version__

MARK = "code-has-run"
SHELL = f"touch {MARK}".encode()
PYTHON = f"open({MARK!r}, 'w')".encode()


@pytest.fixture(autouse=True)
def _scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder; afterwards no code has run and no module came in."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    before = set(sys.modules)
    yield
    assert not list(tmp_path.rglob(MARK))
    assert not {name for name in set(sys.modules) - before if name in ("this", "antigravity", "turtle")}


def sentence(read: Callable[[Path], Any], path: Path) -> str:
    """Return the one sentence a file is refused with; it takes little memory and leaves nothing behind."""
    before = sorted(path.parent.rglob("*"))
    tracemalloc.start()
    try:
        with pytest.raises(DetectorError) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000_000
    assert sorted(path.parent.rglob("*")) == before
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert len(text) < 600
    return text


# ---- pickles ------------------------------------------------------------------------------------------


def text(words: bytes) -> bytes:
    """Program text that puts a string on the stack."""
    return b"X" + struct.pack("<I", len(words)) + words


def call(function: bytes, *arguments: bytes) -> bytes:
    """Program text that calls a function, such as "os system", with what the arguments leave on the stack."""
    module, _, name = function.partition(b" ")
    return b"c" + module + b"\n" + name + b"\n(" + b"".join(arguments) + b"tR"


def tensor(offset: bytes, sizes: bytes, strides: bytes) -> bytes:
    """Program text that makes a tensor over a storage of four numbers."""
    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu") + b"K\x04tQ"
    return call(
        b"torch._utils _rebuild_tensor_v2", storage, offset, b"(" + sizes + b"t", b"(" + strides + b"t"
    )


SYSTEM = call(b"os system", text(SHELL))
LARGE = b"J\xff\xff\xff\x7f"
DEFAULTS = text(b"__defaults__") + b")s"  # a dict with one item
PROGRAMS = {
    "os.system": SYSTEM,
    "posix.system": call(b"posix system", text(SHELL)),
    "subprocess": call(b"subprocess check_output", b"(" + text(b"touch") + text(MARK.encode()) + b"l"),
    "eval": call(b"builtins eval", text(PYTHON)),
    "exec": call(b"__builtin__ exec", text(PYTHON)),
    "runpy": call(b"runpy run_path", text(b"a.py")),
    "import": call(b"builtins __import__", text(b"antigravity")),
    "module with a side effect": b"cthis\ns\n",
    "pickle inside a pickle": call(
        b"pickle loads", call(b"_codecs encode", text(SYSTEM + b"."), text(b"latin-1"))
    ),
    "torch.load": call(b"torch load", text(b"other.pt")),
    "torch.hub": call(b"torch.hub load", text(b"someone/repository"), text(b"model")),
    "numpy": call(b"numpy load", text(b"other.npy")),
    "getattr chain": b"cbuiltins\ngetattr\n(" + call(b"builtins __import__", text(b"os")) + text(b"system")
    + b"tR(" + text(SHELL) + b"tR",
    "dotted name": b"\x80\x04\x8c\x02os\x8c\x06system\x93(" + text(SHELL) + b"tR",
    "attribute path": b"\x80\x04\x8c\x06shutil\x8c\x09os.system\x93(" + text(SHELL) + b"tR",
    "partial": call(b"functools partial", b"cos\nsystem\n", text(SHELL)) + b")R",
    "nested reduce": b"cbuiltins\nlist\n(" + call(b"builtins map", b"cos\nsystem\n", b"(" + text(SHELL) + b"l") + b"tR",
    "instance": b"(" + text(SHELL) + b"ios\nsystem\n",
    "object": b"(cos\nsystem\n" + text(SHELL) + b"o",
    "new object": b"cos\nsystem\n(" + text(SHELL) + b"t\x81",
    "state of a function": b"ctorch._utils\n_rebuild_tensor_v2\n}" + DEFAULTS + b"b",
    "slots of a function": b"ctorch._utils\n_rebuild_tensor_v2\n(N}" + DEFAULTS + b"tb",
    "state of a class": b"ccollections\nOrderedDict\n(N}" + DEFAULTS + b"tb",
    "state of a storage kind": b"ctorch\nFloatStorage\n}" + DEFAULTS + b"b",
    "registered extension": b"\x82\x01",
    "file as storage": b"(" + text(b"file") + text(b"/etc/passwd") + b"tQ",
    "storage by text": b"P/etc/passwd\n",
    "persistent object": SYSTEM + b"Q",
    "tensor past its storage": tensor(b"K\0", b"K\x05", b"K\x01"),
    "tensor over and over its storage": tensor(b"K\0", LARGE + LARGE, b"K\0K\0"),
    "tensor before its storage": tensor(b"J\xff\xff\xff\xff", b"K\x01", b"K\x01"),
    "tensor of a negative stride": tensor(b"K\x03", b"K\x02", b"J\xff\xff\xff\xff"),
    "tensor of a hundred dimensions": tensor(b"K\0", b"K\x01" * 100, b"K\x01" * 100),
    "memo place in the billions": b"Nr\xff\xff\xff\xff",
    "bytes without end": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x0f",
    "byte array without end": b"\x96\0\0\0\0\0\1\0\0",
    "text longer than the file": b"X\xff\xff\xff\xff",
    "number without end": b"L" + b"9" * 100_000 + b"L\n",
    "nothing": b"",
    "no stop": b"}}}",
    "stack underflow": b"0000",
    "unknown opcode": b"\xff",
    "deep": b"]" * 20_000 + b"a" * 19_999,
    "text": b"hello",
    "many classes": b"".join(b"cm\nf%d\n" % n for n in range(5000)),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_pickle_runs_code(tmp_path: Path, name: str) -> None:
    program = PROGRAMS[name]
    bodies = [program + b".", b"\x80\x02" + program + b".", b"\x80\x02}X\x05\0\0\0model" + program + b"s."]
    for number, body in enumerate(bodies):
        path = write_program(tmp_path / "place" / f"{number}.pt", body, {"0": bytes(16)})
        sentence(read_ultralytics_checkpoint, path)
        sentence(read_weights, path)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.startswith("tensor")])
def test_tensors_stay_inside_their_storage(tmp_path: Path, name: str) -> None:
    path = write_program(tmp_path / "a.pt", b"\x80\x02" + PROGRAMS[name] + b".", {"0": bytes(16)})
    assert "a tensor " in sentence(read_ultralytics_checkpoint, path)
    good = tensor(b"K\0", b"K\x04", b"K\x01")
    path = write_program(tmp_path / "good.pt", b"\x80\x02" + good + b".", {"0": bytes(16)})
    assert "holds a single tensor" in sentence(read_ultralytics_checkpoint, path)


@pytest.mark.parametrize(
    "name", ["os.system", "eval", "getattr chain", "nested reduce", "partial", "new object"]
)
def test_a_call_hidden_in_a_good_network_is_an_inert_placeholder(
    tmp_path: Path, tiny_model: Path, name: str
) -> None:
    network = ultralytics_network(DetectionModel(load_model_config(tiny_model)))
    path = write_ultralytics(tmp_path / "good.pt", network)
    with zipfile.ZipFile(path) as archive:
        program = archive.read("good/data.pkl")
        storages = {n.rpartition("/")[2]: archive.read(n) for n in archive.namelist() if "/data/" in n}
    hidden = program[:2] + PROGRAMS[name] + b"0" + program[2:]  # run, then dropped from the stack
    content = read_ultralytics_checkpoint(write_program(tmp_path / "hidden.pt", hidden, storages))
    assert len(content["weights"]) == len(read_ultralytics_checkpoint(path)["weights"])


class Shell:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (SHELL.decode(),)


@pytest.mark.parametrize("place", ["model", "names", "yaml", "train_args", "weights"])
def test_objects_of_a_class_with_a_reduce_are_never_called(
    tmp_path: Path, tiny_model: Path, place: str
) -> None:
    network = ultralytics_network(DetectionModel(load_model_config(tiny_model)))
    changes: dict[str, Any] = {}
    if place == "weights":
        network._modules["model"][0]._modules["conv"]._parameters["weight"] = Shell()
    elif place in ("names", "yaml"):
        setattr(network, place, Shell())
    else:
        changes[place] = Shell()
    path = write_ultralytics(tmp_path / "place" / "a.pt", network, **changes)
    if place == "train_args":  # not needed: read without it
        assert read_ultralytics_checkpoint(path)["settings"] == {}
    else:
        sentence(read_ultralytics_checkpoint, path)


def test_networks_that_share_themselves_end(tmp_path: Path, tiny_model: Path) -> None:
    network = ultralytics_network(DetectionModel(load_model_config(tiny_model)))
    level: Any = network._modules["model"][0]
    for _ in range(40):  # 2^40 paths to one layer
        outer = type(level).__new__(type(level))
        outer.__dict__.update({"_modules": {"a": level, "b": level}})
        level = outer
    network._modules["more"] = level
    assert "more than 20,000 modules" in sentence(
        read_ultralytics_checkpoint, write_ultralytics(tmp_path / "a.pt", network)
    )
    network._modules["more"] = network
    assert "more than 20,000 modules" in sentence(
        read_ultralytics_checkpoint, write_ultralytics(tmp_path / "a.pt", network)
    )


def test_tables_that_share_themselves_end(tmp_path: Path, tiny_model: Path) -> None:
    network = ultralytics_network(DetectionModel(load_model_config(tiny_model)))
    level: Any = ["x"]
    for _ in range(9):
        level = [level] * 50
    network.yaml["more"] = level
    assert "has no end" in sentence(
        read_ultralytics_checkpoint, write_ultralytics(tmp_path / "a.pt", network)
    )


def test_one_storage_as_thousands_of_weights_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    network = ultralytics_network(DetectionModel(load_model_config(tiny_model)))
    wide = torch.zeros(1 << 20)
    network._modules["model"][0]._parameters = {f"p{n}": wide for n in range(5000)}
    assert "larger than the file" in sentence(
        read_ultralytics_checkpoint, write_ultralytics(tmp_path / "a.pt", network)
    )


# ---- containers ---------------------------------------------------------------------------------------


def zipped(path: Path, *entries: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, body in entries:
            archive.writestr(name, body)
    return path


@pytest.mark.parametrize("read", [read_ultralytics_checkpoint])
def test_containers_that_torch_does_not_write_are_refused(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    bomb = zipped(
        tmp_path / "bomb.pt", ("a/data.pkl", b"\x80\x02}."), ("a/data/0", bytes(50_000_000)),
        method=zipfile.ZIP_DEFLATED,
    )  # fmt: skip
    assert "has compressed or encrypted entries" in sentence(read, bomb)
    assert "without a checkpoint in it" in sentence(read, zipped(tmp_path / "a.pt", ("x", b"y")))
    two = zipped(tmp_path / "two.pt", ("a/data.pkl", b"}."), ("b/data.pkl", b"}."))
    assert "without a checkpoint in it" in sentence(read, two)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped(tmp_path / "twice.pt", ("a/data.pkl", b"}."), ("a/data.pkl", b"}."))
    assert "two entries of one name" in sentence(read, twice)


def test_entries_that_lie_on_each_other_are_refused(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "a.pt", ("a/data.pkl", b"\x80\x02}."), *[(f"a/data/{n}", bytes(50)) for n in range(9)]
    )
    with zipfile.ZipFile(path, "a") as archive:
        large = archive.infolist()[1]
        large.file_size = large.compress_size = 10_000
        archive._didModify = True  # the list of entries is written again
    assert "promises more than its" in sentence(read_ultralytics_checkpoint, path)


def test_a_large_pickle_is_refused_unread(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.pt", ("a/data.pkl", b"]" + b"N" * (33 << 20)))
    assert "describes its content in more than" in sentence(read_ultralytics_checkpoint, path)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x03\x04", b"PK\x03\x04" + b"x" * 500, b"\x7fELF", b"MZ" * 9]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    sentence(read_ultralytics_checkpoint, path)
    sentence(read_weights, path)
    sentence(read_tensor_file, path)


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps(Shell(), protocol=2))
    sentence(read_ultralytics_checkpoint, path)
    sentence(read_weights, path)


# ---- YAML ---------------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
YAMLS = {
    "tag": f"train: !!python/object/apply:os.system ['{SHELL.decode()}']\nval: x\nnc: 1",
    "tag of a name": "train: !!python/name:os.system\nval: x\nnc: 1",
    "aliases": BOMB,
    "aliases as names": BOMB + "train: x\nval: y\nnames: *a29\n",
    "deep": "train: " + "[" * 10_000,
    "large": "# " + "x" * (2 << 20),
    "long number": f"nc: {'9' * 10_000}\ntrain: x\nval: x",
    "binary": "\x00\x01\x02",
    "no map": "- 1",
}


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_is_plain_data_within_limits(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(YAMLS[name], encoding="utf-8")
    for read in (load_data_config, load_model_config):
        sentence(read, path)


@pytest.mark.parametrize(
    "download",
    ["import os; os.system('touch code-has-run')", "bash -c 'touch code-has-run'", "file:///etc/passwd"],
)
def test_a_download_key_is_never_run(tmp_path: Path, download: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"path: data\ntrain: x\nval: y\nnc: 1\ndownload: |\n  {download}\n")
    assert "commands and code in a data file are never run" in sentence(load_data_config, path)


# ---- archives -----------------------------------------------------------------------------------------


def tarred(path: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.size = kind, link, 2 if kind == tarfile.REGTYPE else 0
        archive.addfile(entry, io.BytesIO(b"hi"))
    return path


def linked_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc")
    return path


ARCHIVES: dict[str, Callable[[Path], Path]] = {
    "up": lambda folder: zipped(folder / "a.zip", (f"../{MARK}", b"x")),
    "up inside": lambda folder: zipped(folder / "a.zip", (f"x/../../{MARK}", b"x")),
    "absolute": lambda folder: zipped(folder / "a.zip", (f"{folder}/{MARK}", b"x")),
    "backslash": lambda folder: zipped(folder / "a.zip", (f"..\\{MARK}", b"x")),
    "drive": lambda folder: zipped(folder / "a.zip", (f"C:/{MARK}", b"x")),
    "link": lambda folder: linked_zip(folder / "a.zip"),
    "tar up": lambda folder: tarred(folder / "a.tar", f"../{MARK}"),
    "tar absolute": lambda folder: tarred(folder / "a.tar", f"{folder}/{MARK}"),
    "tar link": lambda folder: tarred(folder / "a.tar", "x", tarfile.SYMTYPE, "/etc"),
    "tar hard link": lambda folder: tarred(folder / "a.tar", "x", tarfile.LNKTYPE, "/etc/passwd"),
    "tar device": lambda folder: tarred(folder / "a.tar", "x", tarfile.CHRTYPE),
    "tar pipe": lambda folder: tarred(folder / "a.tar", "x", tarfile.FIFOTYPE),
    "long name": lambda folder: zipped(folder / "a.zip", ("x" * 5000, b"x")),
    "no archive": lambda folder: zipped(folder / "a.tar", ("x", b"x")),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = ARCHIVES[name](tmp_path / "in")
    sentence(lambda archive: unpack(archive, tmp_path / "in" / "out"), path)


def test_an_archive_bomb_ends_at_its_limit(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", ("zeros", bytes(30_000_000)), method=zipfile.ZIP_DEFLATED)
    read = lambda archive: unpack(archive, tmp_path / "out", max_bytes=10_000_000)  # noqa: E731
    assert "unpacks to more bytes than allowed" in sentence(read, path)


# ---- what the errors are -------------------------------------------------------------------------------


def test_each_kind_of_file_has_its_error(tmp_path: Path) -> None:
    for read, kind in ((load_data_config, DataError), (load_model_config, ModelError)):
        (tmp_path / "a.yaml").write_text("!!python/name:os.system")
        with pytest.raises(kind):
            read(tmp_path / "a.yaml")
    with pytest.raises(CheckpointError):
        read_ultralytics_checkpoint(write_program(tmp_path / "a.pt", b"}."))


# ---- small files that ask for endless work --------------------------------------------------------------


def write_unchecked(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint as somebody else might: whatever it holds, with a right checksum."""
    with path.open("w+b") as file:
        torch.save({"format": FORMAT, "version": __version__} | content, file)
        append_checksum(file)


def test_a_checkpoint_of_lists_that_share_themselves_ends(tmp_path: Path, finder_weights: Path) -> None:
    content = load_checkpoint(finder_weights)
    shared: list[Any] = ["x"]
    for _ in range(25):
        shared = [shared, shared]
    for place in ("settings", "metrics", "model"):
        write_unchecked(tmp_path / "a.pt", content | {place: content[place] | {"names": shared}})
        assert "asks for too much: more than 200,000 values" in sentence(read_weights, tmp_path / "a.pt")
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    write_unchecked(tmp_path / "a.pt", content | {"settings": {"deep": deep}})
    assert "levels; at most 32 are read" in sentence(read_weights, tmp_path / "a.pt")


@pytest.mark.parametrize("reg_max", [2_000_000_000, 10_000_000])
def test_a_checkpoint_of_endless_layers_ends(tmp_path: Path, finder_weights: Path, reg_max: int) -> None:
    content = load_checkpoint(finder_weights)
    save_checkpoint(tmp_path / "a.pt", content | {"model": content["model"] | {"reg_max": reg_max}})
    assert "at most" in sentence(YOLO, tmp_path / "a.pt")


def test_an_empty_weight_of_endless_rows_ends(tmp_path: Path, tiny_model: Path) -> None:
    model = DetectionModel(load_model_config(tiny_model))
    network = ultralytics_network(model)
    layer: Any = network._modules["model"][len(model.model) - 1]
    for part in ("cv3", "0", "2"):
        modules = layer._modules
        layer = modules[part] if part in modules else modules[int(part)]
    layer._parameters["weight"] = torch.nn.Parameter(torch.empty(3_000_000_000, 0))
    path = write_ultralytics(tmp_path / "a.pt", network)
    assert "asks for too much: 3,000,000,000 classes; at most 100,000" in sentence(read_weights, path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("imgsz", [3_200_000_000, 32], "3,200,000,000 px of a side of the input; at most 32,768"),
        ("batch", 2_000_000_000, "2,000,000,000 images per run; at most 16,384"),
    ],
)
def test_an_exported_file_of_endless_inputs_ends(tmp_path: Path, key: str, value: Any, message: str) -> None:
    metadata: dict[str, Any] = {
        "schema": 1, "names": {"0": "a"}, "stride": 32, "imgsz": [32, 32], "batch": 1, "dynamic": False,
        "preprocess": False, "output": {"kind": "raw"}, "suppression": None, "head": "one2many", "precision": "fp32",
    }  # fmt: skip
    assert contract_of(metadata, tmp_path).batch == 1
    assert message in sentence(lambda path: contract_of(metadata | {key: value}, path), tmp_path / "a.onnx")

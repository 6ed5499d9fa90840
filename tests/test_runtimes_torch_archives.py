"""Opening a .pt2 or .torchscript runs nothing of what is in it; what our exporters write is opened as it is."""

import io
import json
import os
import shutil
import zipfile

import pytest
import torch

from detector import YOLO
from detector.cli import main
from detector.errors import ExportError
from detector.runtimes.torch_archives import check_expression, look_into_program, look_into_script

MARK = "code-has-run"
SHELL = f"__import__('os').system('touch {MARK}')"


class Shell:
    def __reduce__(self):
        return os.system, (f"touch {MARK}",)


def rewrite(path, target, change):
    """Copy an archive with its entries changed: `change` is given a dict of name (without the folder) to bytes."""
    with zipfile.ZipFile(path) as archive:
        folder = archive.namelist()[0].split("/")[0]
        entries = {name.removeprefix(f"{folder}/"): archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(target, "w") as archive:
        for name, body in entries.items():
            archive.writestr(f"{folder}/{name}", body)
    return target


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Path of a program of free batch size."""
    path = tmp_path_factory.mktemp("program") / "good.pt2"
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Flatten())
    free = ({0: torch.export.Dim("batch", min=1, max=8)},)
    torch.export.save(torch.export.export(layer, (torch.zeros(2, 3, 4, 4),), dynamic_shapes=free), path)
    return path


def graph(edit):
    """Return a change of a program's graph: `edit` is given its JSON."""

    def change(entries):
        content = json.loads(entries["models/model.json"])
        edit(content)
        entries["models/model.json"] = json.dumps(content).encode()

    return change


def pickled(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def first_node(content):
    return content["graph_module"]["graph"]["nodes"][0]


def use_pickle(entries):
    name = "data/weights/model_weights_config.json"
    config = json.loads(entries[name])
    next(iter(config["config"].values()))["use_pickle"] = True
    entries[name] = json.dumps(config).encode()
    entries["data/weights/weight_0"] = pickled(Shell())


def name_the_input(content):
    for place in ("nodes", "inputs"):
        text = json.dumps(content["graph_module"]["graph"][place])
        content["graph_module"]["graph"][place] = json.loads(
            text.replace('"input"', json.dumps(f"x={SHELL}"))
        )
    content["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = f"x={SHELL}"


IMPORTED = {"type": "collections.defaultdict", "context": "{}", "children_spec": []}
SPEC = json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [IMPORTED]}])
PROGRAMS = {
    "a pickle as sample inputs": lambda e: e.update({"data/sample_inputs/model.pt": pickled((Shell(),))}),
    "a pickle as a weight": use_pickle,
    "legacy weights": lambda e: e.update({"data/weights/model.pt": pickled(Shell())}),
    "legacy constants": lambda e: e.update({"data/constants/model.pt": pickled(Shell())}),
    "an object as a constant": lambda e: e.update({"data/constants/opaque_obj_0": b"x"}),
    "a library": lambda e: e.update({"data/aotinductor/model/model.so": b"\x7fELF"}),
    "a second model": lambda e: e.update({"models/other.json": b"{}"}),
    "an older layout": lambda e: e.update({"version": b"8.2"}),
    "a guard": graph(lambda c: c["guards_code"].append(f"{SHELL} == 0")),
    "a range": graph(lambda c: c["range_constraints"].update({SHELL: {"min_val": 1, "max_val": 2}})),
    "an operator": graph(lambda c: first_node(c).update({"target": "torch.os.system"})),
    "an operator that writes": graph(lambda c: first_node(c).update({"target": "torch.ops.aten.save.default"})),
    "an operator that maps a file": graph(
        lambda c: first_node(c).update({"target": "torch.ops.aten.from_file.default"})
    ),
    "a name with a default": graph(name_the_input),
    "a structure of another class": graph(
        lambda c: c["graph_module"]["module_call_graph"][0]["signature"].update({"in_spec": SPEC})
    ),
    "an expression under metadata": graph(lambda c: c.update({"metadata": {"x": {"expr_str": SHELL}}})),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_would_run_code_when_opened_is_refused(name, program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = rewrite(program, tmp_path / "bad.pt2", PROGRAMS[name])
    for opening in (look_into_program, YOLO):
        with pytest.raises(ExportError, match=r"bad.pt2: was not opened, it .* give trust=true$") as caught:
            opening(path)
        assert len(str(caught.value)) < 400
    assert not (tmp_path / MARK).exists()


def test_a_program_that_is_trusted_is_opened(program, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = rewrite(program, tmp_path / "bad.pt2", PROGRAMS["a pickle as sample inputs"])
    assert main(["predict", f"model={path}", "source=x.jpg", "names=a,b", "imgsz=32"]) == 5
    assert "has sample inputs that are not tensors" in capsys.readouterr().err
    assert not (tmp_path / MARK).exists()
    with pytest.raises(ExportError):  # it is opened, and is not a detector
        YOLO(path, names=["a"], imgsz=32, trust=True)
    assert (tmp_path / MARK).exists(), "this is what the look is for"


def test_honest_programs_pass(program):
    look_into_program(program)


EXPRESSIONS = {
    "Symbol('s34', positive=True, integer=True)": True,
    "Mul(Integer(256), Symbol('s18', integer=True), Pow(Symbol('s30'), Integer(2)))": True,
    "(1 + (((-1) + L['images'].size()[2]) // 16)) == (2 + 2*(((-1) + L['images'].size()[2]) // 32))": True,
    "32*s30": True,
    "Pow(Integer(9), Pow(Integer(9), Integer(9)))": False,
    "9**9**9": False,
    "2**s0": False,
    "1 << 99999999": False,
    "9" * 3000: False,
    "Symbol('s').__class__": False,
    "().__class__.__bases__[0]": False,
    "L['images'].size(eval)": False,
    "open('x')": False,
    "lambda: 0": False,
    "[x for x in y]": False,
    "(" * 3000: False,
    "": False,
}


@pytest.mark.parametrize(("text", "plain"), EXPRESSIONS.items())
def test_only_expressions_of_sizes_are_evaluated(text, plain):
    if plain:
        check_expression(text)
    else:
        with pytest.raises(ValueError, match=r"^has the expression"):
            check_expression(text)


# ---- TorchScript ----------------------------------------------------------------------------------------


class Saves(torch.nn.Module):
    def forward(self, x):
        torch.save(x, "code-has-run")
        return x


class Remembers(torch.nn.Module):
    """A module whose own code runs when the file is opened."""

    def __init__(self):
        super().__init__()
        self.value = 1

    @torch.jit.export
    def __getstate__(self):
        return 1

    @torch.jit.export
    def __setstate__(self, state: int):
        self.value = state
        self.training = False

    def forward(self, x):
        return x * self.value


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("module", "message"),
    [(Saves, "has 'save' in its code"), (Remembers, "has '__[sg]etstate__' in its code")],
)
def test_a_script_that_would_run_or_write_is_refused(module, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.jit.script(module()).save("bad.torchscript")
    for opening in (look_into_script, YOLO):
        with pytest.raises(ExportError, match=f"bad.torchscript: was not opened, it {message}"):
            opening(tmp_path / "bad.torchscript")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_script_with_another_namespace_or_class_is_refused(tmp_path):
    torch.jit.script(torch.nn.ReLU()).save(tmp_path / "good.torchscript")
    look_into_script(tmp_path / "good.torchscript")

    def call(text):
        def change(entries):
            name = next(name for name in entries if name.endswith(".py"))
            entries[name] += text

        return change

    changes = {
        "has 'ops.' in its code": call(b"\n    x = ops.image.write_file('a', x)\n"),
        "has 'torch.classes' in its code": call(b"\n    x = __torch__.torch.classes.xnnpack.A\n"),
        "holds 'code/a.so'": lambda entries: entries.update({"code/a.so": b""}),
        "makes an object of": lambda entries: entries.update(
            {"data.pkl": b"\x80\x02c__torch__.torch.classes.dist_rpc\nA\n."}
        ),
        "unpacks to": None,
    }
    for message, change in changes.items():
        path = tmp_path / "bad.torchscript"
        if change is None:
            shutil.copy(tmp_path / "good.torchscript", path)
            with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("good/code/a.py", bytes(70_000_000))
        else:
            rewrite(tmp_path / "good.torchscript", path, change)
        with pytest.raises(ExportError, match=f"was not opened, it {message}"):
            look_into_script(path)


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"nms": True, "preprocess": True, "dynamic": True}, marks=pytest.mark.slow)]
)
def test_what_the_exporters_write_is_opened(options, exported):
    look_into_script(exported(format="torchscript", **options))
    look_into_program(exported(format="pt2", **options))

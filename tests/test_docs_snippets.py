"""Every block of code of README.md and docs/ runs or, where it can't here, is checked as far as it can be."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from support.pages import PAGES, ROOT, blocks_of, commands_of, make_small, write_desk, write_run

from detector import YOLO, Callback
from detector.cli import COMMANDS, main
from detector.data.data_yaml import read_data_yaml
from detector.errors import DataError
from detector.settings import CommandSettings
from detector.tuning.space import load_space

STORIES = [
    "docs/index.md",
    "docs/own-data.md",
]  # their commands follow from each other: all are run, in order
QUICK = {"check", "show", "convert", "val", "predict", "export", "runs", "compare", "report"}
NOT_RUN = {  # program: why; the arguments of `detector` in such a command are checked all the same
    "git": "fetches the repository",
    "source": "changes the shell",
    "docker": "needs its service",
    "torchrun": "starts several processes: tests/test_scale_restart.py does",
    "srun": "needs SLURM",
    "trap": "needs SLURM",
    "head": "needs SLURM",
    "wait": "needs SLURM",
}
PYTHON_ELSEWHERE = {
    "docs/callbacks.md"
}  # tests/test_docs_callbacks.py: a test per snippet, with its callbacks


class Parsed(BaseException):
    """The settings of a command are valid."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory, drawn_dataset):
    folder = tmp_path_factory.mktemp("desk")
    write_desk(folder, drawn_dataset)
    write_run(folder)
    return folder


@pytest.fixture
def folder(desk, tmp_path, monkeypatch):
    """A copy of the working folder that the pages speak of; everything run in it is small."""
    place = shutil.copytree(desk, tmp_path / "desk")
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    make_small(monkeypatch)
    return place


def pages_with(language):
    return [page for page in PAGES if any(block.language == language for block in blocks_of(page))]


def commands(page):
    return [command for block in blocks_of(page) if block.language == "sh" for command in commands_of(block)]


def arguments(command):
    """Return the words after `detector`, wherever it stands in a command; None if it is not there."""
    for number, word in enumerate(command[:-1]):
        if word in ("detector", "detector:cuda") and (command[number + 1] in COMMANDS or number == 0):
            return command[number + 1 :]
    return None


def accepted(words, monkeypatch):
    """Return whether the command line takes these words, without doing what they say."""
    real = CommandSettings.parse.__func__

    def parse(cls, *given):
        real(cls, *given)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(CommandSettings, "parse", classmethod(parse))
        try:
            return main(words) == 0  # commands without settings
        except Parsed:
            return True


def run_script(words, monkeypatch, folder):
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(folder / words[0]), run_name="__main__")


def extras():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    return {line.partition(" = ")[0] for line in table.splitlines() if " = [" in line}


def test_every_block_has_a_language():
    languages = {(block.language, block.page) for page in PAGES for block in blocks_of(page)}
    assert {language for language, _ in languages} == {"python", "sh", "yaml", "toml", "text"}


@pytest.mark.parametrize("page", [page for page in pages_with("python") if page not in PYTHON_ELSEWHERE])
def test_the_python_of_a_page_runs(page, folder):
    names = {"YOLO": YOLO, "Callback": Callback, "model": YOLO("yolo11n.yaml")}
    for block in blocks_of(page):
        if block.language == "python" and not block.file:
            exec(compile("\n" * block.line + block.text, str(ROOT / page), "exec"), names)
    model = names["model"]
    if any(model.callbacks.values()) and not model.trainer:
        model.train(data="shapes.yaml")
        assert model.trainer.csv.is_file()


@pytest.mark.parametrize("page", pages_with("sh"))
def test_every_command_of_a_page_is_taken(page, folder, monkeypatch, capsys):
    (folder / "runs/tune").mkdir()
    (folder / "runs/tune/best.yaml").write_text("data: shapes.yaml\nlr0: 0.01\n")
    for command in commands(page):
        program, words = command[0], arguments(command)
        if words is not None:
            assert accepted(words, monkeypatch), (command, capsys.readouterr().err)
        elif Path(program).name == "pip":  # also of another environment
            named = {extra for word in command if "[" in word for extra in word.split("[")[1][:-1].split(",")}
            assert named <= extras(), command
        elif program == "make":
            assert f"\n{command[1]}:" in (ROOT / "Makefile").read_text()
        elif command[:2] == ["python", "-m"]:
            module = ROOT / f"{command[2].replace('.', '/')}.py"
            assert command[2] == "venv" or module.is_file(), command
        elif program == "python":
            run_script(command[1:], monkeypatch, folder)
        else:
            assert program in NOT_RUN or "=" in program or program == "cd", command


@pytest.mark.parametrize("page", [page for page in pages_with("sh") if page not in STORIES])
def test_the_quick_commands_of_a_page_run(page, folder, capsys):
    for command in commands(page):
        if command[0] == "detector" and command[1] in QUICK:
            done = (0, DataError.exit_code) if command[1] == "check" else (0,)  # it may find faults
            assert main(command[1:]) in done, (command, capsys.readouterr().err)


@pytest.mark.parametrize("page", STORIES)
def test_the_commands_of_a_story_run_one_after_the_other(page, folder, monkeypatch, capsys):
    shutil.rmtree(folder / "runs")
    for command in commands(page):
        if command[0] == "detector" and command[1] not in ("monitor", "--help"):
            words = [
                word.replace("$HOME/.cache/detector/datasets/shapes/images/test", "newimages")
                for word in command
            ]
            assert main(words[1:]) == 0, (command, capsys.readouterr().err)
        elif command[:1] == ["python"] and command[1] != "-m":
            run_script(command[1:], monkeypatch, folder)
    assert (folder / "runs/predict").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages_with("sh") if page not in STORIES])
def test_the_trainings_and_studies_of_a_page_run(page, folder, capsys):
    for command in commands(page):
        if command[0] == "detector" and command[1] in ("train", "tune", "benchmark"):
            assert main(command[1:]) == 0, (command, capsys.readouterr().err)


@pytest.mark.parametrize("page", pages_with("yaml"))
def test_the_yaml_of_a_page_is_read(page, folder, monkeypatch):
    for block in blocks_of(page):
        if block.language != "yaml":
            continue
        content = yaml.safe_load(block.text)
        if block.file == "space.yaml":
            load_space(block.file)
        elif block.file == "mydata.yaml":
            read_data_yaml(folder / "mydata" / block.file)
        elif block.file:
            assert accepted(["train", f"cfg={block.file}"], monkeypatch)
        else:
            (container,) = content["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
            assert accepted(arguments(container["command"]), monkeypatch)


@pytest.mark.parametrize("page", pages_with("toml"))
def test_the_toml_of_a_page_names_groups_that_are_looked_for(page):
    tomllib = pytest.importorskip("tomllib")
    groups = {"detector.callbacks", "detector.data_formats", "detector.exporters"}
    for block in blocks_of(page):
        if block.language == "toml":
            assert set(tomllib.loads(block.text)["project"]["entry-points"]) <= groups


def test_what_is_not_run_is_on_a_page():
    assert set(NOT_RUN) <= {command[0] for page in PAGES for command in commands(page)}


def test_a_wrong_setting_or_value_in_a_command_is_found(folder, monkeypatch, capsys):
    assert not accepted(["train", "epoch=3"], monkeypatch)
    assert not accepted(["export", "opset=old"], monkeypatch)
    assert arguments(["docker", "run", "--rm", "detector:cuda", "train", "data=x"]) == ["train", "data=x"]
    assert arguments(["torchrun", "--nnodes=2", "-m", "detector", "train"]) == ["train"]
    assert arguments(["docker", "build", "-t", "detector", "."]) is None

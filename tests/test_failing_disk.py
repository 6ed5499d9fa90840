"""Whatever fails while a file is written, and at whatever step: a checkpoint that loads is there."""

import resource
import shutil

import pytest
import torch
from support.disk import KINDS, count_operations, failing, watched
from support.training import quick_settings

from detector import YOLO
from detector.checkpoints.checkpoint import load_checkpoint, read_weights, save_checkpoint
from detector.errors import CheckpointError, DetectorError
from detector.training.resume import find_run
from detector.training.saving import PREVIOUS_STATE, STATE


def content(epoch):
    """A checkpoint with a tensor that is written at once, and one that is not."""
    weights = {"small": torch.arange(3), "large": torch.full((5000,), float(epoch))}
    return {"model": {}, "weights": weights, "settings": {}, "epoch": epoch, "metrics": {}}


def one_sentence(error):
    text = str(error)
    return "\n" not in text and len(text) < 500


def leftovers(folder):
    return [path.name for path in folder.rglob("*.tmp")]


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["state.pt", "best.pt", "best.safetensors"])
def test_every_operation_may_fail(name, kind, lasting, tmp_path):
    keep = tmp_path / "kept.pt" if name == "state.pt" else None
    path = tmp_path / name

    def begin():
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        for epoch in (1, 2):
            save_checkpoint(path, content(epoch), keep)

    begin()
    operations = count_operations(lambda: save_checkpoint(path, content(3), keep))
    assert {"open", "write", "fsync", "rename", "unlink"} < set(operations) | {"link"}
    for number, operation in enumerate(operations):
        begin()
        error = None
        with failing(number, kind, lasting) as failed:
            try:
                save_checkpoint(path, content(3), keep)
            except CheckpointError as caught:
                error = caught
        assert failed[0] == operation
        assert error is None or (one_sentence(error) and str(path) in str(error))
        found = [read_weights(file)["epoch"] for file in (path, keep) if file is not None and file.exists()]
        assert found
        assert max(found) >= 2, (number, operation)
        assert error is not None or found[0] == 3
        assert operation == "unlink" or not leftovers(tmp_path), (number, operation)


def test_a_limit_of_the_system_leaves_the_older_checkpoint(tmp_path):
    path, keep = tmp_path / "state.pt", tmp_path / "kept.pt"
    save_checkpoint(path, content(1), keep)
    limits, size = resource.getrlimit(resource.RLIMIT_FSIZE), path.stat().st_size
    for limit in [0, 1, 100, *range(500, size, size // 40), size - 1]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))  # the kernel's own short writes
        try:
            with pytest.raises(CheckpointError, match=r"can.t write .*what was there before") as caught:
                save_checkpoint(path, content(2), keep)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert one_sentence(caught.value)
        assert load_checkpoint(path)["epoch"] == 1
        assert not leftovers(tmp_path)


def test_what_is_written_is_on_the_disk_before_it_gets_its_name(tmp_path):
    path, keep = tmp_path / "state.pt", tmp_path / "kept.pt"
    for epoch in (1, 2):
        save_checkpoint(path, content(epoch), keep)
    steps = count_operations(lambda: save_checkpoint(path, content(3), keep))
    steps = [step for i, step in enumerate(steps) if step != "write" or steps[i - 1] != "write"]
    assert steps == [
        *("open", "write", "fsync"),  # the new content
        *("unlink", "link", "rename", "unlink"),  # a second name for the old
        *("rename", "open", "fsync", "unlink"),  # the new gets the name, and the folder is flushed
    ]


def test_two_names_of_one_file_leave_no_third(tmp_path):
    path, keep = tmp_path / "state.pt", tmp_path / "kept.pt"
    save_checkpoint(path, content(1))
    keep.hardlink_to(
        path
    )  # as after a kill between the two renames; renaming one onto the other does nothing
    save_checkpoint(path, content(2), keep)
    assert (load_checkpoint(path)["epoch"], load_checkpoint(keep)["epoch"]) == (2, 1)
    assert not leftovers(tmp_path)


def trained(yolo, **settings):
    """Train; return the error's sentence if it ended with one."""
    try:
        yolo.train(**settings)
    except DetectorError as error:
        assert one_sentence(error), error
        return str(error)
    return None


@pytest.mark.parametrize(
    ("kind", "every"),
    [
        ("ENOSPC", 5),
        pytest.param("ENOSPC", 1, marks=pytest.mark.slow),
        pytest.param("EIO", 1, marks=pytest.mark.slow),
    ],
)
def test_a_training_on_a_failing_disk_goes_on_later(kind, every, tiny_model, drawn_dataset, tmp_path):
    """One operation fails, each time another one of another kind or file; then the disk is well again."""
    settings = quick_settings(data=drawn_dataset, optimizer="AdamW")
    seen = []

    def hook(operation, path):
        seen.append((operation, path.split(".")[0], path.endswith(".tmp")))

    with watched(hook):
        YOLO(tiny_model).train(project=tmp_path / "whole", **settings)
    whole = load_checkpoint(tmp_path / "whole/train" / STATE)
    numbers = [number for number, step in enumerate(seen) if step not in seen[:number]]
    assert len(numbers) > 15
    for number in numbers[::every]:
        project = tmp_path / "failing"
        with failing(number, kind, lasting=True):
            problem = trained(YOLO(tiny_model), project=project, **settings)
        folder = project / "train"
        if (folder / STATE).exists() or (folder / PREVIOUS_STATE).exists():
            if not find_run(folder, project).finished:
                assert trained(YOLO(tiny_model), resume=folder) is None
            found = load_checkpoint(folder / STATE)
            assert all(torch.equal(value, found["weights"][key]) for key, value in whole["weights"].items())
            best = load_checkpoint(folder / "weights/best.pt")["weights"]
            wanted = load_checkpoint(tmp_path / "whole/train/weights/best.pt")["weights"]
            assert all(torch.equal(value, best[key]) for key, value in wanted.items())
        else:
            assert problem is not None
        shutil.rmtree(project, ignore_errors=True)

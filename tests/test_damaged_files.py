"""500 places to cut a file at or to turn a bit of it: each is noticed, before anything is unpickled."""

import json
import random
import shutil

import pytest
import torch
from support.disk import damaged
from support.models import write_tiny
from support.training import train

from detector.checkpoints.checkpoint import load_checkpoint, read_weights, save_checkpoint
from detector.errors import CheckpointError
from detector.training.resume import find_run
from detector.training.saving import PREVIOUS_STATE, STATE

SEED, PLACES = 0, 250  # of each format


@pytest.fixture(scope="module")
def finished_run(drawn_dataset, tmp_path_factory):
    """The folder of a training with a state and the one before."""
    folder = tmp_path_factory.mktemp("damaged")
    kept = folder / "kept"

    def keep(trainer):
        shutil.copytree(trainer.save_dir, kept)

    tiny = write_tiny(folder / "tiny.yaml", dual=True)
    train(tiny, ("on_final_eval_end", keep), data=drawn_dataset, project=folder, optimizer="AdamW")
    return kept


@pytest.fixture
def unpickled(monkeypatch):
    """The files that came as far as torch.load."""
    seen = []
    load = torch.load

    def watched_load(path, *rest, **options):
        seen.append(path)
        return load(path, *rest, **options)

    monkeypatch.setattr(torch, "load", watched_load)
    return seen


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text


def test_a_damaged_state_is_replaced_by_the_previous_one(finished_run, tmp_path, unpickled, caplog):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    file, chance = run / STATE, random.Random(SEED)
    whole, before = file.read_bytes(), load_checkpoint(run / PREVIOUS_STATE)["epoch"]
    assert before < load_checkpoint(file)["epoch"]
    del unpickled[:]
    for _ in range(PLACES - 10):
        file.write_bytes(damaged(whole, chance))
        refusal(file)
    assert not unpickled
    for _ in range(10):
        file.write_bytes(damaged(whole, chance))
        caplog.clear()
        assert find_run(run, tmp_path).content["epoch"] == before
        assert "continues from the previous state" in caplog.text
    assert set(unpickled) == {run / PREVIOUS_STATE}
    file.write_bytes(whole)
    assert find_run(run, tmp_path).content["epoch"] > before


def test_both_states_damaged_is_one_sentence(finished_run, tmp_path, unpickled):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    for name in (STATE, PREVIOUS_STATE):
        (run / name).write_bytes((run / name).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"state.pt: is damaged: cut short") as caught:
        find_run(run, tmp_path)
    assert "\n" not in str(caught.value)
    assert not unpickled


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_weights_are_refused(suffix, finished_run, tmp_path, unpickled):
    content = load_checkpoint(finished_run / "weights/best.pt")
    path, chance = tmp_path / f"best{suffix}", random.Random(SEED)
    save_checkpoint(path, content)
    del unpickled[:]  # writing reads back
    whole = path.read_bytes()
    for _ in range(PLACES if suffix == ".safetensors" else 50):
        path.write_bytes(damaged(whole, chance))
        refusal(path)
    for place in (
        0,
        len(whole) // 2,
        len(whole) - 4096,
    ):  # a page that never got to the disk, or another file's
        path.write_bytes(whole[:place] + bytes(4096) + whole[place + 4096 :])
        refusal(path)
        path.write_bytes(whole[:place] + random.Random(place).randbytes(4096) + whole[place + 4096 :])
        refusal(path)
    path.write_bytes(whole + b"more")
    refusal(path)
    assert not unpickled
    path.write_bytes(whole)
    assert read_weights(path)["epoch"] == content["epoch"]


def test_every_bit_of_a_tensor_files_description_counts(tmp_path):
    """Also those of the checksum's own name."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(
        path, {"model": {}, "weights": {"w": torch.ones(2)}, "settings": {}, "epoch": 0, "metrics": {}}
    )
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    described = json.loads(json.loads(whole[8:end])["__metadata__"]["detector"])
    names = range(8 * whole.index(b"checksum"), 8 * whole.index(described["sha256"].encode()))
    for place in [*range(0, 8 * len(whole), 3), *names]:
        turned = bytearray(whole)
        turned[place // 8] ^= 1 << place % 8
        path.write_bytes(turned)
        refusal(path)


def test_every_bit_of_a_small_checkpoint_counts(tmp_path, unpickled):
    path = tmp_path / "a.pt"
    save_checkpoint(
        path, {"model": {}, "weights": {"w": torch.ones(2)}, "settings": {}, "epoch": 0, "metrics": {}}
    )
    del unpickled[:]
    whole = path.read_bytes()
    for place in range(len(whole)):
        turned = bytearray(whole)
        turned[place] ^= 1 << place % 8
        path.write_bytes(turned)
        refusal(path)
        if place % 5 == 0:
            path.write_bytes(whole[:place])
            refusal(path)
    assert not unpickled

"""Where weights come from: name, checksum and licence travel through trainings, files and exports."""

import hashlib
import json

import pytest
import torch
from support.models import make_finder
from support.ultralytics_files import ultralytics_network, write_ultralytics

from detector import YOLO
from detector.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from detector.checkpoints.origin import MAX_CHAIN, choose_licence, joined, links, origin_of
from detector.cli import main
from detector.errors import CheckpointError, SettingsError

AGPL = "AGPL-3.0"


@pytest.fixture
def theirs(tmp_path, finder_weights):
    """Path of an ultralytics checkpoint that states no licence."""
    return write_ultralytics(tmp_path / "theirs.pt", ultralytics_network(YOLO(finder_weights).model))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_licence_of_the_weights_a_training_starts_from_is_in_all_that_it_writes(
    theirs, train_tiny, drawn_dataset, tmp_path, capsys
):
    seen = []
    start = digest(theirs)
    model = train_tiny(
        ("on_train_start", lambda trainer: seen.append(trainer.origin)),
        model=YOLO(theirs),
        epochs=1,
        imgsz=64,
    )
    first = {"name": "theirs.pt", "sha256": start, "licence": AGPL, "chain": []}
    assert seen == [first]
    best = model.trainer.best
    for file in (best, model.trainer.last, best.with_name("state.pt")):
        assert torch.load(file, weights_only=True)["origin"] == first, file
    opened = YOLO(best)
    link = {key: first[key] for key in ("name", "sha256", "licence")}
    own = {"name": "best.pt", "sha256": digest(best), "licence": AGPL, "chain": [link]}
    assert opened.ckpt["origin"] == model.ckpt["origin"] == own
    assert load_checkpoint(opened.save(tmp_path / "copy.safetensors"))["origin"] == own
    opened.export(format="torchscript", imgsz=64, verbose=False, folder=tmp_path)
    metadata = YOLO(tmp_path / "best.torchscript").exported.metadata
    assert (metadata["licence"], metadata["origin"]) == (AGPL, own)
    text = f"best.pt (SHA-256 {own['sha256'][:8]}, licence AGPL-3.0), from theirs.pt (SHA-256 {start[:8]}, licence"
    assert text in opened.info().origin
    assert text in capsys.readouterr().out
    again = train_tiny(model=opened, epochs=1, imgsz=64)
    assert [link["name"] for link in links(again.ckpt["origin"])] == ["best.pt", "best.pt", "theirs.pt"]
    pretrained = train_tiny(pretrained=str(theirs), epochs=1, imgsz=64)
    assert pretrained.trainer.origin == first


def test_a_permissive_licence_is_that_of_its_own_file_alone(tmp_path, finder_weights, train_tiny):
    content = load_checkpoint(finder_weights)
    free = tmp_path / "free.safetensors"
    save_checkpoint(free, content | {"licence": "MIT"})
    opened = YOLO(free)
    assert opened.ckpt["origin"]["licence"] == "MIT"
    trained = train_tiny(model=opened, epochs=1)
    origin = trained.ckpt["origin"]
    assert [(link["name"], link["licence"]) for link in links(origin)] == [
        ("best.pt", None),
        (free.name, "MIT"),
    ]
    assert choose_licence("Proprietary", origin) == ("Proprietary", False)
    with pytest.raises(SettingsError, match="whose licence is MIT"):
        choose_licence("Proprietary", YOLO(free).ckpt["origin"])
    opened = YOLO(free)
    both = opened.load(write_ultralytics(tmp_path / "theirs.pt", ultralytics_network(opened.model)))
    again = YOLO(both.save(tmp_path / "both.safetensors"))
    assert again.ckpt["origin"]["licence"] == f"{AGPL} AND MIT"

    save_checkpoint(free, content | {"licence": 7})
    with pytest.raises(CheckpointError, match="its licence can't be read"):
        YOLO(free)


def test_a_resumed_run_keeps_its_origin(theirs, train_tiny, tmp_path):
    def stop(trainer):
        trainer.stop = True

    model = train_tiny(("on_train_epoch_end", stop), model=YOLO(theirs), epochs=2, imgsz=64)
    origin = model.trainer.origin
    resumed = YOLO(theirs)
    resumed.train(resume=str(model.trainer.save_dir), epochs=2)
    assert resumed.trainer.origin == origin and origin["name"] == "theirs.pt"


def test_weights_from_random_numbers_have_no_origin_and_no_licence(trained, tmp_path):
    assert load_checkpoint(tmp_path / "best.pt").get("origin") is None
    trained.export(format="torchscript", imgsz=64, verbose=False)
    metadata = trained.exporter.metadata
    assert metadata["licence"] == "not stated"
    assert (metadata["origin"]["name"], metadata["origin"]["chain"]) == ("best.pt", [])
    assert trained.ckpt["origin"]["sha256"] == digest(tmp_path / "best.pt")


def test_a_file_that_states_its_licence_is_believed(tmp_path, finder_weights):
    network = ultralytics_network(YOLO(finder_weights).model)
    path = write_ultralytics(tmp_path / "paid.pt", network, license="Enterprise")
    assert YOLO(path).ckpt["origin"]["licence"] == "Enterprise"


def test_loading_weights_into_a_model_joins_the_origins(theirs, tmp_path):
    other = YOLO(make_finder(tmp_path)).load(theirs)
    assert [link["name"] for link in links(other.ckpt["origin"])] == ["theirs.pt", "best.pt"]
    assert other.ckpt["origin"]["licence"] == AGPL
    more = joined(origin_of(tmp_path / "best.pt", None, "CC-BY-4.0"), other.ckpt["origin"])
    assert more["licence"] == "CC-BY-4.0 AND AGPL-3.0"
    assert [link["name"] for link in links(more)] == ["best.pt", "theirs.pt", "best.pt"]


def test_a_licence_that_contradicts_the_origin_needs_force(theirs, tmp_path, capsys, caplog):
    words = ["export", f"model={theirs}", "format=torchscript", "imgsz=64", f"folder={tmp_path / 'out'}"]
    assert main([*words, "licence=MIT"]) == 2
    assert capsys.readouterr().err == (
        "error: licence=MIT: these weights are from theirs.pt, whose licence is AGPL-3.0; leave licence out to write "
        "that, or give licence=force:MIT if you have them under another licence\n"
    )
    assert not (tmp_path / "out").exists()
    assert main([*words, "licence=force:MIT"]) == 0
    metadata = YOLO(tmp_path / "out" / "theirs.torchscript").exported.metadata
    assert metadata["licence"] == "MIT" and metadata["origin"]["licence"] == AGPL
    assert "licence=MIT: the file is written with this licence and the origin" in caplog.text


@pytest.mark.parametrize(
    ("given", "inherited", "written"),
    [
        (None, None, None),
        ("MIT", None, "MIT"),
        (None, AGPL, AGPL),
        ("agpl-3.0", AGPL, "agpl-3.0"),
        ("AGPL-3.0-or-later", AGPL, "AGPL-3.0-or-later"),
        (AGPL, "AGPL-3.0 (https://example.org)", AGPL),
        ("force:MIT", AGPL, "MIT"),
        ("force:MIT", None, "MIT"),
        ("GPL-3.0", AGPL, SettingsError),
        ("A", AGPL, SettingsError),
        ("CC-BY-NC-4.0", "CC-BY", SettingsError),
    ],
)
def test_licences_that_agree_and_licences_that_do_not(given, inherited, written):
    origin = inherited and {"name": "a.pt", "sha256": "0" * 64, "licence": inherited, "chain": []}
    if written is SettingsError:
        with pytest.raises(SettingsError, match=r"these weights are from a\.pt"):
            choose_licence(given, origin)
    else:
        assert choose_licence(given, origin)[0] == written


@pytest.mark.parametrize(
    "origin",
    [
        "theirs.pt",
        {"name": "a.pt", "sha256": "0" * 64, "licence": None},
        {"name": "a\n.pt", "sha256": "0" * 64, "licence": None, "chain": []},
        {"name": "a.pt", "sha256": "0" * 63, "licence": None, "chain": []},
        {"name": "a.pt", "sha256": "0" * 64, "licence": "x" * 1000, "chain": []},
        {"name": "a.pt", "sha256": "0" * 64, "licence": 3, "chain": []},
        {"name": "a.pt", "sha256": "0" * 64, "licence": None, "chain": [1]},
        {"name": "a.pt", "sha256": "0" * 64, "licence": None,
         "chain": [{"name": "a.pt", "sha256": "0" * 64, "licence": None}] * 33},
    ],
)  # fmt: skip
def test_an_origin_that_is_none_is_one_sentence(origin, tmp_path, finder_weights):
    save_checkpoint(tmp_path / "a.pt", load_checkpoint(finder_weights) | {"origin": origin})
    with pytest.raises(CheckpointError, match=r"a.pt: its origin can't be read; expected name, sha256"):
        YOLO(tmp_path / "a.pt")


def test_a_chain_has_an_end_and_keeps_its_licence(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"a")
    origin = origin_of(tmp_path / "a.pt", None, AGPL)
    for _ in range(2 * MAX_CHAIN):
        origin = origin_of(tmp_path / "a.pt", origin)
    assert len(origin["chain"]) == MAX_CHAIN and origin["licence"] == AGPL
    json.dumps(origin)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.checkpoints.network import build_network, build_on_meta, check_content, read_config
from detector.errors import CheckpointError
from detector.nn.model import DetectionModel, ModelConfig, load_model_config


@pytest.fixture
def config(tiny_model: Path) -> ModelConfig:
    return load_model_config(tiny_model, names=["a", "b"])


def content(config: ModelConfig, **changes: Any) -> dict[str, Any]:
    weights = DetectionModel(config).state_dict()
    plain: dict[str, Any] = {"settings": {}, "epoch": 1, "metrics": {}}
    return plain | {"model": config.to_dict(), "weights": weights} | changes


def test_a_network_comes_back_with_its_own_memory(config: ModelConfig) -> None:
    trained = DetectionModel(config)
    weights = trained.state_dict()
    network = build_network(config, weights, "a.pt")
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(network(images)["one2many"].boxes, trained(images)["one2many"].boxes)
    assert {name for name, p in network.named_parameters() if not p.requires_grad} == {
        name for name, p in trained.named_parameters() if not p.requires_grad
    }
    network.state_dict()["model.0.conv.weight"].zero_()
    assert weights["model.0.conv.weight"].abs().sum() > 0


def test_building_draws_no_random_numbers(config: ModelConfig) -> None:
    weights = DetectionModel(config).state_dict()
    before = torch.get_rng_state()
    build_network(config, weights, "a.pt")
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_do_not_fit_are_named(config: ModelConfig) -> None:
    weights = DetectionModel(config).state_dict()
    weights["extra"] = weights.pop("model.0.conv.weight")
    weights["model.1.bn.bias"] = torch.ones(3)
    with pytest.raises(CheckpointError) as caught:
        build_network(config, weights, "a.pt")
    assert str(caught.value) == (
        "a.pt: weights do not fit the architecture in this file: model.0.conv.weight is missing, extra has no "
        "place, model.1.bn.bias is 3, not 16"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": []}, "weights is list"),
        ({"model": None, "epoch": "x"}, "model is NoneType, epoch is str"),
        ({"weights": {"x": 3}}, "'x' among its weights is not a plain tensor"),
        ({"weights": {3: torch.ones(1)}}, "'3' among its weights"),
        ({"weights": {"x": torch.ones(1).expand(1 << 40)}}, "not a plain tensor"),
        ({"weights": {"x": torch.ones(3).to_sparse()}}, "not a plain tensor"),
        ({"weights": {"x": torch.ones(3, device="meta")}}, "not a plain tensor"),
    ],
)
def test_content_of_other_types_is_refused(config: ModelConfig, changes: Any, message: str) -> None:
    check_content(content(config), "a.pt")
    with pytest.raises(CheckpointError, match=message):
        check_content(content(config, **changes), "a.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": ["n"]}, "describes no network that can be built"),
        ({"depth": "deep"}, "describes no network that can be built"),
        ({"rows": 3}, "describes no network that can be built"),
        ({"rows": [[[-1], 1, "os.system", ["true"]]]}, "unknown block|expected it once"),
        ({"names": 7}, "describes no network that can be built"),
        ({"more": 1}, "unknown 'more'"),
    ],
)
def test_invalid_descriptions_are_refused(config: ModelConfig, changes: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_config(config.to_dict() | changes, "a.pt")
    assert "\n" not in str(caught.value)


def test_a_gigantic_network_gets_no_memory(config: ModelConfig) -> None:
    rows = list(config.rows)
    rows[1] = rows[1]._replace(args=(1 << 20, 3, 2))
    rows[0] = rows[0]._replace(args=(1 << 20, 3, 2))
    huge = replace(config, rows=tuple(rows), max_channels=1e9)
    with pytest.raises(CheckpointError, match=r"1,048,576 as a number of a layer; at most 100,000 are read"):
        build_network(huge, DetectionModel(config).state_dict(), "a.pt")


def test_a_network_of_endless_blocks_is_refused(config: ModelConfig) -> None:
    endless = {"depth": 1e12}, {"depth": float("inf")}, {"rows": [[[-1], 10**9, "Conv", [8]]]}
    for changes in endless:
        with pytest.raises(
            CheckpointError, match=r"expected (depth and width up to 100|a whole number from 1 to 1000)"
        ):
            read_config(config.to_dict() | changes, "a.pt")
    rows = (*config.rows[:1], config.rows[1]._replace(repeats=1000, args=(16, 3, 1)), *config.rows[2:])
    with pytest.raises(CheckpointError, match=r"a.pt: describes no network .*50,001 layers; at most 2,000"):
        build_on_meta(replace(config, rows=rows, depth=50.0), "a.pt")

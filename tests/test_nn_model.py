from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from support.vector_fill import FOLDER, VECTORS, fill, hashed
from torch import Tensor, nn

from detector.boxes import top_detections
from detector.errors import ModelError
from detector.nn.config import load_model_config
from detector.nn.heads import HeadPreds
from detector.nn.model import DetectionModel, count_gflops

# parameters, trainable, state-dict keys, modules without children, parameters when fused, GFLOPs when fused
PUBLISHED = {
    "yolov8n": (3157200, 3157184, 355, 129, 3151904, 8.744),
    "yolov8s": (11166560, 11166544, 355, 129, 11156544, 28.603),
    "yolov8m": (25902640, 25902624, 475, 169, 25886080, 78.937),
    "yolov8l": (43691520, 43691504, 595, 209, 43668288, 165.149),
    "yolov8x": (68229648, 68229632, 595, 209, 68200608, 257.804),
    "yolo11n": (2624080, 2624064, 499, 181, 2616248, 6.543),
    "yolo11s": (9458752, 9458736, 499, 181, 9443760, 21.590),
    "yolo11m": (20114688, 20114672, 649, 231, 20091712, 68.104),
    "yolo11l": (25372160, 25372144, 1015, 357, 25340992, 87.156),
    "yolo11x": (56966176, 56966160, 1015, 357, 56919424, 195.272),
    "yolo26n": (2572280, 2572280, 708, 260, 2408932, 5.480),
    "yolo26s": (10009784, 10009784, 708, 260, 9496140, 20.933),
    "yolo26m": (21896248, 21896248, 768, 280, 20411132, 68.426),
    "yolo26l": (26299704, 26299704, 1092, 392, 24807420, 86.796),
    "yolo26x": (58993368, 58993368, 1092, 392, 55725948, 194.418),
}
LAYER_PARAMETERS = {
    "yolov8n": "464 4672 7360 18560 49664 73984 197632 295424 460288 164608 "
    "148224 37248 36992 123648 147712 493056 897664",
    "yolo11s": "928 18560 26080 147712 103360 590336 346112 1180672 1380352 656896 990976 "
    "443776 127680 147712 345472 590336 1511424 850368",
    "yolo26n": "464 4672 6640 36992 26080 147712 87040 295424 346112 164608 249728 "
    "119808 34304 36992 95232 147712 463104 309656",
}


def build(name: str, num_classes: int = 80) -> DetectionModel:
    return DetectionModel(load_model_config(name, num_classes))


@cache
def small(name: str) -> DetectionModel:
    """A three-class float32 network with plausible weights in eval mode; tests must not change it."""
    torch.manual_seed(0)
    model = build(name, 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.2, 0.6)
    return model.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_size_has_the_published_size(name: str) -> None:
    parameters, trainable, keys, layers, fused_parameters, gflops = PUBLISHED[name]
    with torch.device("meta"):
        model = build(name)
        fused = model.fuse()
    info = model.info()
    assert (info.parameters, info.trainable, info.layers) == (parameters, trainable, layers)
    assert len(model.state_dict()) == keys
    assert sum(p.numel() for p in fused.parameters()) == fused_parameters
    # the published figure counts the 16-bin expectation too: 1.1 MFLOP
    assert info.gflops == pytest.approx(gflops, abs=0.002)


def test_both_heads_are_counted_in_training_mode() -> None:
    assert count_gflops(build("yolo26n"), 640, training=True) == pytest.approx(6.0813, abs=1e-3)


@pytest.mark.parametrize("name", LAYER_PARAMETERS)
def test_every_layer_has_the_published_number_of_parameters(name: str) -> None:
    counts = [sum(p.numel() for p in layer.parameters()) for layer in build(name).model]
    assert " ".join(str(count) for count in counts if count) == LAYER_PARAMETERS[name]


def test_fewer_classes_narrow_the_class_branch() -> None:
    assert sum(p.numel() for p in build("yolov8n", 2).head.parameters()) == 751702
    assert build("yolo26n", 2).info().parameters == 2504580


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
def test_state_dict_has_the_published_keys_in_order(name: str) -> None:
    expected = json.loads((FOLDER / f"state_dict_{name}.json").read_text())
    actual = {key: list(tensor.shape) for key, tensor in build(name).state_dict().items()}
    assert list(actual.items()) == list(expected.items())


def test_hash_gives_the_listed_numbers() -> None:
    for key, seed in (("H(3,0)", 0), ("H(3,7)", 7)):
        assert hashed(3, seed).tolist() == VECTORS["hash_check"][key]


def layer_outputs(model: DetectionModel) -> Iterator[tuple[int, list[Tensor]]]:
    """Record what every layer but the head gives."""
    for index, layer in enumerate(model.model[:-1]):
        seen: list[Tensor] = []
        layer.register_forward_hook(lambda _m, _i, output, seen=seen: seen.append(output))
        yield index, seen


def close(actual: Tensor | float, expected: float) -> bool:
    return float(actual) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("key", VECTORS["forward"])
@torch.no_grad()
def test_forward_pass_matches_the_reference(key: str) -> None:
    name, num_classes = key.split("_nc")
    expected = VECTORS["forward"][key]
    model = build(name, int(num_classes)).double().eval()
    fill(model)
    seen = dict(layer_outputs(model))
    preds = model(hashed(3 * 64 * 96, 999).view(1, 3, 64, 96))["one2many"]
    out = model.decode(preds)

    for index, shape, mean, std in expected["layer_mean_std"]:
        if index in seen:
            (output,) = seen[index]
            assert list(output.shape) == shape
            assert output.mean().item() == pytest.approx(mean, abs=1e-8, rel=1e-6)
            assert output.std().item() == pytest.approx(std, abs=1e-8, rel=1e-6)
    assert list(out.shape) == expected["out_shape"]
    assert close(preds.boxes.sum(), expected["raw_boxes_sum"]) and close(
        preds.boxes.std(), expected["raw_boxes_std"]
    )
    assert close(preds.scores.sum(), expected["raw_scores_sum"])
    assert close(preds.scores.std(), expected["raw_scores_std"])
    assert close(out.sum(), expected["out_sum"]) and close(out.abs().sum(), expected["out_abs_sum"])
    for anchor, values in ((0, expected["out_first_anchor"]), (-1, expected["out_last_anchor"])):
        assert out[0, : len(values), anchor].tolist() == pytest.approx(values, rel=1e-9, abs=1e-12)

    if model.dual_head:
        model.select_head(nms=False)
        preds = model(hashed(3 * 64 * 96, 999).view(1, 3, 64, 96))["one2one"]
        rows = top_detections(model.decode(preds), 300)
        assert close(preds.boxes.sum(), expected["o2o_raw_boxes_sum"])
        assert close(preds.scores.sum(), expected["o2o_raw_scores_sum"])
        assert list(rows.shape) == expected["e2e_shape"]
        torch.testing.assert_close(
            rows[0, :3], torch.tensor(expected["e2e_first3"]).double(), rtol=1e-6, atol=1e-6
        )
        assert close(rows[..., 4].sum(), expected["e2e_conf_sum"])
        assert close(rows[..., :4].sum(), expected["e2e_box_sum"])


def test_biases_expect_few_objects_at_the_start() -> None:
    head = build("yolo26n").head
    for branches, values in (
        (head.cv3, (-11.5366, -10.1503, -8.7641)),
        (head.one2one_cv3, (-11.5366, -10.1503, -8.7641)),
    ):
        assert [b[-1].bias[0].item() for b in branches] == pytest.approx(values, abs=1e-4)
    assert all((b[-1].bias == 2).all() for branches in (head.cv2, head.one2one_cv2) for b in branches)


def test_training_runs_both_heads_and_evaluation_the_selected_one(images: Tensor) -> None:
    model = build("yolo26n", 3)
    assert list(model.train()(images)) == ["one2many", "one2one"]
    assert list(model.eval()(images)) == ["one2many"] == [model.selected_head]
    model.select_head(nms=False)
    assert list(model(images)) == ["one2one"] == [model.selected_head]
    model.select_head(nms=None)
    assert list(model(images)) == ["one2many"]


def test_selecting_a_missing_head_says_so() -> None:
    with pytest.raises(ModelError, match="yolo11n has no one2one head; expected nms=None or True"):
        small("yolo11n").select_head(nms=False)


def test_one_to_one_loss_leaves_the_backbone_alone(images: Tensor) -> None:
    model = build("yolo26n", 3).train()
    preds = model(images)["one2one"]
    (preds.boxes.sum() + preds.scores.sum()).backward()
    touched = {
        name.split(".")[1] + "." + name.split(".")[2]
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    assert touched == {"23.one2one_cv2", "23.one2one_cv3"}


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
@torch.no_grad()
def test_fusing_keeps_the_predictions_and_the_network(name: str, images: Tensor) -> None:
    model = small(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fused = model.fuse()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert not any("one2one" in key or ".bn." in key for key in fused.state_dict())
    torch.testing.assert_close(
        fused.decode(fused(images)["one2many"]), model.decode(model(images)["one2many"]), rtol=1e-4, atol=1e-4
    )
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@torch.no_grad()
def test_fusing_in_half_precision_keeps_the_outputs_in_float32(images: Tensor) -> None:
    model = small("yolo11n")
    fused = model.fuse(torch.bfloat16)
    assert fused.model[0].conv.weight.dtype == torch.bfloat16
    for name, tensor in fused.head.state_dict().items():
        if name.endswith((".2.weight", ".2.bias")):
            assert torch.equal(tensor, model.head.state_dict()[name])
    preds = fused(images)["one2many"]
    assert preds.boxes.dtype == preds.scores.dtype == torch.float32
    exact = model.decode(model(images)["one2many"])
    assert (fused.decode(preds)[:, :4] - exact[:, :4]).abs().max() < 2  # px
    assert model.fuse().fuse(torch.bfloat16).model[0].conv.weight.dtype == torch.bfloat16


@torch.no_grad()
def test_fusing_keeps_only_the_selected_head(images: Tensor) -> None:
    model = build("yolo26n", 3)
    model.select_head(nms=False)
    fused = model.fuse()
    assert list(fused(images)) == ["one2one"]
    assert not fused.dual_head and model.dual_head
    with pytest.raises(ModelError, match="has no one2many head; expected nms=False"):
        fused.select_head(nms=True)


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
@torch.no_grad()
def test_raw_outputs_stay_float32_under_autocast(name: str, images: Tensor) -> None:
    model = small(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        preds = model(images)["one2many"]
        decoded = model.decode(preds)
    assert preds.boxes.dtype == preds.scores.dtype == decoded.dtype == torch.float32
    exact = model.decode(model(images)["one2many"])
    assert (decoded[:, :4] - exact[:, :4]).abs().max() < 2  # px


@torch.no_grad()
def test_decoding_measures_from_the_cell_centre() -> None:
    boxes = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1)
    preds = HeadPreds(boxes, torch.zeros(1, 3, 1), torch.tensor([[5.5, 6.5]]), torch.tensor([8.0]))
    decoded = small("yolo26n").decode(preds)
    # x from 4.5 to 8.5 cells, y from 4.5 to 10.5 cells
    assert decoded[0, :, 0].tolist() == [52.0, 60.0, 32.0, 48.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
@torch.no_grad()
def test_memory_format_does_not_change_the_predictions(name: str, images: Tensor) -> None:
    model = small(name)
    expected = model.decode(model(images)["one2many"])
    last = build(name, 3).eval()
    last.load_state_dict(model.state_dict())
    last.to(memory_format=torch.channels_last)
    preds = last(images.contiguous(memory_format=torch.channels_last))["one2many"]
    torch.testing.assert_close(last.decode(preds), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("yolov8n", "yolo11n")), "yolo26n"]
)
def test_graph_can_be_exported_with_free_sizes(name: str, images: Tensor) -> None:
    class Decoded(nn.Module):
        def __init__(self, model: DetectionModel) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> Tensor:
            (preds,) = self.model(images).values()
            return self.model.decode(preds)

    decoded = Decoded(small(name).fuse())
    height, width = (32 * torch.export.Dim(axis, min=2, max=20) for axis in ("h", "w"))
    program = torch.export.export(decoded, (images,), dynamic_shapes=({2: height, 3: width},))
    larger = torch.rand(2, 3, 128, 64)
    torch.testing.assert_close(program.module()(larger), decoded(larger), rtol=1e-4, atol=1e-4)

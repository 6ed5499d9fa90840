from dataclasses import replace

import torch

from detector.checkpoints.transfer import pair_classes, transfer_weights
from detector.nn.model import DetectionModel, load_model_config


def model_of(*names):
    return DetectionModel(replace(load_model_config("yolo11n"), names=names))


def test_the_same_classes_take_everything():
    source, target = model_of("a", "b"), model_of("a", "b")
    report = transfer_weights(target, source.state_dict(), source.names)
    assert not report.left
    assert not report.by_class
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


def test_class_rows_go_by_name():
    source, target = model_of("Cat", "dog", "cow"), model_of("horse", "dog", "cat ")
    before = target.state_dict()["model.23.cv3.0.2.weight"].clone()
    report = transfer_weights(target, source.state_dict(), source.names)
    rows, theirs = (
        target.state_dict()["model.23.cv3.0.2.weight"],
        source.state_dict()["model.23.cv3.0.2.weight"],
    )
    assert torch.equal(rows[1], theirs[1])
    assert torch.equal(rows[2], theirs[0])
    assert torch.equal(rows[0], before[0])
    assert len(report.by_class) == 6
    assert "by class name" in str(report)


def test_another_size_says_what_was_left():
    source, target = DetectionModel(load_model_config("yolo11s")), model_of("a")
    report = transfer_weights(target, source.state_dict(), source.names)
    assert "not loaded: model.0.conv.weight" in str(report)
    assert str(report).endswith(f" and {len(report.left) - 6} more") and str(report).count("model.") == 6


def named(*names):
    return dict(enumerate(names))


def test_classes_pair_by_exact_name_first():
    assert pair_classes(named("A", "a", "b", "c"), named("A", "a", "b")) == [(0, 0), (1, 1), (2, 2)]
    assert pair_classes(named("a", "A"), named("A", "a")) == [(0, 1), (1, 0)]
    assert pair_classes(named("x", "x"), named("x", "x")) == [(0, 0), (1, 1)]


def test_classes_that_differ_by_case_or_spaces_pair_only_where_one_is_left_on_each_side():
    assert pair_classes(named(" Cat", "dog"), named("dog", "cat")) == [(0, 1), (1, 0)]
    assert pair_classes(named("A", "a"), named("A", "b")) == [(0, 0)]
    assert pair_classes(named("CAT"), named("cat", "Cat")) == []
    assert pair_classes(named("Cat", "cAt"), named("cat")) == []

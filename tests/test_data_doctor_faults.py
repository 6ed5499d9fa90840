"""Faults of every kind, planted at random places of a healthy data set: the doctor finds each, and nothing else."""

import shutil

import numpy as np
import pytest
from support.spoiled import FAULTS, HARMLESS, make_healthy

from detector.data.doctor import check

ALSO = {
    "image_deep": {"image-grey"},
    "label_in_capitals": {"label-missing"},
    "label_next_to_image": {"label-missing"},
}  # what is true of a fault besides what it is


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return make_healthy(tmp_path_factory.mktemp("clean") / "set")


@pytest.fixture
def healthy(clean, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTOR_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(clean, tmp_path / "set")


def test_there_are_over_thirty_kinds():
    assert len(FAULTS) > 50


def test_nothing_is_found_in_a_healthy_set(healthy):
    assert [finding.kind for finding in check(healthy).findings] == []


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_where_it_is_and_nothing_else(name, seed, healthy):
    planted = FAULTS[name](healthy, np.random.default_rng(seed))
    found = {finding.kind: finding for finding in check(planted.data or healthy).findings}
    assert set(found) - ALSO.get(name, set()) == {planted.kind}
    assert any(planted.where in example for example in found[planted.kind].examples)


@pytest.mark.parametrize("name", HARMLESS)
def test_ways_of_writing_are_no_faults(name, healthy):
    HARMLESS[name](healthy, np.random.default_rng(0))
    assert check(healthy).findings == []

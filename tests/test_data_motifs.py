"""Classes of drawn motifs."""

from __future__ import annotations

import numpy as np
import pytest

from detector.data.motifs import FAMILIES, NUM_MOTIFS, bend, motif_of


def instance(class_id, seed, side=40):
    rng = np.random.default_rng(seed)
    motif = motif_of(class_id)
    return bend(motif.form(rng), motif, side, rng)


def test_there_are_300_classes_with_names_of_their_own_and_any_first_five_are_of_all_families():
    assert NUM_MOTIFS == 300
    assert len({motif_of(class_id).name for class_id in range(NUM_MOTIFS)}) == 300
    assert [motif_of(class_id).family for class_id in range(5)] == list(FAMILIES)


def test_a_class_is_a_fixed_function_of_its_id():
    before = [motif_of(class_id) for class_id in range(10)]
    shapes = [instance(class_id, 3) for class_id in range(10)]
    motif_of.cache_clear()
    assert [motif_of(class_id) for class_id in range(10)] == before
    for class_id, parts in enumerate(shapes):
        for part, again in zip(parts, instance(class_id, 3), strict=True):
            np.testing.assert_array_equal(np.concatenate(part.contours), np.concatenate(again.contours))


@pytest.mark.parametrize("family", range(5))
def test_the_body_of_an_instance_has_the_wanted_side_and_starts_at_zero(family):
    for class_id in range(family, 60, 5):
        body = np.concatenate(
            [c for part in instance(class_id, 1) if not part.is_mark for c in part.contours]
        )
        np.testing.assert_allclose(body.min(0), 0, atol=1e-3)
        assert body.max() == pytest.approx(40, abs=1e-3)


def test_instances_of_a_class_differ():
    first, second = (np.concatenate(instance(0, seed)[0].contours) for seed in (1, 2))
    assert np.abs(first - second).max() > 1

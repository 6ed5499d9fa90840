from pathlib import Path

import pytest
import torch

from detector.errors import TrainingError
from detector.training.finite import NonFiniteCheck

GOOD, BAD, ITEMS = torch.tensor(1.0), torch.tensor(float("nan")), torch.tensor([0.5, float("nan")])


def test_a_loss_that_is_not_finite_names_the_step_the_terms_and_the_files():
    check = NonFiniteCheck(("box_loss", "cls_loss"), Path("weights"), late=False)
    check.check(0, 6, GOOD, ITEMS, ["a.jpg"])
    expected = r"epoch 1, step 7: box_loss=0.5, cls_loss=nan; .* in weights; .* Files of that batch: b.jpg"
    with pytest.raises(TrainingError, match=expected):
        check.check(0, 7, BAD, ITEMS, ["b.jpg"])


def test_a_late_check_looks_at_the_step_before():
    check = NonFiniteCheck(("box_loss", "cls_loss"), Path("weights"), late=True)
    check.check(0, 7, BAD, ITEMS, ["b.jpg"])
    with pytest.raises(TrainingError, match=r"step 7: .* Files of that batch: b.jpg"):
        check.check(0, 8, GOOD, ITEMS, ["c.jpg"])

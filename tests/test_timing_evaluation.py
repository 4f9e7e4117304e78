"""Evaluation beside bare inference, at tiny size."""

from __future__ import annotations

import pytest
import torch
from timings import evaluation
from timings.methods.lucir_family import Family

from avalanche_ext.models import CifarResNet

TINY = Family(lambda: CifarResNet(n_blocks=1, width=2), batch_size=10, exemplars=2)


@pytest.mark.filterwarnings("ignore:Call to deprecated")
@pytest.mark.parametrize(
    ("measure", "batches"), [("many", [3] * 5), ("again", [10, 2] * 2)]
)
def test_both_sides_answer_the_same_images_in_the_same_batches(
    monkeypatch, measure, batches
):
    sides = []

    def counted(*calls):
        for call in calls[:2]:
            sides.append([])
            call()
        return 1.0

    forward = CifarResNet.forward

    def seen(self, x):
        if sides:
            sides[-1].append(x.clone())
        return forward(self, x)

    monkeypatch.setattr(CifarResNet, "forward", seen)
    monkeypatch.setattr(evaluation, "median_ratio", counted)
    monkeypatch.setattr(evaluation, "METHODS", TINY.methods())
    for name, value in ("N_EXPERIENCES", 5), ("N_IMAGES", 3), ("TIMES", 2):
        monkeypatch.setattr(evaluation, name, value)
    getattr(evaluation, measure)(1)
    ours, bare = sides
    assert [len(x) for x in ours] == [len(x) for x in bare] == batches
    assert all(torch.equal(x, y) for x, y in zip(ours, bare))

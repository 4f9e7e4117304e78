from __future__ import annotations

import pytest
import torch
from torch import nn
from unrolled_cases import (
    smooth_network,
)

from avalanche_ext.functional.unrolled import hypergradient

PAIR = (torch.zeros(3, 2, 4, 4), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"exemplars": torch.zeros(0, 2, 4, 4)}, "exemplars has shape .*at least one"),
        ({"exemplars": PAIR[0].long()}, "exemplars is torch.int64; wanted a floating"),
        ({"exemplars": [1.0]}, "exemplars is .*; wanted a Tensor"),
        (
            {"targets": PAIR[1][:2]},
            r"targets is .*\(2,\); wanted int64 of shape \(3,\)",
        ),
        ({"targets": PAIR[1].float()}, "targets is torch.float32"),
        ({"batches": []}, "batches is empty; wanted"),
        ({"batches": None}, "batches is NoneType; wanted"),
        ({"batches": PAIR}, r"batches\[0\] is a Tensor; wanted a pair"),
        ({"batches": [PAIR[:1]]}, r"batches\[0\] is a tuple of 1; wanted a pair"),
        ({"batches": [PAIR, (PAIR[0], PAIR[1][:1])]}, r"batches\[1\]\[1\] is"),
        ({"inner_lr": -0.1}, "inner_lr is -0.1; wanted"),
        ({"inner_lr": [0.1]}, "inner_lr is of 1 steps; wanted 2"),
        ({"inner_lr": [0.1, float("nan")]}, r"inner_lr\[1\] is nan; wanted"),
        ({"inner_steps": -1}, "inner_steps is -1; wanted"),
        ({"inner_steps": 1.5}, "inner_steps is 1.5; wanted"),
        ({"truncate": 0}, "truncate is 0; wanted"),
        ({"truncate": 3}, "truncate is 3; wanted 1 to inner_steps, 2"),
        ({"mode": "forward"}, "mode is 'forward'; wanted"),
        ({"batchnorm": "train"}, "batchnorm is 'train'; wanted"),
        ({"chunk": 0}, "chunk is 0; wanted"),
        ({"batchnorm": "batch"}, "chunk is 32; wanted None with batchnorm='batch'"),
        ({"rows": [PAIR[1]]}, "rows is of 1 steps; wanted 2"),
        ({"rows": [PAIR[1], PAIR[1] + 3]}, "numbers from 0 to 3; wanted 0 to 2"),
        ({"rows": [PAIR[1], PAIR[1][:0]]}, r"rows\[1\] is torch.int64 of shape \(0,\)"),
        ({"rows": [PAIR[1], [0]]}, r"rows\[1\] is \[0\]; wanted a Tensor"),
        ({"parameters": "tail"}, "parameters is 'tail'; wanted one of"),
        ({"parameters": ["nothing"]}, "parameters has 'nothing'; wanted names"),
        ({"parameters": []}, r"parameters is \[\], which holds none"),
        ({"parameters": 3}, "parameters is 3; wanted a Collection"),
        ({"model": nn.Flatten()}, "parameters is 'trainable', which holds none"),
        ({"model": 1}, "model is 1; wanted a Module"),
        (
            {"model": nn.Linear(4, 3), "parameters": "head"},
            "Linear has no feature_extractor",
        ),
        (
            {
                "batches": [PAIR, (PAIR[0][:1], PAIR[1][:1])],
                "batchnorm": "batch",
                "chunk": None,
            },
            "is of 1 example; wanted at least 2",
        ),
        (
            {"rows": [PAIR[1][:1]] * 2, "batchnorm": "batch", "chunk": None},
            "is of 1 example; wanted at least 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(changed, message):
    model = smooth_network("2d").float()
    calls = model.register_forward_pre_hook(lambda *_: pytest.fail("worked"))
    arguments = {
        "model": model,
        "exemplars": PAIR[0],
        "targets": PAIR[1],
        "batches": [PAIR],
        "inner_lr": 0.1,
        "inner_steps": 2,
        **changed,
    }
    with pytest.raises(ValueError, match=message):
        hypergradient(**arguments)
    calls.remove()

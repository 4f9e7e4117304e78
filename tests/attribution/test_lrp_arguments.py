"""What relevance cannot be asked of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from zennit.torchvision import ResNetCanonizer

from avalanche_ext.attribution import LRP


def test_wrong_arguments_are_refused():
    model, x = nn.Linear(4, 2), torch.zeros(2, 4)
    with pytest.raises(ValueError, match="composite is 'epsilon_gamma'; wanted one of"):
        LRP(composite="epsilon_gamma")
    with pytest.raises(ValueError, match="start is 'zero'; wanted one of"):
        LRP(start="zero")
    with pytest.raises(ValueError, match="canonizers is 3; wanted a list of zennit's"):
        LRP(canonizers=3)
    for wrong in (3, ResNetCanonizer):
        with pytest.raises(ValueError, match="canonizers has .*; wanted zennit's"):
            LRP(canonizers=[wrong])
    for wrong in (0, [0, 1], "x", np.zeros(2, int)):
        message = f"targets are a {type(wrong).__name__}; wanted a tensor, torch.int64"
        with pytest.raises(ValueError, match=message):
            LRP()(model, x, wrong)
    for wrong, seen in (x.numpy(), "ndarray"), (None, "NoneType"), (x[0, 0], "number"):
        for call in (LRP(), LRP().require_supported):
            with pytest.raises(ValueError, match=f"x is a {seen}; wanted a torch.Tens"):
                call(model, wrong)
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="the logits of Linear are not finite"):
            LRP()(model, x + wrong)
    with pytest.raises(ValueError, match=r"torch.int64 of shape \(3,\); wanted"):
        LRP()(model, x, torch.tensor([0, 1, 0]))
    with pytest.raises(ValueError, match="targets are torch.float32"):
        LRP()(model, x, torch.zeros(2))
    with pytest.raises(ValueError, match=r"wanted logits \(B, K\)"):
        LRP()(nn.Sequential(model, nn.Flatten(0)), x)
    with pytest.raises(ValueError, match="depend on no layer"):
        LRP()(nn.Flatten(), x)

"""What the diagonal Fisher holds at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from avalanche_ext.functional.fisher import diagonal_fisher


class Largest(TorchDispatchMode):
    """Notes the most numbers any tensor had that an operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numel = max(self.numel, out.numel())
        return out


@pytest.mark.parametrize("kind", ["empirical", "ggn"])
def test_gradients_of_examples_are_held_for_a_chunk_only(kind):
    model = nn.Sequential(nn.Linear(20, 40), nn.LayerNorm(40), nn.Linear(40, 3))
    x, y = torch.randn(200, 1, 20), torch.zeros(200, dtype=torch.long)
    model = nn.Sequential(model, nn.Flatten())
    largest = max(p.numel() for p in model.parameters())
    with Largest() as found:
        diagonal_fisher(model, x, y, kind=kind, chunk=4)
    assert found.numel <= max(4 * largest, x.numel())
    with Largest() as found:
        diagonal_fisher(model, x, y, kind=kind, chunk=200)
    assert found.numel >= 200 * largest  # on sequences no shortcut is taken

"""Answering a test stream without a strategy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from timings.methods.method import Run


def classifier(run: Run) -> Callable[[], int]:
    """Argmax of the model's logits, and how many are right.

    Args:
        run: A trained one.

    Returns:
        A function that answers the test stream from normalised tensors in memory, in
        the strategy's batches, and returns the number of images.
    """
    from avalanche.models import avalanche_forward

    model, batches = run.strategy.model, batches_of(run)

    def answer() -> int:
        model.eval()
        right = torch.zeros((), dtype=torch.int64, device=run.strategy.device)
        with torch.no_grad():
            for x, y, task in batches:
                logits = avalanche_forward(model, x, task)
                right += (logits.argmax(1) == y).sum()
        right.item()  # what is asked for in the end; a GPU is waited for
        return sum(len(y) for _, y, _ in batches)

    return answer


def batches_of(run: Run) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The test stream as the strategy evaluates it, in memory.

    Args:
        run: Whose.

    Returns:
        Normalised images, labels and task labels of each batch.
    """
    from torch.utils.data import default_collate

    batches: list[tuple[Tensor, Tensor, Tensor]] = []
    for experience in run.test_stream:
        data = experience.dataset.eval()
        fields = default_collate([data[i] for i in range(len(data))])
        size, device = run.strategy.eval_mb_size, run.strategy.device
        batches += zip(*(f.to(device).split(size) for f in fields), strict=True)
    return batches

"""EWC+FR+Replay: mini-batches of new images and memorable points, three priors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from timings.methods.data import N_CLASSES, NEW, OLD, Epochs, labels, two_experiences
from timings.methods.inference import classifier
from timings.methods.method import Frame, Method, Run, template_options

BATCH, MEMORY = 256, 200
TAU, TEMPERATURE, STRENGTH, PRECISION, MAX_NORM = 0.25, 2.0, 2.0, 1e-3, 100.0


def ours(frame: Frame, plugins: Sequence[Any]) -> Run:
    """As the recipe of Split-CIFAR, on two experiences."""
    from avalanche_ext import EWCFRReplay
    from avalanche_ext.models import CifarNet, TaskClassifier, TaskIncrementalClassifier

    head = TaskClassifier(512, n_outputs=N_CLASSES)
    model = TaskIncrementalClassifier(CifarNet(), head)
    strategy = EWCFRReplay(
        memory_size=MEMORY,
        tau=TAU,
        temperature=TEMPERATURE,
        strength=STRENGTH,
        prior_precision=PRECISION,
        max_grad_norm=MAX_NORM,
        fisher_outputs="all",
        plugins=plugins,
        **_training(model, frame),
        **frame.switches,
    )
    return _run(strategy, frame)


def theirs(frame: Frame, plugins: Sequence[Any]) -> Run:
    """EWC with replay: as many images in a mini-batch, as many of them remembered."""
    from avalanche.models import MultiHeadClassifier
    from avalanche.training.plugins import ReplayPlugin
    from avalanche.training.supervised import EWC

    from avalanche_ext.models import CifarNet, TaskIncrementalClassifier

    n_old = max(1, BATCH * MEMORY // (frame.n_batches * BATCH + MEMORY))
    replay = ReplayPlugin(MEMORY, batch_size=BATCH - n_old, batch_size_mem=n_old)
    model = TaskIncrementalClassifier(CifarNet(), MultiHeadClassifier(512))
    strategy = EWC(
        criterion=nn.CrossEntropyLoss(),
        ewc_lambda=STRENGTH,
        plugins=[replay, *plugins],
        **_training(model, frame),
    )
    return _run(strategy, frame)


def bare(frame: Frame) -> Callable[[], int]:
    """The three losses by functions, with a past drawn at random."""
    from avalanche_ext.functional.functional_prior import (
        FUNCTION,
        MASKED,
        REPLAY,
        soft_targets,
    )
    from avalanche_ext.functional.functional_prior import NEW as NOT_REMEMBERED
    from avalanche_ext.models import CifarNet

    device, n = frame.device, frame.n_batches * BATCH
    targets = torch.cat([labels(MEMORY, OLD), labels(n, NEW)]).to(device)
    points = Epochs(torch.arange(len(targets)), BATCH, device)
    other = torch.zeros(2, N_CLASSES, dtype=torch.bool)
    other[0, list(NEW)] = other[1, list(OLD)] = True
    hidden = other.to(device)[(targets >= NEW.start).long()]
    remembered = torch.rand(len(targets), N_CLASSES, device=device)
    soft = soft_targets(remembered.masked_fill(hidden, MASKED), TEMPERATURE)
    roles = torch.full_like(targets, NOT_REMEMBERED)
    roles[:MEMORY], roles[: MEMORY // 2] = FUNCTION, REPLAY
    weights = torch.ones(len(targets), device=device)
    weights[:MEMORY] = TAU
    model = nn.Sequential(CifarNet(), nn.Linear(512, N_CLASSES)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    anchor = _flat(model).detach().clone()
    h = torch.rand_like(anchor) + PRECISION

    def train() -> int:
        model.train()
        for x, rows in points:
            optimizer.zero_grad()
            loss = mixed_loss(
                model(x).masked_fill(hidden[rows], MASKED),
                *(each[rows] for each in (targets, roles, soft, weights)),
            ) + penalty(_flat(model), anchor, h, len(points))
            loss.backward()
            clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
        return len(points)

    return train


def mixed_loss(
    logits: Tensor, targets: Tensor, roles: Tensor, soft: Tensor, weights: Tensor
) -> Tensor:
    """Weighted mean over new images and both kinds of points."""
    from avalanche_ext.functional.functional_prior import mixed_losses

    losses = mixed_losses(logits, targets, roles, soft, temperature=TEMPERATURE)
    return (weights * losses).mean()


def penalty(flat: Tensor, anchor: Tensor, precision: Tensor, n: int) -> Tensor:
    """EWC, as a part of a mean over n samples."""
    from avalanche_ext.functional.functional_prior import quadratic_penalty

    return STRENGTH / n * quadratic_penalty(flat, anchor, precision)


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([p.reshape(-1) for p in model.parameters()])


def _training(model: nn.Module, frame: Frame) -> dict[str, Any]:
    return {
        "model": model,
        "optimizer": torch.optim.Adam(model.parameters(), lr=1e-3),
        **template_options(frame, BATCH),
    }


def _run(strategy: Any, frame: Frame) -> Run:
    benchmark = two_experiences(frame.n_batches * BATCH, task_labels=True)
    return Run(strategy, benchmark.train_stream, benchmark.test_stream)


METHODS = (
    Method(
        name="ewc_fr_replay",
        what=f"CifarNet, 32x32, batches of {BATCH} out of new images and {MEMORY} "
        "memorable points, task labels, Adam",
        nearest="EWC with ReplayPlugin",
        batch_size=BATCH,
        ours=ours,
        theirs=theirs,
        bare=bare,
        inference=classifier,
        slow=("fisher",),
    ),
)

"""AR1*: few new images and many latents in a mini-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from timings.ar1_star import stream
from timings.foundation import Noise
from timings.methods.data import N_CLASSES, Epochs
from timings.methods.inference import classifier
from timings.methods.method import Frame, Method, Run, template_options

#: As of 300 new images and 1500 latents, with a quarter of the mini-batch.
BATCH, CURRENT, SIZE = 32, 5, 128
REPLAYED = BATCH - CURRENT
CUT = "conv5_4.dw"
LR, LATER_LR, MOMENTUM, DECAY = 1e-3, 5e-5, 0.9, 5e-4


def ours(frame: Frame, plugins: Sequence[Any]) -> Run:
    """As the recipe of NICv2-391."""
    from avalanche_ext import FeatureClassifier
    from avalanche_ext.models import MobileNetV1
    from avalanche_ext.strategies import AR1Star

    torch.manual_seed(0)
    extractor = MobileNetV1()
    model = FeatureClassifier(extractor, nn.Linear(extractor.feature_size, N_CLASSES))
    strategy = AR1Star(
        model=model,
        optimizer=_sgd(model.parameters(), LR),
        input_shape=(3, SIZE, SIZE),
        latent_layer=f"feature_extractor.{CUT}",
        memory_size=frame.n_batches * REPLAYED,
        later_lr=LATER_LR,
        plugins=plugins,
        train_epochs=1,
        **template_options(frame, BATCH),
        **frame.switches,
    )
    return _run(strategy, frame)


def theirs(frame: Frame, plugins: Sequence[Any]) -> Run:
    """Avalanche's AR1 around the same network, cut at the same layer."""
    from avalanche_ext.models import MobileNetV1
    from benchmarks.training.ar1_host import make_ar1, split_mobilenet

    torch.manual_seed(0)
    extractor = MobileNetV1()
    head = nn.Linear(extractor.feature_size, N_CLASSES, bias=False)
    strategy = make_ar1(
        split_mobilenet(extractor, CUT, head),
        rm_sz=frame.n_batches * REPLAYED,
        lr=LR,
        inc_lr=LATER_LR,
        momentum=MOMENTUM,
        l2=DECAY,
        plugins=list(plugins),
        train_epochs=1,
        **template_options(frame, BATCH),
    )
    return _run(strategy, frame)


def bare(frame: Frame) -> Callable[[], int]:
    """The lower layers for new images, the upper ones for both."""
    from avalanche_ext.models import MobileNetV1

    torch.manual_seed(0)
    extractor = MobileNetV1()
    learner = Learner(extractor, nn.Linear(extractor.feature_size, N_CLASSES), frame)
    return learner.epoch


class Learner:
    """AR1*'s training of a second experience with torch alone.

    Args:
        extractor: The network; its normalisations are replaced.
        head: Its classifier.
        frame: Of the comparison.
    """

    def __init__(self, extractor: Any, head: nn.Linear, frame: Frame) -> None:
        from avalanche_ext.models.batch_renorm_conversion import to_batch_renorm

        to_batch_renorm(extractor, momentum=5e-5, r_max=1.25, d_max=0.5, growth=0.0).to(
            frame.device
        )
        layers = [extractor.get_submodule(n) for n in extractor.layer_names.values()]
        n = 1 + list(extractor.layer_names.values()).index(CUT)
        self.lower = nn.Sequential(*layers[:n]).eval().requires_grad_(False)
        self.upper = nn.Sequential(*layers[n:], nn.Flatten(), head.to(frame.device))
        moving = [p for p in self.upper.parameters() if p is not head.bias]
        self.optimizer = _sgd(moving, LATER_LR)
        device, n_new = frame.device, frame.n_batches * CURRENT
        targets = torch.arange(n_new) % N_CLASSES
        self.images = Epochs(targets, CURRENT, device, size=SIZE)
        with torch.no_grad():
            x, _ = next(iter(self.images))
            shape = self.lower(x[:1]).shape[1:]
        self.latents = torch.rand(frame.n_batches * REPLAYED, *shape)
        self.labels = torch.arange(len(self.latents), device=device) % N_CLASSES

    def epoch(self) -> int:
        """Train one epoch; see `Method.bare`."""
        self.upper.train()
        order = torch.randperm(len(self.latents))
        for (x, y), rows in zip(self.images, order.split(REPLAYED), strict=True):
            old = self.latents.index_select(0, rows).to(y.device)
            self.step(x, y, old, self.labels[rows.to(y.device)])
        return len(self.images) + len(self.latents)

    def step(
        self, x: torch.Tensor, y: torch.Tensor, old: torch.Tensor, of_old: torch.Tensor
    ) -> torch.Tensor:
        """Train one mini-batch.

        Args:
            x: New images.
            y: Their labels.
            old: Latents.
            of_old: Their labels.

        Returns:
            The loss.
        """
        self.optimizer.zero_grad()
        with torch.no_grad():
            new = self.lower(x)
        loss = cross_entropy(self.upper(torch.cat([new, old])), torch.cat([y, of_old]))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss


def _sgd(parameters: Any, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr, momentum=MOMENTUM, weight_decay=DECAY)


def _run(strategy: Any, frame: Frame) -> Run:
    """A first experience large enough to fill the memory, then one of few images."""
    from avalanche.benchmarks import task_incremental_benchmark

    n_first, n = frame.n_batches * BATCH, frame.n_batches * CURRENT
    images = Noise(n_first + n, size=SIZE)
    rows = [range(n_first), range(n_first, n_first + n)]
    # task labels mean nothing here, but Avalanche's AR1 wants them in a batch
    benchmark = task_incremental_benchmark(stream(images, rows, n_test=n_first))
    return Run(strategy, benchmark.train_stream, benchmark.test_stream)


METHODS = (
    Method(
        name="ar1_star",
        what=f"MobileNetV1, {SIZE}x{SIZE}, cut at {CUT}, batch {BATCH} of {CURRENT} new "
        f"images and {REPLAYED} latents; AR1 around the same network, at the same cut",
        nearest="AR1",
        batch_size=BATCH,
        ours=ours,
        theirs=theirs,
        bare=bare,
        inference=classifier,
    ),
)

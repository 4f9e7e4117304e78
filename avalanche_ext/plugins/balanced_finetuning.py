"""Fine-tuning on the class-balanced exemplars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR

from avalanche_ext._checks import (
    require_choice,
    require_kind,
    require_positive,
    require_real,
    require_whole,
)
from avalanche_ext.loaders import make_loader, values_of
from avalanche_ext.models.cosine_classifier import classes_in
from avalanche_ext.models.feature_classifier import (
    evaluating,
    require_cosine_classifier,
)

Penalty = Callable[[nn.Module, Tensor, Tensor], Tensor]


class BalancedFinetuningPlugin(SupervisedPlugin):
    """After each experience but the first, tune all prototypes on the exemplars.

    The new classes dominated the experience; the exemplars are as many for every
    class. The feature extractor rests (its batch statistics too), and so does the
    classifier's scale; prototypes of old and new classes move. With ``tuned="all"``
    every trainable parameter moves too; the batch statistics rest.

    Callbacks: after an experience, with the exemplars of its own classes already in
    the buffer (list this plugin behind the one that fills the buffer). Changes the
    parameters tuned; modes, gradients and ``requires_grad`` are left as found. Keeps
    nothing between experiences.

    Args:
        buffer: Exemplars of all classes.
        epochs: Passes over the exemplars, >= 1.
        lr: Learning rate, > 0.
        milestones: Epochs after which the rate is divided by 10.
        momentum: Of the SGD made for each fine-tuning.
        weight_decay: Of the same.
        batch_size: Exemplars a step, >= 1.
        tuned: ``"prototypes"``, or ``"all"`` as in Mnemonics.
        penalty: ``(model, x, targets)`` -> scalar added to the strategy's loss
            function, as `LUCIRPlugin.penalty`; None for nothing.
        memory_resident: See `avalanche_ext.loaders.make_loader`.
        generator: Of the shuffling and augmentation; None for torch's default.

    Raises:
        ValueError: If a size or rate is not positive; after an experience, if its
            classes are missing from the buffer.

    References:
        Hou et al., CVPR 2019 (LUCIR), class balance fine-tuning; defaults as in
        their ImageNet script.
    """

    def __init__(
        self,
        buffer: ExemplarsBuffer,
        *,
        epochs: int = 20,
        lr: float = 0.01,
        milestones: Sequence[int] = (10,),
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        batch_size: int = 128,
        tuned: Literal["prototypes", "all"] = "prototypes",
        penalty: Penalty | None = None,
        memory_resident: Literal["auto"] | bool = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        require_kind(ExemplarsBuffer, buffer=buffer)
        require_whole(1, epochs=epochs, batch_size=batch_size)
        require_whole(0, **{f"milestones[{i}]": m for i, m in enumerate(milestones)})
        require_positive(lr=lr)
        require_real(0, momentum=momentum, weight_decay=weight_decay)
        require_choice(("prototypes", "all"), tuned=tuned)
        self.buffer = buffer
        self.tuned = tuned
        self.epochs = epochs
        self.lr = lr
        self.milestones = tuple(milestones)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.penalty = penalty
        self.memory_resident = memory_resident
        self.generator = generator

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Fine-tune, if the classifier knew classes before this experience."""
        model = strategy.model
        head = require_cosine_classifier(model)
        if head.n_old == 0:
            return
        exemplars = self.buffer.buffer
        kept = set(values_of(exemplars.targets)) if len(exemplars) else set()
        if kept.isdisjoint(classes_in(strategy.experience)):
            raise ValueError(
                f"the buffer holds exemplars of classes {sorted(kept)}, none of the "
                "experience just trained; wanted this plugin listed behind the one "
                "that fills the buffer"
            )
        loader = make_loader(
            self.buffer.buffer.train(),
            batch_size=self.batch_size,
            shuffle=True,
            device=strategy.device,
            memory_resident=self.memory_resident,
            generator=self.generator,
        )
        moving = list(head.prototypes.parameters())
        if self.tuned == "all":
            moving += [p for p in model.parameters() if p.requires_grad]
        moving = list(dict.fromkeys(moving))
        with evaluating(model), only_trainable(model, moving):
            optimizer = SGD(
                moving,
                lr=self.lr,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
            )
            schedule = MultiStepLR(optimizer, list(self.milestones), gamma=0.1)
            for _ in range(self.epochs):
                for batch in loader:
                    x, y = (t.to(strategy.device) for t in batch[:2])
                    self._step(strategy, optimizer, x, y)
                schedule.step()

    def memory_bytes(self) -> dict[str, int]:
        """Nothing: the buffer is another plugin's.

        Returns:
            ``{}``.
        """
        return {}

    def _step(self, strategy: Any, optimizer: SGD, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = strategy._criterion(strategy.model(x), y)
            if self.penalty is not None:
                loss = loss + self.penalty(strategy.model, x, y)
            loss.backward()
        optimizer.step()


@contextmanager
def only_trainable(model: nn.Module, moving: Sequence[nn.Parameter]) -> Iterator[None]:
    """Freeze everything but some parameters; put every flag and gradient back.

    Args:
        model: The whole model.
        moving: Parameters of it.
    """
    found = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    model.requires_grad_(False)
    for parameter in moving:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, flag, grad in found:
            parameter.requires_grad_(flag)
            parameter.grad = grad

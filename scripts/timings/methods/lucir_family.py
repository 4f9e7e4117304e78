"""LUCIR, BDR and CwD beside Avalanche's iCaRL."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from timings.foundation import BATCH
from timings.methods.data import NEW, OLD, Epochs, labels, two_experiences
from timings.methods.inference import classifier
from timings.methods.method import Frame, Method, Run, template_options

Kind = Literal["lucir", "bdr", "cwd"]
DISTILLATION = 5.0  # LUCIR's for CIFAR-100; as many old classes as new ones


def sgd(parameters: Any) -> torch.optim.SGD:
    """The optimizer of all sides."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)


class Family:
    """The methods of one network and size.

    Args:
        make_extractor: Makes the network; None: ResNet-32.
        batch_size: Images of a mini-batch.
        exemplars: Of each class.
    """

    def __init__(
        self,
        make_extractor: Callable[[], Any] | None = None,
        *,
        batch_size: int = BATCH,
        exemplars: int = 20,
    ) -> None:
        self.make_extractor = make_extractor
        self.batch_size = batch_size
        self.exemplars = exemplars

    def methods(self) -> tuple[Method, ...]:
        """All of them."""
        titles = {
            "lucir": "LUCIR",
            "bdr": "BDR after the first experience",
            "cwd": "LUCIR+CwD, which acts in all experiences",
        }
        slow: dict[str, tuple[str, ...]] = {"bdr": ("bdr-update",), "cwd": ("cwd",)}
        return tuple(
            Method(
                name=kind,
                what=f"{title}: ResNet-32, 32x32, batch {self.batch_size} of new images "
                f"and exemplars, {self.exemplars} of each old class",
                nearest="ICaRL",
                batch_size=self.batch_size,
                ours=partial(self.ours, kind),
                theirs=self.theirs,
                bare=partial(self.bare, kind),
                inference=classifier,
                slow=slow.get(kind, ()),
            )
            for kind, title in titles.items()
        )

    def extractor(self) -> Any:
        """A new network without classifier, always of the same weights."""
        from avalanche_ext import resnet32_cifar

        torch.manual_seed(0)
        return (self.make_extractor or resnet32_cifar)()

    def run(self, strategy: Any, frame: Frame) -> Run:
        """A strategy and its data."""
        stream = two_experiences(frame.n_batches * self.batch_size)
        return Run(strategy, stream.train_stream, stream.test_stream)

    def ours(self, kind: Kind, frame: Frame, plugins: Sequence[Any]) -> Run:
        """A strategy of this package."""
        from avalanche_ext import BDR, LUCIR, CosineClassifier, FeatureClassifier

        extractor = self.extractor()
        model = FeatureClassifier(extractor, CosineClassifier(extractor.feature_size))
        make: dict[str, Callable[..., Any]] = {
            "lucir": LUCIR,
            "bdr": BDR,
            "cwd": partial(BDR, bdr=False, cwd_experiences="all"),
        }
        strategy = make[kind](
            model=model,
            optimizer=sgd(model.parameters()),
            distillation_weight=DISTILLATION,
            exemplars_per_class=self.exemplars,
            plugins=plugins,
            **template_options(frame, self.batch_size),
            **frame.switches,
        )
        return self.run(strategy, frame)

    def theirs(self, frame: Frame, plugins: Sequence[Any]) -> Run:
        """iCaRL with as many exemplars of each class."""
        from avalanche.training.supervised import ICaRL

        extractor = self.extractor()
        head = nn.Linear(extractor.feature_size, len(OLD) + len(NEW))
        strategy = ICaRL(
            feature_extractor=extractor,
            classifier=head,
            optimizer=sgd([*extractor.parameters(), *head.parameters()]),
            memory_size=self.exemplars,
            buffer_transform=None,
            fixed_memory=False,  # so many of each class
            plugins=list(plugins),
            **template_options(frame, self.batch_size),
        )
        return self.run(strategy, frame)

    def bare(self, kind: Kind, frame: Frame) -> Callable[[], int]:
        """An epoch of the second experience without a strategy."""
        targets = [
            labels(frame.n_batches * self.batch_size, NEW),
            labels(self.exemplars * len(OLD), OLD),
        ]
        data = Epochs(torch.cat(targets), self.batch_size, frame.device)
        learner = Learner(kind, self.extractor().to(frame.device))
        if kind == "bdr":
            learner.start_adjustment(data)

        def epoch() -> int:
            for x, y in data:
                learner.step(x, y)
            return len(data)

        return epoch


class Learner:
    """LUCIR's training of a second experience with torch alone.

    Args:
        kind: What is added to it.
        extractor: The network; copied as the frozen one.

    Attributes:
        old: Prototypes of the old classes, which stay.
        new: Those of the new classes.
        scale: Of the cosine.
        adjustment: Running class prior of BDR.
    """

    def __init__(self, kind: Kind, extractor: Any) -> None:
        self.kind = kind
        self.extractor = extractor.train()
        self.reference = copy.deepcopy(extractor).eval().requires_grad_(False)
        one = next(extractor.parameters())
        bound = extractor.feature_size**-0.5
        self.old, self.new = (
            one.new_empty(len(c), extractor.feature_size).uniform_(-bound, bound)
            for c in (OLD, NEW)
        )
        self.scale = one.new_ones(1).requires_grad_()
        self.new.requires_grad_()
        self.optimizer = sgd([*extractor.parameters(), self.new, self.scale])
        self.adjustment: Any = None

    def start_adjustment(self, data: Epochs) -> None:
        """Class statistics of all training images, before the first epoch."""
        from avalanche_ext.functional.class_statistics import class_statistics
        from avalanche_ext.functional.logit_adjustment import start_adjustment

        with torch.no_grad():
            seen = [(self.reference(x), y) for x, y in data]
        features, targets = (torch.cat(part) for part in zip(*seen, strict=True))
        n_classes = len(OLD) + len(NEW)
        self.adjustment = start_adjustment(
            class_statistics(features, targets, n_classes)
        )

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """Train one mini-batch.

        Args:
            x: Images.
            y: Labels.

        Returns:
            The loss.
        """
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy and the terms of the method."""
        from avalanche_ext.functional.cosine import cosine_scores
        from avalanche_ext.functional.less_forget import less_forget_loss
        from avalanche_ext.functional.margin_ranking import margin_ranking_loss

        features = self.extractor(x)
        scores = cosine_scores(features, torch.cat([self.old, self.new]))
        logits = self.scale * scores
        if self.kind == "bdr":
            logits = logits + self.offsets(features, y).to(logits.dtype)
        loss = cross_entropy(logits, y)
        with torch.no_grad():
            before = self.reference(x)
        loss = loss + DISTILLATION * less_forget_loss(features, before)
        loss = loss + margin_ranking_loss(scores, y, len(OLD))
        if self.kind == "cwd":
            from avalanche_ext.functional.decorrelation import decorrelation_loss

            loss = loss + 0.5 * decorrelation_loss(normalize(features, dim=1), y)
        return loss

    def offsets(self, features: Tensor, y: Tensor) -> Tensor:
        """BDR's, after they have followed the batch."""
        from avalanche_ext.functional.class_statistics import class_statistics
        from avalanche_ext.functional.logit_adjustment import update_adjustment

        batch = class_statistics(features, y, len(OLD) + len(NEW))
        self.adjustment = update_adjustment(self.adjustment, batch)
        offsets: Tensor = self.adjustment.offsets
        return offsets


METHODS = Family().methods()

"""What is stopped and resumed: models, plugins and strategies, one of each kind."""

from __future__ import annotations

import copy
import enum
import io
import random
from collections import Counter, deque
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import (
    accuracy_metrics,
    amca_metrics,
    bwt_metrics,
    confusion_matrix_metrics,
    forgetting_metrics,
    loss_metrics,
)
from avalanche.logging import TextLogger
from avalanche.models import (
    DynamicModule,
    IncrementalClassifier,
    MultiHeadClassifier,
    MultiTaskModule,
)
from avalanche.training.plugins import (
    EvaluationPlugin,
    EWCPlugin,
    LRSchedulerPlugin,
    LwFPlugin,
    ReplayPlugin,
)
from avalanche.training.storage_policy import (
    ClassBalancedBuffer,
    ExperienceBalancedBuffer,
    ParametricBuffer,
    ReservoirSamplingBuffer,
)
from avalanche.training.supervised import DER, Cumulative, Naive
from cases import N_CLASSES, SIDE, naive_with
from torch import nn, optim


def body() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIDE * SIDE, 8), nn.BatchNorm1d(8), nn.Dropout(0.1)
    )


class Plain(nn.Module):
    """One head, of fixed size or growing."""

    def __init__(self, growing: bool = False) -> None:
        super().__init__()
        self.body = body()
        self.head = IncrementalClassifier(8) if growing else nn.Linear(8, N_CLASSES)

    def forward(self, x):
        return self.head(self.body(x))


class MultiHead(MultiTaskModule):
    """A head for each task label."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()
        self.head = MultiHeadClassifier(8)

    def forward(self, x, task_labels):
        return self.head(self.body(x), task_labels)


class Adapter(nn.Module):
    """A part of a class that only the user's code knows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return x + self.linear(x)


class Adapters(DynamicModule):
    """One more part for each experience trained."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.seen = nn.ModuleList(), []

    def adaptation(self, experience):
        if self.training:
            self.parts.append(Adapter())
            self.seen.append(sorted(experience.classes_in_this_experience))

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


def adapted() -> nn.Module:
    model = Plain()
    model.head = nn.Sequential(Adapters(), model.head)
    return model


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class FirstSamples(SupervisedPlugin):
    """Says itself what to save: it pulls towards the first samples' mean image."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.means, self.rng = [], [], torch.Generator().manual_seed(1)
        self.given: Any = None

    def after_training_exp(self, strategy, **kwargs):
        size = int(torch.randint(2, 9, (), generator=self.rng))
        self._take(strategy.experience, size)

    def before_backward(self, strategy, **kwargs):
        for mean in self.means:
            strategy.loss += strategy.model.body(mean).pow(2).sum()

    def _take(self, experience, size):
        self.sizes.append(size)
        images = [experience.dataset[i][0] for i in range(size)]
        self.means.append(torch.stack(images))

    def state_dict(self):
        return {"sizes": self.sizes, "rng": self.rng.get_state()}

    def load_state_dict(self, state, experiences):
        self.given = experiences
        for experience, size in zip(experiences, state["sizes"], strict=True):
            self._take(experience, size)
        self.rng.set_state(state["rng"])


class Everything(SupervisedPlugin):
    """Keeps one of every kind of thing that is saved without the plugin's help."""

    def __init__(self) -> None:
        super().__init__()
        self.numpy, self.python = np.random.default_rng(3), random.Random(4)
        self.torch, self.made_later = torch.Generator().manual_seed(5), None
        self.function, self.history, self.teachers = (lambda x: 2 * x), [], {}
        self.colour, self.shape = Colour.RED, torch.Size([2, 3])
        self.last, self.counts = deque(maxlen=2), Counter("aab")
        self.nested = {(1, "a"): [{None: {2, 3}}, frozenset([4])], 1.5: (b"x", -1)}

    def after_training_exp(self, strategy, **kwargs):
        self.made_later = self.made_later or torch.Generator().manual_seed(6)
        draws = [torch.rand((), generator=g) for g in (self.torch, self.made_later)]
        draws += [self.numpy.random(), self.python.random(), np.float32(0.5)]
        self.history.append(tuple(draws))
        self.same_history, self.experience = self.history, strategy.experience
        self.array, self.colour = np.arange(3.0).astype(">f4"), Colour.BLUE
        self.last.append(len(self.history))
        self.teachers[len(self.history)] = copy.deepcopy(strategy.model.body).eval()
        self.models = [copy.deepcopy(strategy.model)]

    def before_backward(self, strategy, **kwargs):
        if self.history:
            assert self.same_history is self.history
            assert self.nested[1, "a"][0][None] == {2, 3}
            assert self.colour is Colour.BLUE and self.shape.numel() == 6
            assert (self.last.maxlen, self.last[-1]) == (2, len(self.history))
            assert self.counts.most_common(1) == [("a", 2)]
            scale = self.function(float(sum(self.history[-1])) + self.array.sum())
            scale += self.models[0].head.weight.sum().item()
            place = self.experience.logging().current_experience + 1
            strategy.loss += place * scale * strategy.model.head.weight.pow(2).mean()
        for teacher in self.teachers.values():
            ours = strategy.model.body(strategy.mb_x)
            strategy.loss += (ours - teacher(strategy.mb_x)).pow(2).mean()


def make(
    strategy: Any = Naive,
    *,
    model: Any = Plain,
    optimizer: Any = lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    plugins: Any = lambda model, optimizer: [],
    log: Any = None,
    more_metrics: Any = list,
    **options: Any,
) -> Any:
    """A strategy with nearly every metric."""
    net = model()
    by_name = optimizer(net.parameters())
    evaluator = EvaluationPlugin(
        accuracy_metrics(
            epoch=True, experience=True, stream=True, trained_experience=True
        ),
        loss_metrics(epoch=True, stream=True),
        forgetting_metrics(experience=True, stream=True),
        bwt_metrics(experience=True, stream=True),
        confusion_matrix_metrics(stream=True, save_image=False),
        more_metrics(),
        loggers=[TextLogger(log or io.StringIO())],
    )
    return strategy(
        model=net,
        optimizer=by_name,
        plugins=plugins(net, by_name),
        train_mb_size=16,
        train_epochs=2,
        eval_mb_size=64,
        evaluator=evaluator,
        **options,
    )


def replay(buffer: Any, **options: Any) -> Any:
    return lambda model, optimizer: [
        ReplayPlugin(13, storage_policy=buffer(13, **options)),
        EWCPlugin(0.1),
    ]


def scheduled(model: Any, optimizer: Any) -> list[Any]:
    """Decays over the whole stream, so that its position matters."""
    steps = optim.lr_scheduler.MultiStepLR(optimizer, [1, 3, 5], 0.5)
    return [LRSchedulerPlugin(steps, reset_scheduler=False, reset_lr=False)]


def grows() -> Plain:
    return Plain(growing=True)


SUBJECTS: dict[str, dict[str, Any]] = {
    "momentum": {},
    "metrics made at run time": {
        "more_metrics": lambda: amca_metrics(streams=("test",))
    },
    "growing head": {"model": grows},
    "own growing parts": {"model": adapted},
    "class-balanced replay, EWC": {"plugins": replay(ClassBalancedBuffer)},
    "experience-balanced replay, EWC": {"plugins": replay(ExperienceBalancedBuffer)},
    "reservoir replay, EWC": {"plugins": replay(ReservoirSamplingBuffer)},
    "grouped replay, EWC": {"plugins": replay(ParametricBuffer, groupby="class")},
    "LwF": {"plugins": lambda model, optimizer: [LwFPlugin()]},
    "scheduler": {"plugins": scheduled},
    "evaluation while training": {"model": grows, "eval_every": 1},
    "stored logits": {"strategy": DER, "mem_size": 13},
    "all data so far": {"strategy": Cumulative, "criterion": nn.CrossEntropyLoss()},
    "states of its own": {"plugins": lambda model, optimizer: [FirstSamples()]},
    "one of every kind": {"plugins": lambda model, optimizer: [Everything()]},
    "heads by task label": {
        "model": MultiHead,
        "optimizer": lambda p: optim.Adam(p, lr=0.01),
    },
    "heads by task label, LwF": {
        "model": MultiHead,
        "plugins": lambda model, optimizer: [LwFPlugin()],
    },
    "Adam": {"model": grows, "optimizer": lambda p: optim.Adam(p, foreach=True)},
    "AdamW": {"model": grows, "optimizer": lambda p: optim.AdamW(p, amsgrad=True)},
    "RMSprop": {"model": grows, "optimizer": lambda p: optim.RMSprop(p, momentum=0.5)},
}
# Adagrad is left out: with torch 2.6 Avalanche itself cannot train with it.

NEW_API = ["momentum", "growing head", "reservoir replay, EWC", "states of its own"]
CASES = [
    *((name, "old_task_labels" if "label" in name else "old") for name in SUBJECTS),
    *((name, "new") for name in NEW_API),
]


class Counted(SupervisedPlugin):
    """Counts experiences, and keeps what a test wants."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.count, self.kept = 0, None
        vars(self).update(attributes)

    def after_training_exp(self, strategy, **kwargs):
        self.count += 1


def counted(*plugins: Any, **options: Any) -> Any:
    return naive_with(*(plugins or (Counted(), ReplayPlugin(12))), **options)

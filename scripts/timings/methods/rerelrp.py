"""ReReLRP: training around frozen units, and recognition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from timings.methods.data import N_CLASSES, NEW, OLD, Epochs, labels, two_experiences
from timings.methods.inference import batches_of
from timings.methods.method import Frame, Method, Run, template_options

BATCH = 128  # a quarter of the recipe's: a turn is to last seconds
KEPT = 32  # units of each layer in a submodel
REFERENCE = 10  # images a class


def network() -> nn.Module:
    """The network of the authors' command line, always of the same weights."""
    from avalanche_ext.models import resnet18_imagenet

    torch.manual_seed(0)
    extractor = resnet18_imagenet()
    return nn.Sequential(extractor, nn.Linear(extractor.feature_size, N_CLASSES))


def ours(frame: Frame, plugins: Sequence[Any]) -> Run:
    """Validation by other images, so that all sides train on the same ones."""
    from avalanche_ext import ReReLRP

    model = network()
    stream = two_experiences(frame.n_batches * BATCH)
    strategy = ReReLRP(
        model=model,
        optimizer=_sgd(model),
        input_shape=(3, 32, 32),
        valid_stream=stream.test_stream,
        acc_drop=100.0,  # noise says nothing: pruning always goes to the end
        min_units=KEPT,
        prune_step=500,
        reference_per_class=REFERENCE,
        plugins=plugins,
        train_epochs=1,
        **template_options(frame, BATCH),
        **frame.switches,
    )
    return Run(strategy, stream.train_stream, stream.test_stream)


def theirs(frame: Frame, plugins: Sequence[Any]) -> Run:
    """Avalanche's EWC with the same network."""
    from avalanche.training.supervised import EWC

    model = network()
    strategy = EWC(
        model=model,
        optimizer=_sgd(model),
        criterion=nn.CrossEntropyLoss(),
        ewc_lambda=1.0,
        plugins=list(plugins),
        **template_options(frame, BATCH),
    )
    stream = two_experiences(frame.n_batches * BATCH)
    return Run(strategy, stream.train_stream, stream.test_stream)


def bare(frame: Frame) -> Callable[[], int]:
    """As many units of each layer are frozen."""
    model = network().to(frame.device)
    layers = {
        name: torch.arange(len(m.weight), device=frame.device) < KEPT
        for name, m in model.named_modules()
        if isinstance(m, nn.Conv2d)
    }
    learner = Learner(model, layers)
    data = Epochs(labels(frame.n_batches * BATCH, NEW), BATCH, frame.device)

    def epoch() -> int:
        for x, y in data:
            learner.step(x, y)
        return len(data)

    return epoch


class Learner:
    """ReReLRP's training of a second experience with torch alone.

    Args:
        model: The network; normalisations rest.
        frozen: Units that rest by the name of the convolution, bool.
    """

    def __init__(self, model: nn.Module, frozen: dict[str, Tensor]) -> None:
        self.model = model.train()
        self.optimizer = _sgd(model)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(False)
        *_, head = model.modules()
        old = torch.zeros_like(head.bias, dtype=torch.bool)
        old[list(OLD)] = True
        rows = [(head.weight, old), (head.bias, old)]
        rows += [(model.get_submodule(n).weight, units) for n, units in frozen.items()]
        self.rows = [(p, units.nonzero().flatten()) for p, units in rows]

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """Train one mini-batch.

        Args:
            x: Images.
            y: Labels.

        Returns:
            The loss.
        """
        self.optimizer.zero_grad()
        loss = cross_entropy(self.model(x), y)  # all classes of the two are known
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter, units in self.rows:
            parameter.grad.index_fill_(0, units, 0)
        self.optimizer.step()
        return loss


def recognition(run: Run) -> Callable[[], int]:
    """Relevances in all submodels at once, and the answer that forests choose.

    Evaluation reports task-aware accuracy, too: so the true submodel answers as well.

    Args:
        run: A trained one of ours.

    Returns:
        See `Method.inference`.
    """
    from avalanche_ext.attribution import LRP
    from avalanche_ext.functional.recognition import experience_probabilities
    from avalanche_ext.plugins import TaskRecognitionPlugin

    strategy, lrp, batches = run.strategy, LRP(), batches_of(run)
    (plugin,) = (p for p in strategy.plugins if isinstance(p, TaskRecognitionPlugin))
    detectors, stack = plugin.detectors, plugin.submodels(strategy)
    n = len(stack.classes)
    submodels = [strategy.submodel(k) for k in range(n)]

    def answer() -> int:
        n_right = torch.zeros((), dtype=torch.int64, device=strategy.device)
        for x, y, *_ in batches:
            found = lrp(stack, x)
            rows = torch.cat([found.units[name] for name in sorted(found.units)], 1)
            p = [
                detectors._inside(m, part) for m, part in enumerate(rows.chunk(n)[:-1])
            ]
            chosen = experience_probabilities(torch.stack(p, 1)).argmax(1)
            best = found.logits.view(n, len(x), -1).argmax(2)
            n_right += (best[chosen, torch.arange(len(x))] == y).sum()
            with torch.no_grad():  # batches are of one experience
                (own,) = (m for m in submodels if int(y[0]) in m.classes)
                own(x)
        n_right.item()
        return sum(len(y) for _, y, *_ in batches)

    return answer


def _sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.01)


METHODS = (
    Method(
        name="rerelrp",
        what=f"torchvision's ResNet-18, 32x32, batch {BATCH}, frozen units of one "
        "experience; evaluation recognises which of two it is",
        nearest="EWC",
        batch_size=BATCH,
        ours=ours,
        theirs=theirs,
        bare=bare,
        inference=recognition,
        slow=("lrp", "lrp-batch", "prune"),
    ),
)

"""Small hosts, data and networks of the exemplars that are optimised."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from avalanche.benchmarks.utils import TransformGroups, as_classification_dataset
from cases import toy_model
from torch import nn
from torch.nn.functional import (
    avg_pool2d,
    batch_norm,
    conv2d,
    linear,
    normalize,
    softplus,
)
from torch.utils.data import Dataset
from torchvision.transforms import Compose, Normalize

from avalanche_ext import FeatureClassifier, MnemonicsOptimizer
from avalanche_ext.buffers.exemplar_images import ExemplarImages
from avalanche_ext.buffers.exemplar_selection import Chosen
from avalanche_ext.buffers.exemplar_steps import Exemplars
from avalanche_ext.buffers.pixel_space import PixelSpace

CPU = torch.device("cpu")

#: With these the toy stream's images, which nothing normalises, are pixels in 0 to 1.
TOY_PIXELS = {"mean": [0.5], "std": [0.08]}


def quick(**changes):
    """Two outer steps of two inner ones."""
    fixed = {"steps": 2, "inner_steps": 2, "batch_size": 16, "lr": 0.02}
    return MnemonicsOptimizer(**{**fixed, **changes})


def agent(model=None, **others):
    """A strategy as far as a buffer looks at it; by default with six classes."""
    if model is None:
        model = toy_model()
        model.train_classifier.grow(range(6))
    return SimpleNamespace(model=model, device=CPU, **others)


def small_model(shape=(1, 6, 6), n_classes=6):
    """Smooth, with features and a linear classifier."""
    size = torch.Size(shape).numel()
    extractor = nn.Sequential(nn.Flatten(), nn.Linear(size, 8), nn.Tanh())
    return FeatureClassifier(extractor, nn.Linear(8, n_classes))


class Pixels(Dataset):
    """Images in 0 to 1, and their classes."""

    def __init__(self, x, y):
        self.x, self.targets = x, y.tolist()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.targets[i]


def experience(
    classes,
    per_class=6,
    shape=(1, 6, 6),
    *,
    seed=0,
    normalize=None,
    augment=(),
    images=None,
):
    """As Avalanche's, of grey levels; per_class: one number, or one a class."""
    sizes = [per_class] * len(classes) if isinstance(per_class, int) else per_class
    y = torch.tensor(classes).repeat_interleave(torch.tensor(sizes))
    rng = torch.Generator().manual_seed(100 + seed)
    if images is None:
        images = torch.randint(256, (len(y), *shape), generator=rng) / 255
    last = [] if normalize is None else [Normalize(*normalize)]
    groups = {"train": Compose([*augment, *last]), "eval": Compose(last)}
    data = as_classification_dataset(
        Pixels(images, y),
        transform_groups=TransformGroups({k: (v, None) for k, v in groups.items()}),
    )
    return SimpleNamespace(dataset=data, classes_in_this_experience=list(classes))


def fill(buffer, *experiences, host=None):
    """Train on nothing, and select."""
    host = agent(small_model()) if host is None else host
    for each in experiences:
        buffer.post_adapt(host, each)
    return buffer


def counts(buffer):
    """Number of exemplars by class."""
    found = {}
    for label in map(int, buffer.buffer.targets):
        found[label] = found.get(label, 0) + 1
    return found


def inputs_of(buffer):
    """All exemplars as the network sees them."""
    return torch.stack([item[0] for item in buffer.buffer.eval()])


def stored(dtype="float32", sizes=(3, 2), shape=(3, 4, 5), mean=(0.4, 0.5, 0.6)):
    """Images of classes 7, 3, ... on grey levels, and their inputs."""
    kept = ExemplarImages(dtype)
    std = torch.tensor([0.2, 0.25, 0.3])[: len(mean)]
    kept.space = PixelSpace(torch.tensor(mean), std, dtype)
    for label, n in zip((7, 3, 5), sizes):
        levels = torch.randint(256, (n, *shape)) / 255
        kept.put(label, chosen(kept.space.normalized(levels, CPU)), 0)
    return kept


def chosen(x, stored=None, task_labels=None):
    """As a selection returns them: the first samples of an experience."""
    none = torch.full((len(x),), -1)
    return Chosen(
        x,
        none if stored is None else stored,
        torch.arange(len(x)) if stored is None else none,
        none if task_labels is None else task_labels,
    )


class Named(nn.Module):
    """A network of named tensors and a function of them."""

    def __init__(self, tensors, function):
        super().__init__()
        self.function = function
        for name, value in tensors.items():
            constant = name.startswith("running")
            self.register_buffer(name, value) if constant else self.register_parameter(
                name, nn.Parameter(value)
            )

    def forward(self, x):
        return self.function(self, x)


def _convolved(p, x):
    x = conv2d(x, p.K, p.kb, padding=1)
    x = batch_norm(x, p.running_mean, p.running_var, p.gamma, p.beta)
    return linear(avg_pool2d(softplus(x), 3).flatten(1), p.W, p.b)


def _perceptron(p, x):
    hidden = linear(x, p.W1, p.b1).tanh()
    if hasattr(p, "sigma"):
        return p.sigma * linear(normalize(hidden), normalize(p.W2))
    return linear(hidden, p.W2, p.b2)


def golden_network(golden):
    """Of a ``bilevel_*`` file."""
    tensors = {n[6:]: v for n, v in golden.items() if n.startswith("param.")}
    tensors = {n: torch.as_tensor(v, dtype=torch.float64) for n, v in tensors.items()}
    return Named(tensors, _convolved if "K" in tensors else _perceptron)


def golden_exemplars(golden, rows=slice(None)):
    """E and its classes."""
    return Exemplars(golden["E"][rows], golden["yE"][rows])


INFINITE = (torch.tensor(-torch.inf), torch.tensor(torch.inf))

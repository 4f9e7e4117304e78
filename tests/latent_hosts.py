"""Strategies with latent replay, and what to look at in them."""

from __future__ import annotations

import pytest
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from cases import (
    APIS,
    SIDE,
    build,
    toy_benchmark,
    toy_model,
)

from avalanche_ext.plugins import LatentReplayPlugin
from avalanche_ext.strategies._template import ResidentTemplate

LAYER = "feature_extractor.3"
SHAPE = (1, SIDE, SIDE)

apis = pytest.mark.parametrize("api", APIS)
hosts = pytest.mark.parametrize("host", [Naive, ResidentTemplate])


class Watch(SupervisedPlugin):
    """Notes what passes in each batch."""

    def __init__(self, plugin):
        super().__init__()
        self.plugin, self.batches = plugin, []

    def after_backward(self, strategy, **kwargs):
        below = self.plugin.cut.parameters_below.values()
        modes = {m.training for m in self.plugin.cut.modules_below}
        self.batches.append(
            {
                "experience": strategy.clock.train_exp_counter,
                "epoch": strategy.clock.train_exp_epochs,
                "x": len(strategy.mb_x),
                "y": strategy.mb_y.clone(),
                "fields": [len(field) for field in strategy.mbatch],
                "t": strategy.mbatch[-1].clone() if len(strategy.mbatch) > 2 else None,
                "output": len(strategy.mb_output),
                "grads": [p.grad is not None for p in below],
                "modes": modes,
                "batches": len(strategy.dataloader),
            }
        )


def made(host=Naive, *, model=None, plugins=(), after=(), **options):
    """Strategy, plugin and watch."""
    template = {"train_mb_size", "train_epochs", "eval_every"}
    own = {k: v for k, v in options.items() if k not in template}
    model = model or toy_model(cosine=False)
    plugin = LatentReplayPlugin(
        model, LAYER, **{"input_shape": SHAPE, "memory_size": 30, **own}
    )
    watch = Watch(plugin)
    strategy = build(
        host,
        model=model,
        plugins=[*plugins, plugin, watch, *after],
        **{k: v for k, v in options.items() if k in template},
    )
    return strategy, plugin, watch


def train(strategy, api="old", experiences=3, **kwargs):
    for experience in toy_benchmark(api).train_stream[:experiences]:
        strategy.train(experience, **kwargs)


def below(plugin):
    """Parameters and buffers of the lower part."""
    cut = plugin.cut
    buffers = [b for m in cut.modules_below for b in m.buffers(recurse=False)]
    return [t.detach().clone() for t in (*cut.parameters_below.values(), *buffers)]


def plugin_for(model=None, layer=LAYER, **options):
    options = {"input_shape": SHAPE, "memory_size": 30, **options}
    return LatentReplayPlugin(model or toy_model(cosine=False), layer, **options)


def hosted(*others, model=None, host_options=None, **options):
    model = model or toy_model(cosine=False)
    plugin = plugin_for(model, **options)
    strategy = build(
        Naive, model=model, plugins=[plugin, *others], **(host_options or {})
    )
    return strategy, plugin


def stream_of(change):
    """The toy stream with changed data sets."""
    stream = toy_benchmark("new").train_stream
    return benchmark_from_datasets(
        train=[change(e.dataset) for e in stream]
    ).train_stream


def assert_as_found(model):
    for module in model.modules():
        assert module.training
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert all(p.requires_grad for p in model.parameters())

"""Evaluation on images and their mirror images."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from cases import APIS, SIDE, build, naive_with, task_model, toy_benchmark, toy_model
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from avalanche_ext.loaders import batches_of
from avalanche_ext.models import FeatureClassifier
from avalanche_ext.plugins import MirrorTestPlugin
from avalanche_ext.strategies import EWCFRReplay


class Watch(SupervisedPlugin):
    """What every mini-batch of an evaluation was given, and what it gave."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def after_eval_iteration(self, strategy, **kwargs):
        # the last field holds task labels, where there are some
        seen = (strategy.mb_x, strategy.mbatch[-1], strategy.mb_output)
        self.batches.append(tuple(each.clone() for each in seen))


def slow_logits(model, x, task):
    """Of one image: its logits and those of its columns in reverse order, averaged."""
    reverse = x[:, :, list(reversed(range(SIDE)))]
    known = (task,) if task is not None else ()
    one, other = (model(each[None], *known)[0] for each in (x, reverse))
    return [(a + b) / 2 for a, b in zip(one, other)]


@pytest.mark.parametrize("api", APIS)
def test_mirror_test_is_the_mean_over_both_images(api):
    labelled = "task" in api
    model = task_model() if labelled else toy_model(cosine=False)
    watch = Watch()
    strategy = naive_with(MirrorTestPlugin(), watch, model=model)
    benchmark = toy_benchmark(api)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    watch.batches.clear()
    strategy.eval(benchmark.test_stream)

    model.eval()
    n = 0
    with torch.no_grad():
        for images, tasks, logits in watch.batches:
            for x, t, found in zip(images[:3], tasks, logits):
                wanted = slow_logits(model, x, t[None] if labelled else None)
                assert_close(found, torch.stack(wanted))
                n += 1
    assert n == 9
    original = benchmark.test_stream[0].dataset.eval()
    x, *_ = next(iter(batches_of(original, "cpu", batch_size=3)))
    assert torch.equal(watch.batches[0][0][:3], x)


def test_mirror_test_gives_the_same_for_an_image_and_its_mirror_image(rng):
    watch = Watch()
    strategy = naive_with(MirrorTestPlugin(), watch)
    strategy.train(toy_benchmark().train_stream[0])
    x = torch.randn(4, 1, SIDE, SIDE, generator=rng)
    outputs = []
    for images in (x, x.flip(3)):
        strategy.model.eval()
        strategy.mbatch = [images, torch.zeros(4), torch.zeros(4)]
        strategy.mb_output = strategy.forward()
        plain = strategy.mb_output
        strategy.plugins[0].after_eval_forward(strategy)
        outputs.append(strategy.mb_output)
        assert not torch.allclose(plain, strategy.mb_output)
    assert_close(*outputs)


def test_mirror_test_keeps_the_precision_of_the_strategy():
    watch = Watch()
    strategy = build(
        EWCFRReplay,
        model=task_model(),
        memory_size=4,
        precision="bf16",
        plugins=[MirrorTestPlugin(), watch],
    )
    benchmark = toy_benchmark("old_task_labels")
    strategy.train(benchmark.train_stream[0])
    watch.batches.clear()
    strategy.eval(benchmark.test_stream[:1])
    images, tasks, logits = watch.batches[0]
    strategy.model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = [strategy.model(x, tasks) for x in (images, images.flip(3))]
    assert torch.equal(logits, sum(outputs) / 2)


def test_inputs_that_are_no_images_are_refused():
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset

    rows = TensorDataset(torch.zeros(8, 5), torch.tensor([0, 1] * 4))
    rows.targets = [0, 1] * 4
    data = as_classification_dataset(rows)
    benchmark = benchmark_from_datasets(train=[data], test=[data])
    model = FeatureClassifier(nn.Linear(5, 8), nn.Linear(8, 2))
    strategy = naive_with(MirrorTestPlugin(), model=model)
    strategy.train(benchmark.train_stream[0])
    with pytest.raises(ValueError, match=r"shape \(8, 5\); wanted images"):
        strategy.eval(benchmark.test_stream)

"""What latent replay does to the model, the batches and the memory."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from cases import N_CLASSES, build, task_model, toy_benchmark, toy_model
from contract import assert_equal, run, weights
from latent_hosts import SHAPE, apis, below, hosts, made, train
from torch import nn

from avalanche_ext.metrics.memory import memory_bytes
from avalanche_ext.plugins import LatentReplayPlugin
from avalanche_ext.strategies._template import ResidentTemplate


@hosts
@apis
def test_lower_part_stays_bit_identical(host, api):
    strategy, plugin, watch = made(host)
    before = below(plugin)
    train(strategy, api)
    assert all(map(torch.equal, below(plugin), before))
    assert len(before) == 7
    assert not any(any(batch["grads"]) for batch in watch.batches)
    assert all(batch["modes"] == {False} for batch in watch.batches)


def test_lower_part_is_trained_in_experience_0_only_if_not_frozen_first():
    strategy, plugin, watch = made(freeze_first=False)
    before = below(plugin)
    train(strategy, experiences=1)
    first = below(plugin)
    assert not any(map(torch.equal, first, before))
    train_rest = toy_benchmark().train_stream[1:]
    strategy.train(train_rest)
    assert all(map(torch.equal, below(plugin), first))
    for batch in watch.batches:
        assert all(batch["grads"]) == any(batch["grads"]) == (batch["experience"] == 0)


def test_statistics_below_adapt_and_weights_do_not():
    strategy, plugin, watch = made(below="adapt")
    norm = strategy.model.feature_extractor[2]
    before = below(plugin)
    train(strategy)
    changed = [not torch.equal(*pair) for pair in zip(below(plugin), before)]
    assert changed == [False] * 4 + [True] * 3
    assert norm.training and not any(any(b["grads"]) for b in watch.batches)


@hosts
@apis
def test_batches_hold_new_samples_and_latents_with_aligned_labels(host, api):
    strategy, plugin, watch = made(host, model=task_model() if "task" in api else None)
    train(strategy, api)
    for batch in watch.batches:
        new, whole = batch["x"], len(batch["y"])
        assert whole == batch["output"] <= strategy.train_mb_size
        # experiences of 48 samples; memory of 30
        assert (new, whole) == ((16, 16) if batch["experience"] == 0 else (12, 16))
        old = batch["y"][new:]
        assert (batch["y"][:new] // 2 == batch["experience"]).all()
        assert (old // 2 < max(1, batch["experience"])).all()
        if batch["t"] is not None:
            assert batch["t"].dtype == torch.long and len(batch["t"]) == whole
            if api.endswith("task_labels"):
                assert torch.equal(batch["t"], batch["y"] // 2)
    assert plugin.buffer.task_labels is None or "new" != api


def test_epoch_has_as_many_batches_as_the_loader_says():
    strategy, _, watch = made(train_epochs=2)
    train(strategy)
    for experience, wanted in enumerate([3, 4, 4]):
        mine = [b for b in watch.batches if b["experience"] == experience]
        assert {b["batches"] for b in mine} == {wanted}
        assert len(mine) == 2 * wanted


def test_each_latent_is_replayed_once_an_epoch_in_another_order():
    model = toy_model(cosine=False)
    strategy, plugin, _ = made(model=model, memory_size=16, train_epochs=3)
    dealt = []
    plugin.buffer.latents = lambda rows, device="cpu", own=plugin.buffer.latents: (
        dealt.append(rows) or own(rows, device)
    )
    train(strategy, experiences=2)
    epochs = torch.cat(dealt).view(3, 16)
    assert all(sorted(e) == list(range(16)) for e in epochs.tolist())
    assert len({tuple(e) for e in epochs.tolist()}) == 3


@apis
@pytest.mark.parametrize(
    "options", [{}, {"freeze_first": False}, {"order": "published"}]
)
def test_stored_latents_have_the_labels_of_their_samples(api, options):
    strategy, plugin, _ = made(**options, memory_size=60)
    stream = toy_benchmark(api).train_stream
    strategy.train(stream)
    every = [exp.dataset.eval()[i] for exp in stream for i in range(48)]
    x = torch.stack([item[0] for item in every])
    y = torch.tensor([int(item[1]) for item in every])
    t = torch.zeros(len(x)).long()
    found = plugin.cut.latents(x, t).flatten(1)
    stored = plugin.buffer.latents(slice(None)).flatten(1)
    assert len(stored) >= 40
    distance, nearest = (stored[:, None] - found).abs().sum(2).min(1)
    assert torch.equal(y[nearest], plugin.buffer.labels)
    assert torch.equal(y[nearest] // 2, plugin.buffer.experiences)
    assert float(distance.max()) < 1e-4


@apis
def test_memory_grows_to_all_seen_and_then_keeps_its_size(api):
    strategy, plugin, _ = made(memory_size=100)
    sizes = []
    for experience in toy_benchmark(api).train_stream:
        strategy.train(experience)
        sizes.append(len(plugin.buffer))
    # 48 samples an experience, of which whole batches are seen
    assert sizes[0] == 48 and sizes[1:] == [48 + 48, 100]
    assert set(plugin.buffer.experiences.tolist()) == {0, 1, 2}


def test_memory_is_reported_in_bytes():
    strategy, _, _ = made(latent_dtype="uint8", memory_size=10)
    train(strategy, experiences=1)
    # 16 values, label, task label, experience
    assert memory_bytes(strategy)["latents"] == 10 * (16 + 3 * 8)


@apis
def test_without_memory_lower_part_is_frozen_and_the_rest_trained(api):
    strategy, plugin, watch = made(memory_size=0)
    before = below(plugin)
    train(strategy, api)
    assert all(map(torch.equal, below(plugin), before))
    assert len(plugin.buffer) == 0
    assert all(batch["x"] == len(batch["y"]) for batch in watch.batches)


def test_without_memory_it_equals_training_the_upper_part_alone():
    class Freeze(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            for module in strategy.model.feature_extractor[:4]:
                module.eval().requires_grad_(False)

        def after_training_exp(self, strategy, **kwargs):
            strategy.model.train().requires_grad_(True)

    def alone(**options):
        return build(
            ResidentTemplate, model=toy_model(False), plugins=[Freeze()], **options
        )

    def ours(**options):
        return made(ResidentTemplate, memory_size=0)[0]

    # 48 samples are whole batches of 16, so nothing is dropped
    assert_equal(
        weights(run(ours, "new", evaluations=0)[0]),
        weights(run(alone, "new", evaluations=0)[0]),
    )


def test_replay_keeps_old_classes():
    def accuracy(memory_size):
        torch.manual_seed(1)
        strategy, _, _ = made(memory_size=memory_size, train_epochs=4)
        benchmark = toy_benchmark()
        strategy.train(benchmark.train_stream)
        return strategy.eval(benchmark.test_stream)[
            "Top1_Acc_Stream/eval_phase/test_stream/Task000"
        ]

    assert accuracy(60) > accuracy(0) + 0.2


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v3_small"])
def test_published_networks_are_trained_above_the_cut(model):
    torchvision = pytest.importorskip("torchvision")
    net = getattr(torchvision.models, model)(weights=None, num_classes=N_CLASSES)
    wide = nn.Sequential(nn.Upsample(32), nn.Conv2d(1, 3, 1), net)
    layer = {"resnet18": "2.layer3", "mobilenet_v3_small": "2.features.8"}[model]
    plugin = LatentReplayPlugin(wide, layer, input_shape=SHAPE, memory_size=20)
    strategy = build(Naive, model=wide, plugins=[plugin], train_epochs=1)
    before = below(plugin)
    train(strategy, experiences=2)
    assert all(map(torch.equal, below(plugin), before))
    assert len(plugin.buffer) == 20
    assert set(plugin.buffer.experiences.tolist()) == {0, 1}

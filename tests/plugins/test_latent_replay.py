"""What latent replay does to the model, the batches and the memory."""

from __future__ import annotations

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from cases import APIS, N_CLASSES, SIDE, build, task_model, toy_benchmark, toy_model
from contract import assert_equal, run, weights
from torch import nn

from avalanche_ext.metrics.memory import memory_bytes
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
        self.plugin, self.batches, self.states = plugin, [], []

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


@hosts
@apis
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_caching_changes_no_bit(host, api, dtype):
    def make(cache):
        def of(**options):
            model = task_model() if "task" in api else toy_model(cosine=False)
            found = made(host, model=model, cache_current=cache, latent_dtype=dtype)
            kept.append(found[1].buffer)
            return found[0]

        return of

    kept = []
    ours, wanted = (weights(run(make(c), api, evaluations=0)[0]) for c in (True, False))
    assert_equal(ours, wanted)
    assert torch.equal(kept[0].stored, kept[1].stored)
    assert torch.equal(kept[0].labels, kept[1].labels)


def test_cached_lower_part_runs_once_for_each_sample():
    strategy, _, _ = made(cache_current=True, train_epochs=5)
    rows = []
    strategy.model.feature_extractor[1].register_forward_hook(
        lambda m, a, output: rows.append(len(output))
    )
    train(strategy, experiences=1)
    assert sum(rows) == 48


def test_caching_goes_with_a_first_experience_that_trains_all():
    strategy, plugin, watch = made(cache_current=True, freeze_first=False)
    train(strategy)
    assert any(all(b["grads"]) for b in watch.batches)
    assert len(plugin.buffer) == 30


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


def test_published_order_reads_slots_in_their_order_and_data_in_one():
    strategy, _, watch = made(
        order="published", replacement="published", memory_size=20, train_epochs=2
    )
    train(strategy, experiences=2)
    first = [b["y"] for b in watch.batches if b["experience"] == 0]
    assert [len(y) for y in first] == [16] * 6
    assert torch.equal(torch.cat(first[:3]), torch.cat(first[3:]))
    later = [b for b in watch.batches if b["experience"] == 1]
    assert [b["x"] for b in later] == [12] * 8  # (48 + 20) // 16 = 4 batches
    assert torch.equal(
        torch.cat([b["y"] for b in later[:4]]), torch.cat([b["y"] for b in later[4:]])
    )


def test_published_order_fills_the_first_experience_up_with_its_first_samples():
    strategy, plugin, watch = made(order="published", train_mb_size=20)
    plugin._permutation = torch.arange
    train(strategy, experiences=1)
    targets = list(toy_benchmark().train_stream[0].dataset.targets)
    seen = torch.cat([b["y"] for b in watch.batches[:3]]).tolist()
    assert seen == targets[:12] + targets


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

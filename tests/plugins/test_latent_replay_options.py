"""Latent replay with cached latents, and in the published order."""

from __future__ import annotations

import pytest
import torch
from cases import task_model, toy_benchmark, toy_model
from contract import assert_equal, run, weights
from latent_hosts import apis, hosts, made, stream_of, train
from torchvision.transforms import Normalize


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


@pytest.mark.parametrize("resident", [True, False])
def test_published_order_keeps_transforms_that_were_replaced(resident):
    seen, tripled = [], (Normalize((0.0,), (1 / 3,)), None)
    for order in "shuffled", "published":
        strategy, _, _ = made(order=order, memory_resident=resident, train_epochs=1)
        strategy.model.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        stream = stream_of(lambda d: d.replace_current_transform_group(tripled))
        strategy.train(stream[0])
    images = torch.stack([x for x, *_ in toy_benchmark("new").train_stream[0].dataset])
    for found in torch.cat(seen[:3]), torch.cat(seen[3:]):
        assert torch.allclose(found.sum(0), 3 * images.sum(0), atol=1e-4)

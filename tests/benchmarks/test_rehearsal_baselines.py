"""Baselines with exemplars: as many as fit into given bytes; DER's own behaviour."""

from __future__ import annotations

import pytest
import torch

from avalanche_ext.loaders import image_bytes
from avalanche_ext.metrics.memory import memory_bytes
from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.recipes.memory_bytes import stored_bytes
from benchmarks.streams import STREAMS, make_stream

LOGITS = 4 * 10  # of ten classes
MEANS = 4 * 10 * 64  # of iCaRL, ten classes of 64 features


def kept_after_each(recipe, first=3, *, dataset_root=None, **options):
    """What a strategy keeps, but for copies of networks, after each experience."""
    setup = RECIPES[recipe].setup(train_epochs=1, **options)
    benchmark = make_stream(
        setup.stream, dataset_root=dataset_root, **setup.stream_options
    )
    torch.manual_seed(0)
    strategy = setup.make_strategy(evaluator=None, device=torch.device("cpu"))
    for experience in benchmark.train_stream[:first]:
        strategy.train(experience)
        kinds = memory_bytes(strategy)
        kinds.pop("frozen_copies", None)
        yield kinds


@pytest.mark.parametrize(
    ("recipe", "each", "besides"),
    [("replay", 64, 0), ("der", 64 + LOGITS, 0), ("icarl", 64 + 4, MEANS)],
)
@pytest.mark.parametrize("spare", [0, 50])
def test_as_many_exemplars_are_kept_as_fit_and_never_more(recipe, each, besides, spare):
    size = 43 * each + besides + spare
    kept = list(kept_after_each(recipe, memory_bytes=size))
    for n, kinds in enumerate(kept, start=1):
        images = 43 // (2 * n) * (2 * n) if recipe == "icarl" else 43
        assert kinds["exemplars"] == 64 * images
        assert sum(kinds.values()) == images * each + besides <= size


def test_activations_of_avalanches_ar1_fit(data):
    here = {"dataset_root": data("mnist_nc"), "memory_size": 40, "images_per_class": 30}
    (wanted,) = kept_after_each("avalanche_ar1", 1, **here)
    size = sum(wanted.values())
    (kept,) = kept_after_each("avalanche_ar1", 1, memory_bytes=size + 100, **here)
    assert kept == wanted
    with pytest.raises(UsageError, match=r"memory_bytes is 999; wanted at least \d+"):
        next(kept_after_each("avalanche_ar1", 1, memory_bytes=999, **here))


@pytest.mark.parametrize(
    "stream", ["mnist_nc", "split_cifar10", "core50_mini_nicv2_79"]
)
def test_bytes_of_an_image_are_those_the_metric_counts(stream, data, fake_files):
    seed = {"seed": 3} if stream.startswith("core50") else {}
    benchmark = make_stream(stream, dataset_root=data(stream), **seed)
    images = benchmark.train_stream[0].dataset
    assert stored_bytes(stream) * len(images) == image_bytes(images)


@pytest.mark.parametrize("stream", ["image_folder", "split_imagenet_subset"])
def test_bytes_do_not_tell_how_many_files_of_any_size_fit(stream):
    with pytest.raises(UsageError, match=f"stream is {stream}.*wanted --exemplars"):
        RECIPES["replay"].setup(stream=stream, memory_bytes=10_000)


@pytest.mark.parametrize(
    ("recipe", "least"), [("replay", 64), ("der", 64 + LOGITS)], ids=["replay", "der"]
)
def test_bytes_for_less_than_one_image_are_refused(recipe, least):
    assert "1 exemplars" in RECIPES[recipe].setup(memory_bytes=least).memory
    with pytest.raises(UsageError, match=f"is {least - 1}; wanted at least {least}"):
        RECIPES[recipe].setup(memory_bytes=least - 1)


def test_icarl_wants_an_exemplar_a_class():
    least = 10 * (64 + 4) + MEANS
    assert list(kept_after_each("icarl", 1, memory_bytes=least))
    with pytest.raises(UsageError, match=f"wanted at least {least}"):
        next(kept_after_each("icarl", 1, memory_bytes=least - 1))


def der_weights(**options):
    """Weights of the head of DER after two experiences, and its strategy."""
    setup = RECIPES["der"].setup(train_epochs=1, **options)
    benchmark = make_stream(setup.stream, **setup.stream_options)
    torch.manual_seed(0)
    strategy = setup.make_strategy(evaluator=None, device=torch.device("cpu"))
    strategy.train(benchmark.train_stream[:2])
    return strategy.model[1].weight.detach(), strategy


def test_options_of_der_reach_its_loss():
    ours = der_weights()[0]
    assert torch.equal(ours, der_weights()[0])
    for options in ({"alpha": 1.0}, {"beta": 0.0}):
        assert not torch.equal(ours, der_weights(**options)[0])


def test_der_rehearses_from_a_memory_smaller_than_a_mini_batch():
    rehearsed, strategy = der_weights(exemplars=20, train_mb_size=32)
    assert strategy.batch_size_mem == 20
    forgotten, _ = der_weights(exemplars=20, train_mb_size=32, alpha=0.0, beta=0.0)
    assert not torch.equal(rehearsed, forgotten)


def test_der_remembers_what_naive_forgets():
    def accuracy_on_first(recipe):
        setup = RECIPES[recipe].setup(train_epochs=3)
        benchmark = make_stream(setup.stream, **setup.stream_options)
        torch.manual_seed(0)
        strategy = setup.make_strategy(evaluator=None, device=torch.device("cpu"))
        strategy.train(benchmark.train_stream[:3])
        data = benchmark.test_stream[0].dataset
        strategy.model.eval()
        with torch.no_grad():
            logits = strategy.model(torch.stack([x for x, *_ in data]))
        right = logits.argmax(1) == torch.tensor(list(data.targets))
        return right.float().mean().item()

    assert accuracy_on_first("der") > accuracy_on_first("naive") + 0.3


def test_what_is_stored_for_a_stream_is_given_where_it_is_not_what_networks_get():
    for info in STREAMS.values():
        assert info.stored_shape is None or info.stored_shape != info.image_shape

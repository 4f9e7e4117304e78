"""The buffer of exemplars that are optimised."""

from __future__ import annotations

import copy
from itertools import accumulate

import pytest
import torch
from cases import APIS, toy_benchmark
from mnemonics_cases import (
    TOY_PIXELS,
    agent,
    counts,
    experience,
    fill,
    inputs_of,
    quick,
    small_model,
)
from torch import nn

from avalanche_ext import CosineClassifier, FeatureClassifier
from avalanche_ext.buffers import HerdingBuffer, MnemonicsBuffer

OBJECTIVES = ["bilevel", "bilevel_head", "ncm"]


def stream():
    return [experience(c, seed=s) for s, c in enumerate([(0, 4), (1, 3), (5, 2)])]


def made(selection="random", seed=None, **options):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    if "max_size" not in options and isinstance(selection, str):
        options.setdefault("per_class", 4)
    return MnemonicsBuffer(
        selection, generator=generator, **{"optimizer": quick(), **options}
    )


@pytest.mark.golden("mnemonics", "protocol.json")
def test_shares_of_a_total_budget_fill_it_where_the_authors_exceed_it(golden):
    for n_new, theirs in golden["budget_per_class_total_mode"].items():
        sizes = accumulate([50, *[int(n_new)] * (len(theirs) - 1)])
        for n, of_authors in zip(sizes, theirs):
            assert of_authors == -(-2000 // n)
            ours = [*made(max_size=2000)._quotas(range(n)).values()]
            assert sum(ours) == 2000 <= of_authors * n
            assert ours == sorted(ours, reverse=True)
            assert set(ours) <= {2000 // n, -(-2000 // n)}


@pytest.mark.parametrize("api", APIS)
def test_every_class_gets_its_number_in_items_like_those_of_the_stream(api):
    buffer = fill(made(**TOY_PIXELS), *toy_benchmark(api).train_stream, host=agent())
    assert counts(buffer) == dict.fromkeys(range(6), 4)
    wanted = toy_benchmark(api).train_stream[2].dataset
    assert {len(item) for item in buffer.buffer} == {len(wanted[0])}
    if api.endswith("task_labels"):
        tasks = {(int(y) // 2, int(t)) for _, y, t in buffer.buffer}
        assert tasks == {(0, 0), (1, 1), (2, 2)}
    joined = wanted.concat(buffer.buffer.train())
    assert len(joined[0]) == len(joined[len(joined) - 1])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_new_exemplars_are_optimised_and_old_ones_adjusted(objective):
    (first, second), host = stream()[:2], agent(small_model())
    selected = fill(made(optimizer=None, seed=3), first, host=host).images()
    optimizer = quick(objective=objective)
    buffer = fill(made(optimizer=optimizer, seed=3), first, host=host)
    fitted = buffer.images()
    for label, images in buffer.initial(0).items():
        assert torch.equal(images, selected[label])
        assert not torch.equal(images, fitted[label])
    adjusted = fill(buffer, second, host=host).images()
    left = made(optimizer=quick(objective=objective, adjust_old=None), seed=3)
    left = fill(left, first, second, host=host).images()
    for label in fitted:
        assert not torch.equal(adjusted[label], fitted[label])
        assert torch.equal(left[label], fitted[label])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("max_size", [1, 3, 5, 7, 12])
def test_a_total_budget_is_never_exceeded_and_shared_equally(max_size, objective):
    buffer, sizes = made("herding", max_size=max_size), []
    buffer.optimizer = quick(objective=objective)
    original = buffer.exemplars.dataset

    def watched():
        sizes.append(sum(map(len, buffer.exemplars.pixels.values())))
        return original()

    buffer.exemplars.dataset = watched
    for exp in stream():
        fill(buffer, exp)
        assert len(buffer.buffer) == max_size
        kept = counts(buffer).values()
        assert max(kept) - min(kept) <= 1
        assert list(kept) == sorted(kept, reverse=True)
    assert max(sizes) <= max_size


@pytest.mark.parametrize("selection", ["random", "herding"])
def test_shrinking_keeps_the_beginning_of_the_selection(selection):
    buffer = made(selection, optimizer=None, max_size=12)
    first, second, third = stream()
    before = fill(buffer, first).images()
    for exp, k in ((second, 3), (third, 2)):
        now = fill(buffer, exp).images()
        assert torch.equal(now[0], before[0][:k])
    assert torch.equal(buffer.initial(0)[4], before[4][:2])
    buffer.resize(None, 6)
    assert torch.equal(buffer.images()[4], before[4][:1])
    buffer.resize(None, 3)
    assert counts(buffer) == {0: 1, 4: 1, 1: 1}


def test_a_budget_for_another_buffer_is_handed_on():
    buffer = made(HerdingBuffer(max_size=12), optimizer=None)
    fill(buffer, stream()[0])
    buffer.resize(None, 4)
    assert buffer.selection.kind.max_size == buffer.max_size == 4
    assert len(fill(buffer, stream()[1]).buffer) == 4


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_class_that_comes_back_keeps_one_entry_and_its_number(objective):
    host = agent(small_model())
    buffer = fill(made(optimizer=quick(objective=objective)), stream()[0], host=host)
    again = experience((4, 1), seed=9)
    fill(buffer, again, host=host)
    assert counts(buffer) == {0: 4, 4: 4, 1: 4}
    assert list(buffer.exemplars.pixels) == [0, 4, 1]
    sources = buffer.exemplars.rows[4][:, 0].tolist()
    assert set(sources) <= {0, 1}
    images = buffer.images()[4].flatten(1)
    assert len(images.unique(dim=0)) == 4


def test_ragged_numbers_of_exemplars_are_kept():
    exp = experience((0, 4, 2), per_class=[2, 6, 1])
    with pytest.warns(UserWarning, match=r"4 exemplars .* \{0: 2, 2: 1\}"):
        buffer = fill(made(), exp)
    fill(buffer, stream()[1])  # adjusted but for the class of one
    assert counts(buffer) == {0: 2, 2: 1, 4: 4, 1: 4, 3: 4}
    moved = {
        c: not torch.equal(buffer.images()[c], x) for c, x in buffer.initial(0).items()
    }
    assert moved == {0: True, 2: True, 4: True}


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_single_exemplars_are_fitted_but_never_adjusted(dtype):
    first, second = stream()[:2]
    buffer = made(per_class=1, storage_dtype=dtype, optimizer=quick(lr=0.1))
    fitted = fill(buffer, first).images()
    assert not torch.equal(fitted[0], buffer.initial(0)[0])
    assert torch.equal(fill(buffer, second).images()[0], fitted[0])


def test_one_class_alone_is_kept_as_selected_with_a_warning():
    model = FeatureClassifier(small_model().feature_extractor, CosineClassifier(8))
    model.train_classifier.grow([3])
    buffer, host = made(), agent(model)
    with pytest.warns(UserWarning, match="one class only"):
        fill(buffer, experience((3,)), host=host)
    assert torch.equal(buffer.images()[3], buffer.initial(0)[3])
    assert buffer.history.entries == []
    model.train_classifier.grow([1])  # a single new class beside an old one
    fill(buffer, experience((1,), seed=1), host=host)
    assert not torch.equal(buffer.images()[1], buffer.initial(1)[1])
    assert not torch.equal(buffer.images()[3], buffer.initial(0)[3])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 4, 7), (2, 1, 3)])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_any_shape_and_class_ids_work(shape, objective, dtype):
    c = shape[0]
    normalize = ([0.4, 0.5, 0.6][:c], [0.2, 0.3, 0.25][:c])
    exps = [experience(k, shape=shape, normalize=normalize) for k in ((8, 3), (5, 6))]
    optimizer = quick(objective=objective, lr=0.2)
    buffer = made(optimizer=optimizer, storage_dtype=dtype)
    fill(buffer, *exps, host=agent(small_model(shape, 9)))
    assert counts(buffer) == {3: 4, 8: 4, 5: 4, 6: 4}
    assert buffer.exemplars.space.mean.tolist() == pytest.approx(normalize[0])
    images = torch.cat(list(buffer.images().values()))
    assert images.shape == (16, *shape)
    assert images.min() >= 0 and images.max() <= 1
    if dtype == "uint8":
        assert torch.equal((images * 255).round() / 255, images)
    one = torch.Size(shape).numel() * (4 if dtype == "float32" else 1)
    assert buffer.memory_bytes() == {"exemplars": 16 * one}


@pytest.mark.parametrize("selection", ["random", "herding"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_model_and_global_generator_are_left_as_found(selection, objective):
    model = small_model()
    model.feature_extractor.append(nn.BatchNorm1d(8)).append(nn.Dropout())
    model(torch.rand(7, 1, 6, 6)).sum().backward()
    model.train_classifier.weight.requires_grad_(False)
    found, features = copy.deepcopy(model.state_dict()), model.features
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    buffer = made(selection, seed=1, optimizer=quick(objective=objective))
    buffer.buffer_transform = nn.Dropout()  # random, and tried out
    rng = torch.get_rng_state()
    fill(buffer, *stream(), host=agent(model))
    assert torch.equal(torch.get_rng_state(), rng)
    assert model.features is features and model.training
    assert not model.train_classifier.weight.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, found[name])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, gradients[name])


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("epochs", [None, 1])
def test_the_seed_fixes_the_result(seed, epochs):
    optimizer = quick(
        inner_steps=None if epochs else 2, inner_epochs=epochs, inner_batch_size=3
    )
    model, results = small_model(), []
    for round_ in range(3):
        torch.manual_seed(round_ // 2 if seed is None else round_)
        own = None if seed is None else seed + round_ // 2
        buffer = made(optimizer=optimizer, seed=own)
        results.append(inputs_of(fill(buffer, *stream(), host=agent(model))))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("selection", ["random", "herding", "buffer"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_new_buffer_goes_on_from_the_state_bit_for_bit(selection, dtype):
    host, exps = agent(small_model()), stream()
    options = {"storage_dtype": dtype, "seed": 4}

    def new():
        if selection == "buffer":
            return made(HerdingBuffer(max_size=9), **options)
        return made(selection, max_size=9, **options)

    wanted, ours = new(), new()
    fill(wanted, *exps[:2], host=host)
    ours.load_state_dict(wanted.state_dict(), exps[:2])
    for go_on in (False, True):
        if go_on:
            for buffer in (wanted, ours):
                fill(buffer, exps[2], host=host)
        assert torch.equal(inputs_of(ours), inputs_of(wanted))
        assert list(ours.buffer.targets) == list(wanted.buffer.targets)
        for label, rows in wanted.exemplars.rows.items():
            assert torch.equal(ours.exemplars.rows[label], rows)
        assert ours.n_experiences == wanted.n_experiences
        for entry, other in zip(ours.history.entries, wanted.history.entries):
            assert torch.equal(entry["outer_losses"], other["outer_losses"])
    for label, images in wanted.initial(1).items():
        assert torch.equal(ours.initial(1)[label], images)


def test_a_buffer_without_exemplars_comes_back_empty():
    other = made()
    other.load_state_dict(made().state_dict(), [])
    assert len(other.buffer) == 0 and other.n_experiences == 0
    assert other.images() == {} and other.memory_bytes() == {"exemplars": 0}

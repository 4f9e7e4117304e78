"""What is remembered never shows: it is the accuracy of a plain pass, only sooner."""

from __future__ import annotations

import pytest
import torch
from submodel_hosts import (
    HOSTS,
    authors_network,
    host,
    place,
    plainly,
    random_keep,
)
from torch import nn
from torch.testing import assert_close

from avalanche_ext.functional.pruning import prune
from avalanche_ext.models.masked_accuracy import MaskedAccuracy
from avalanche_ext.models.submodel import Submodel

CLASSES = (1, 2, 5)
LAYERS: list[str] = []  # that ran, of those that tell


class Telling(nn.Linear):
    def __init__(self, name, *sizes):
        super().__init__(*sizes)
        self.name = name

    def forward(self, x):
        LAYERS.append(self.name)
        return super().forward(x)


def telling(inplace=False):
    """Ten features, two hidden layers of which the last units are never positive."""
    a, b, c = Telling("a", 10, 6), Telling("b", 6, 6), Telling("c", 6, 6)
    net = nn.Sequential(a, nn.ReLU(inplace), nn.Sequential(b, nn.ReLU(inplace)), c)
    for layer in (a, b):
        layer.bias.data[-1] = -1e3
    return net


def started(net, x, classes=CLASSES, **options):
    """The accuracy of all units, already taken."""
    y = torch.tensor(classes)[torch.arange(len(x)) % len(classes)]
    accuracy = MaskedAccuracy(net, x, y, classes, **place(net, x), **options)
    accuracy.__enter__()
    accuracy({})
    LAYERS.clear()
    return accuracy


def a_run(net, head, rng):
    """Masks as of a run: unit after unit, some at once, and some back again."""
    whole = random_keep(net, head, len(CLASSES), rng, share=2.0)
    yield whole
    units = [(n, c) for n, mask in whole.items() for c in range(1, len(mask))]
    order = torch.randperm(len(units), generator=rng).tolist()[:12]
    keep = whole
    for name, c in (units[i] for i in order):
        keep = {n: mask.clone() for n, mask in keep.items()}
        keep[name][c] = False
        yield keep
    yield keep
    for name in reversed(whole):
        keep = {**keep, name: keep[name].clone()}
        keep[name][-1] ^= True
        yield keep
    for _ in range(3):
        yield random_keep(net, head, len(CLASSES), rng)
    yield keep
    yield {}


@pytest.mark.parametrize("cache_bytes", [2**30, 40_000, 0])
@pytest.mark.parametrize("name", HOSTS)
def test_logits_are_bit_equal_to_those_of_plain_passes(name, cache_bytes, rng):
    net, x = host(name)
    where = place(net, x)
    accuracy = started(net, x, batch_size=6, cache_bytes=cache_bytes)
    for keep in a_run(net, where["head"], rng):
        accuracy(keep)
        for batch, logits in zip(x.split(6), accuracy._calls.run()):
            wanted = plainly(net, batch, keep, CLASSES, **where)
            assert torch.equal(logits[:, list(CLASSES)], wanted)


@pytest.mark.parametrize("mask_batchnorm", [True, False])
@pytest.mark.parametrize("name", HOSTS)
def test_it_is_the_accuracy_of_the_submodel(name, mask_batchnorm, rng):
    net, x = host(name, torch.double)
    where = place(net, x, mask_batchnorm=mask_batchnorm)
    y = torch.tensor(CLASSES)[torch.arange(len(x)) % 3]
    with MaskedAccuracy(net, x, y, CLASSES, batch_size=5, **where) as accuracy:
        for keep in a_run(net, where["head"], rng):
            predicted = Submodel(net, keep, CLASSES, **where)(x).argmax(1)
            right = (torch.tensor(CLASSES)[predicted] == y).float().mean()
            assert accuracy(keep) == pytest.approx(100 * float(right))


@pytest.mark.parametrize("name", HOSTS)
def test_the_model_is_as_found_after_each_call(name, rng):
    net, x = host(name)
    net.get_submodule(place(net, x)["head"]).eval()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    before = {m: {**vars(m)} for m in net.modules()}
    accuracy = started(net, x)
    accuracy(random_keep(net, accuracy.head, len(CLASSES), rng))
    for module, attributes in before.items():
        assert vars(module).keys() == attributes.keys()
        assert all(v is attributes[k] for k, v in vars(module).items())
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert torch.is_grad_enabled()


def test_an_exception_leaves_neither_model_nor_memory_wrong(rng):
    net, x = host("cnn")
    where = place(net, x)
    accuracy = started(net, x, batch_size=6)
    keep = random_keep(net, where["head"], len(CLASSES), rng)
    late, calls = net[-1], []

    def fail(module, args):
        calls.append(module)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with late.register_forward_pre_hook(fail), pytest.raises(KeyboardInterrupt):
        accuracy(keep)
    assert net.training and all("forward" not in vars(m) for m in net.modules())
    for each in (keep, {}):
        accuracy(each)
        wanted = plainly(net, x[:6], each, CLASSES, **where)
        assert torch.equal(accuracy._calls.run()[0][:, list(CLASSES)], wanted)


def off(**units):
    """Masks of the telling network without some units."""
    keep = {"0": torch.ones(6) > 0, "2.0": torch.ones(6) > 0}
    for name, c in units.items():
        keep[{"a": "0", "b": "2.0"}[name]][c] = False
    return keep


@pytest.mark.parametrize("inplace", [True, False])
def test_only_what_comes_after_a_change_is_run(inplace, rng):
    x = torch.randn(8, 10, generator=rng)
    accuracy = started(telling(inplace), x)
    for keep in (off(a=0, b=0), {}):  # what is written into is kept from then on
        accuracy(keep)
    LAYERS.clear()
    for keep, ran in [
        ({}, []),
        (off(b=0), ["c"]),
        (off(b=0), []),
        (off(a=1, b=0), ["b", "c"]),
        (off(a=1, b=2), ["b", "c"]),  # unit 0 of b is back
        ({}, ["a", "b", "c"]),  # of a as well
    ]:
        accuracy(keep)
        assert ran == LAYERS, keep
        LAYERS.clear()


@pytest.mark.parametrize("inplace", [True, False])
def test_units_that_are_never_positive_cost_nothing_behind_their_relu(inplace, rng):
    x = torch.randn(8, 10, generator=rng)
    accuracy = started(telling(inplace), x)
    for keep in (off(a=0, b=0), {}):  # what is written into is kept from then on
        accuracy(keep)
    LAYERS.clear()
    accuracy(off(a=5))
    accuracy(off(a=5, b=5))
    assert LAYERS == []


def test_units_whose_output_is_0_cost_nothing(rng):
    net = telling()
    net[0].weight.data[2] = net[0].bias.data[2] = 0
    accuracy = started(net, torch.randn(8, 10, generator=rng))
    content = accuracy._calls._memories[0][net[0], 0].content
    accuracy(off(a=2))
    assert LAYERS == [] and content == accuracy._calls._memories[0][net[0], 0].content


def test_branches_that_a_change_does_not_reach_are_not_run(rng):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Telling("a", 4, 6), Telling("b", 4, 6)
            self.c, self.head = Telling("c", 6, 6), Telling("head", 6, 6)

        def forward(self, x):
            return self.head(self.a(x).relu() + self.c(self.b(x).relu()))

    net = Branches()
    accuracy = started(net, torch.randn(8, 4, generator=rng))
    accuracy({"b": torch.tensor([False] + 5 * [True])})
    assert set(LAYERS) <= {"c", "head"}
    LAYERS.clear()
    accuracy({"b": torch.tensor([False] + 5 * [True]), "a": torch.arange(6) > 0})
    assert LAYERS == ["head"]


def test_hooks_see_every_call(rng):
    net = telling()
    seen = []
    net[2][0].register_forward_hook(lambda m, a, out: seen.append(out.clone()))
    accuracy = started(net, torch.randn(8, 10, generator=rng))
    seen.clear()
    accuracy({})
    accuracy(off(b=3))
    assert len(seen) == 2 and seen[0][:, 3].any() and not seen[1][:, 3].any()


def test_batches_that_do_not_fit_are_run_plainly(rng):
    net = telling()
    x = torch.randn(8, 10, generator=rng)
    accuracy = started(net, x, batch_size=4)
    one = 4 * 4 * (10 + 5 * 6)  # images, and what five modules return; float32
    assert accuracy._calls.cache_bytes == 2**30
    accuracy = started(net, x, batch_size=4, cache_bytes=2 * one - 1)
    accuracy({})
    assert LAYERS == ["a", "b", "c"]
    accuracy = started(net, x, batch_size=4, cache_bytes=2 * one)
    accuracy({})
    assert LAYERS == []


def test_nothing_is_kept_after_the_exit(rng):
    net, x = host("mlp")
    accuracy = started(net, x)
    accuracy.__exit__(None, None, None)
    assert accuracy._calls is None
    with pytest.raises(ValueError, match="called outside of its with block"):
        accuracy({})
    with accuracy:
        net[1].weight.data.neg_()  # now weights may change
    with accuracy:
        accuracy({})
        logits = accuracy._calls.run()[0]
    assert torch.equal(logits, plainly(net, x, {}, range(6), **place(net, x)))


def test_images_written_into_are_noticed(rng):
    net, x = host("cnn")
    accuracy = started(net, x)
    x.neg_()
    accuracy({})
    wanted = plainly(net, x, {}, range(6), **place(net, x))
    assert torch.equal(accuracy._calls.run()[0], wanted)


def test_arguments_that_do_not_fit_are_refused():
    net, x = host("mlp")
    where, y = place(net, x), torch.ones(16, dtype=torch.long)
    for images, labels in ((x, y[:3]), (x[:0], y[:0]), (x, y[:, None])):
        with pytest.raises(ValueError, match="wanted one for each, and at least one"):
            MaskedAccuracy(net, images, labels, CLASSES, **where)
    with pytest.raises(ValueError, match=r"y has classes \[3\]; wanted only .*\(1, 2"):
        MaskedAccuracy(net, x, y + 2, CLASSES, **where)
    with pytest.raises(ValueError, match="batch_size is 0; wanted"):
        MaskedAccuracy(net, x, y, CLASSES, batch_size=0, **where)
    with pytest.raises(ValueError, match="cache_bytes is -1; wanted"):
        MaskedAccuracy(net, x, y, CLASSES, cache_bytes=-1, **where)
    with (
        MaskedAccuracy(net, x, y, CLASSES, **where) as accuracy,
        pytest.raises(ValueError, match="wanted bool of shape"),
    ):
        accuracy({"1": torch.ones(3).bool()})


@pytest.mark.golden("rerelrp", "pruning.npz")
def test_a_run_of_pruning_agrees_with_the_authors(golden):
    for t in range(len(golden["classes"])):
        part = {k[3:]: v for k, v in golden.items() if k.startswith(f"t{t}.")}
        net, _, _, where = authors_network(golden, f"t{t}.model.")
        relevance = {k[2:]: v for k, v in part.items() if k.startswith("R.")}
        x, y = part["x_val"], part["y_val"] - golden["offsets"][t]
        with MaskedAccuracy(net, x, y, (0, 1), batch_size=33, **where) as accuracy:
            found = prune(relevance, accuracy, acc_drop=part["acc_drop"], min_units=0)
        trajectory = torch.tensor(found.accuracies, dtype=torch.double)
        assert_close(trajectory, part["acc_trajectory"], rtol=0, atol=1e-4)
        assert torch.tensor(found.step_sizes).tolist() == part["step_sizes"].tolist()
        for name, keep in found.keep.items():
            assert torch.equal(keep.long(), part[f"keep.{name}"])

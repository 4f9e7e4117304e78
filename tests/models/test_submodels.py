"""A list of submodels: what is frozen for them keeps them, whatever is learned."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from submodel_hosts import HOSTS, N_CLASSES, host, place, random_keep
from torch import nn
from torch.testing import assert_close

from avalanche_ext.models.frozen_rows import FrozenRows
from avalanche_ext.models.one_submodel import OneSubmodel
from avalanche_ext.models.submodels import NORMS, Submodels, owners_of, widened
from avalanche_ext.models.unit_layers import unit_layers

CLASSES = [(0, 3), (1, 2, 5)]


def filled(net, x, rng, **options):
    """Two submodels; class 4 has none."""
    mask_batchnorm = options.pop("mask_batchnorm", True)
    where = place(net, x, mask_batchnorm=mask_batchnorm)
    found = Submodels(where["head"], where["sites"], **options)
    for own in CLASSES:
        found.append(own, random_keep(net, found.head, len(own), rng, share=0.4))
    return found


def with_slopes():
    """Activations with a parameter, one for all units or one for each."""
    torch.manual_seed(3)
    layers = (nn.Flatten(), nn.Linear(192, 9), nn.PReLU(), nn.Linear(9, 8), nn.PReLU(8))
    return nn.Sequential(*layers, nn.Linear(8, N_CLASSES)), torch.randn(16, 3, 8, 8)


def learn_anything(net, rng):
    """Give all parameters other values."""
    for parameter in net.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=rng))


@pytest.mark.parametrize("mask_batchnorm", [True, False])
@pytest.mark.parametrize("name", [*HOSTS, "slopes"])
def test_with_its_frozen_rows_a_submodel_is_the_same_function_forever(
    name, mask_batchnorm, rng
):
    net, x = with_slopes() if name == "slopes" else host(name)
    ours = filled(net, x, rng, mask_batchnorm=mask_batchnorm)
    before = [own(x) for own in ours.all_of(net)]
    resting = [m for m in net.modules() if isinstance(m, NORMS)]
    frozen = FrozenRows(net, ours.frozen_rows(net), resting)
    if name == "incremental":
        seen = SimpleNamespace(classes_in_this_experience=[N_CLASSES, N_CLASSES + 1])
        net.train_classifier.adaptation(seen)
    net.train()
    frozen.hold_still()
    net(2 * x)
    learn_anything(net, rng)
    assert not all(torch.equal(p(x), b) for p, b in zip(ours.all_of(net), before))
    frozen.write_back(net)
    for k, wanted in enumerate(before):
        assert torch.equal(ours.of(net, k)(x), wanted)


@pytest.mark.parametrize("name", HOSTS)
def test_frozen_rows_are_units_that_any_submodel_keeps_and_rows_of_its_classes(
    name, rng
):
    net, x = host(name)
    ours = filled(net, x, rng)
    found = ours.frozen_rows(net)
    for layer, module in unit_layers(net).items():
        wanted = torch.zeros(len(module.weight), dtype=torch.bool)
        for c in range(len(wanted)):
            if layer == ours.head:
                wanted[c] = any(c in own for own in CLASSES)
            else:
                wanted[c] = any(bool(keep[layer][c]) for keep in ours.keeps)
        assert torch.equal(found.pop(layer), wanted)
    # what is left are modules without units, whole
    assert all(rows.shape == () and rows for rows in found.values())
    norms = [n for n, m in net.named_modules() if isinstance(m, NORMS)]
    assert sorted(found) == sorted(norms)


def test_nothing_is_frozen_before_the_first(rng):
    net, x = host("mlp")
    assert Submodels(**place(net, x)).frozen_rows(net) == {}
    assert Submodels(**place(net, x)).capacity() == {}


def test_frozen_rows_only_grow_and_capacity_adds_to_all_units(rng):
    net, x = host("cnn")
    ours = Submodels(**place(net, x))
    before = {}
    for k, own in enumerate([(0, 3), (1, 2, 5), (4,)], 1):
        ours.append(own, random_keep(net, ours.head, len(own), rng, share=0.3))
        frozen = ours.frozen_rows(net)
        for name, rows in before.items():
            assert not (rows & ~frozen[name]).any()
        before = frozen
        assert ours.head not in ours.capacity()
        for name, layer in ours.capacity().items():
            assert len(layer.first_frozen) == len(layer.shared) == k
            units = len(net.get_submodule(name).weight)
            assert sum(layer.first_frozen) + layer.free == units
            assert sum(layer.first_frozen) == int(frozen[name].sum())


@pytest.mark.parametrize("name", HOSTS)
def test_a_stack_and_single_submodels_give_the_same_logits(name, rng):
    net, x = host(name)
    ours = filled(net, x, rng)
    with torch.no_grad():
        each = ours.stack(net)(x).split(len(x))
    for own, part, logits in zip(CLASSES, ours.all_of(net), each):
        assert_close(logits[:, list(own)], part(x), rtol=1e-5, atol=1e-5)


def test_while_alone_the_first_may_answer_with_all_units(rng):
    net, x = host("mlp")
    where = place(net, x)
    ours = Submodels(**where, unpruned_first=True)
    ours.append(CLASSES[0], random_keep(net, ours.head, 2, rng, share=0.3))
    pruned, whole = ours.of(net, 0)(x), ours.whole(net, CLASSES[0])(x)
    assert not torch.equal(pruned, whole)
    assert torch.equal(ours.of(net, 0, answering=True)(x), whole)
    assert torch.equal(ours.all_of(net, answering=True)[0](x), whole)
    for answering, wanted in ((True, whole), (False, pruned)):
        logits = ours.stack(net, answering=answering)(x)[:, list(CLASSES[0])]
        assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
    ours.append(CLASSES[1], random_keep(net, ours.head, 3, rng))
    assert torch.equal(ours.of(net, 0, answering=True)(x), pruned)
    never = Submodels(**where)
    never.append(CLASSES[0], ours.keeps[0])
    assert torch.equal(never.of(net, 0, answering=True)(x), pruned)


def test_a_saved_list_gives_the_same_submodels(rng):
    net, x = host("incremental")
    ours = filled(net, x, rng)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    other = Submodels(ours.head, ours.sites)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.classes == CLASSES and other.known == [0, 3, 1, 2, 5]
    for a, b in zip(ours.all_of(net), other.all_of(net)):
        assert torch.equal(a(x), b(x))
    sizes = [len(m.weight) for n, m in unit_layers(net).items() if n != ours.head]
    assert other.memory_bytes() == 2 * sum(sizes) + 2 + 3  # a byte a unit and class


def test_wrong_submodels_are_refused(rng):
    net, x = host("mlp")
    ours = filled(net, x, rng)
    keep = random_keep(net, ours.head, 2, rng)
    with pytest.raises(ValueError, match=r"\(3, 4\), of which \[3\] have a submodel"):
        ours.append((3, 4), keep)
    del keep["4"]
    with pytest.raises(ValueError, match="masks of 1, 6; wanted them of all: 1, 4, 6"):
        ours.append((4,), keep)
    with pytest.raises(ValueError, match="masks of no layer; wanted them of all"):
        ours.append((4,), {})
    assert len(ours) == len(ours.keeps) == 2
    with pytest.raises(ValueError, match="k is 2; wanted less than 2, those there are"):
        ours.of(net, 2)
    with pytest.raises(ValueError, match="k is -1; wanted a whole number, at least 0"):
        ours.of(net, -1)


@given(st.permutations(range(8)), st.lists(st.integers(0, 3), max_size=4), st.data())
def test_owners_are_found_for_any_classes(order, sizes, data):
    classes, rest = [], [3 * label for label in order]
    for n in sizes:
        classes.append(tuple(sorted(rest[:n])))
        rest = rest[n:]
    targets = data.draw(st.lists(st.integers(0, 40), max_size=9))
    wanted = []
    for y in targets:
        having = [k for k, own in enumerate(classes) if y in own]
        wanted.append(having[0] if having else -1)
    found = owners_of(classes, torch.tensor(targets, dtype=torch.long))
    assert found.tolist() == wanted and found.dtype == torch.long


def test_owners_of_a_list_are_those_of_its_classes(rng):
    net, x = host("mlp")
    targets = torch.tensor([5, 4, 3, 2, 1, 0, 77])
    assert filled(net, x, rng).owners(targets).tolist() == [1, -1, 0, 1, 1, 0, -1]


def test_widened_logits_are_in_their_columns_and_lose_everywhere_else():
    logits = torch.tensor([[1.0, -2.0], [-999.0, -5.0]], dtype=torch.double)
    wide = widened(logits, (1, 3), 5)
    assert wide.dtype == logits.dtype and torch.equal(wide[:, [1, 3]], logits)
    assert (wide[:, [0, 2, 4]] == -1000).all() and wide.argmax(1).tolist() == [1, 3]


@pytest.mark.parametrize("mask_batchnorm", [True, False])
@pytest.mark.parametrize("name", [*HOSTS, "slopes"])
def test_one_network_in_turn_is_each_submodel_bit_for_bit(name, mask_batchnorm, rng):
    net, x = with_slopes() if name == "slopes" else host(name)
    ours = filled(net, x, rng, mask_batchnorm=mask_batchnorm)
    one = OneSubmodel(ours)
    first = one.of(net, 0)
    assert torch.equal(first(x), ours.of(net, 0)(x)) and one.of(net, 0) is first
    if name == "incremental":  # the head grows at test time, too
        seen = SimpleNamespace(classes_in_this_experience=[N_CLASSES, N_CLASSES + 1])
        net.train_classifier.adaptation(seen)
    for k in (1, 0, 1):
        now, wanted = one.of(net, k), ours.of(net, k)
        assert now is first and now.classes == wanted.classes
        assert torch.equal(now(x), wanted(x))
        live = {t.data_ptr() for t in net.parameters()}
        assert not live & {t.data_ptr() for t in now.network.parameters()}
    one.clear()
    learn_anything(net, rng)
    assert torch.equal(one.of(net, 1)(x), ours.of(net, 1)(x))


def test_after_an_error_no_half_made_submodel_answers(rng):
    net, x = host("cnn")
    ours = filled(net, x, rng)
    one = OneSubmodel(ours)
    one.of(net, 0)
    whole = ours.keeps[1]
    ours.keeps[1] = {**whole, "0.0": torch.ones(1, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"mask of '0.0' is .* shape \(1,\)"):
        one.of(net, 1)
    ours.keeps[1] = whole
    for k in (0, 1):
        assert torch.equal(one.of(net, k)(x), ours.of(net, k)(x))

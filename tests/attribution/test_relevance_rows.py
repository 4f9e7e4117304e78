"""Rows of relevance are those of each submodel, however they are computed."""

from __future__ import annotations

import pytest
import torch
from relevance_nets import assert_as_before, fingerprint
from submodel_hosts import N_CLASSES, host, place, random_keep
from torch import nn
from torch.testing import assert_close

from avalanche_ext.attribution import LRP
from avalanche_ext.attribution.relevance_rows import relevance_rows
from avalanche_ext.models.submodels import Submodels
from avalanche_ext.models.unit_layers import unit_layers

CLASSES = [(0, 3), (1, 2, 5), (4,)]
#: Those that relevance is right for.
NAMES = ("mlp", "cnn", "renorm", "depthwise", "vgg", "resnet", "incremental")
COMPOSITES = ("epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon", "zplus")


def filled(name, rng, mask_batchnorm=True, dtype=torch.float32):
    net, x = host(name, dtype)
    where = place(net, x, mask_batchnorm=mask_batchnorm)
    ours = Submodels(where["head"], where["sites"])
    for own in CLASSES:
        keep = random_keep(net, ours.head, len(own), rng)
        keep[ours.head][:] = True
        for layer in keep.keys() - {ours.head}:
            keep[layer][1] = False
        ours.append(own, keep)
    return net, x, ours


def columns(net, ours, k):
    """Where each layer's units are in a row of submodel k."""
    found, start = {}, 0
    for name in sorted(unit_layers(net)):
        n = len(ours.keeps[k][name])
        found[name] = slice(start, start + n)
        start += n
    return found


def separate(lrp, net, x, ours):
    return relevance_rows(lrp, ours.all_of(net), x)


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_of_each_sample_alone_layer_by_layer(name, rng):
    net, x, ours = filled(name, rng)
    lrp = LRP()
    for k, (logits, rows) in enumerate(separate(lrp, net, x[:3], ours)):
        part = ours.of(net, k)
        assert_close(logits, part(x[:3]), rtol=1e-3, atol=1e-4)
        for i in range(3):
            image = x[i : i + 1]
            predicted = lrp(part.network, image).logits.argmax(1)
            units = lrp(part.network, image, predicted).units
            for layer, where in columns(net, ours, k).items():
                assert_close(rows[i, where], units[layer][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", NAMES)
def test_a_stack_gives_the_rows_of_its_submodels(name, composite, rng):
    net, x, ours = filled(name, rng)
    before = fingerprint(net)
    lrp = LRP(composite=composite)
    stacked = relevance_rows(lrp, ours.stack(net), x)
    assert_as_before(net, before)
    each = separate(lrp, net, x, ours)
    for k, ((logits, rows), (wanted, single)) in enumerate(zip(stacked, each)):
        assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
        if composite not in ("epsilon", "zplus"):
            assert_close(rows, single, rtol=1e-5, atol=1e-5)
        for layer, own in columns(net, ours, k).items():
            # sums without a rule hand relevance to units that are 0, too
            kept = single[:, own] * ours.keeps[k][layer]
            kept = kept / kept.abs().sum(1, keepdim=True).clamp_min(1e-10)
            assert_close(rows[:, own], kept, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_pruned_units_have_relevance_exactly_0_and_each_layer_adds_to_1(
    name, stacked, rng
):
    net, x, ours = filled(name, rng)
    networks = ours.stack(net) if stacked else ours.all_of(net)
    for k, (logits, rows) in enumerate(relevance_rows(LRP(), networks, x)):
        where = columns(net, ours, k)
        assert rows.shape == (len(x), max(each.stop for each in where.values()))
        assert rows.any() and not rows.requires_grad
        for layer, own in where.items():
            keep = ours.keeps[k][layer]
            assert not rows[:, own][:, ~keep].any(), layer
            total = rows[:, own].abs().sum(1)
            assert (((total - 1).abs() < 1e-3) | (total == 0)).all()
        assert logits.shape == (len(x), len(CLASSES[k]))
        # of the head, that of the class predicted
        one = nn.functional.one_hot(logits.argmax(1), len(CLASSES[k]))
        start = rows[:, where[ours.head]]
        signs = logits.amax(1, keepdim=True).sign()
        assert_close(start, one * signs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stacked", [True, False])
def test_what_was_learned_for_others_does_not_show(stacked, rng):
    net, x, ours = filled("cnn", rng)
    before = relevance_rows(LRP(), ours.stack(net) if stacked else ours.all_of(net), x)
    for k, wanted in enumerate(before):
        net, x, ours = filled("cnn", torch.Generator().manual_seed(0))
        for layer, module in unit_layers(net).items():
            off = ~ours.keeps[k][layer]
            if layer == ours.head:
                off = torch.ones(N_CLASSES, dtype=torch.bool)
                off[list(CLASSES[k])] = False
            for values in filter(lambda v: v is not None, (module.weight, module.bias)):
                others = torch.randn(values[off].shape, generator=rng)
                values.data[off] = 100 * others
        networks = ours.stack(net) if stacked else ours.all_of(net)
        for found, old in zip(relevance_rows(LRP(), networks, x)[k], wanted):
            if stacked:
                assert_close(found, old, rtol=1e-5, atol=1e-5)
            else:
                assert torch.equal(found, old)


@pytest.mark.parametrize("stacked", [True, False])
def test_layers_wanted_give_their_columns_whatever_their_order(stacked, rng):
    net, x, ours = filled("cnn", rng)
    networks = ours.stack(net) if stacked else ours.all_of(net)
    whole = relevance_rows(LRP(), networks, x)
    some = relevance_rows(LRP(), networks, x, [ours.head, "0.0"])
    for k, ((logits, rows), (wanted, all_rows)) in enumerate(zip(some, whole)):
        where = columns(net, ours, k)
        parts = [all_rows[:, where["0.0"]], all_rows[:, where[ours.head]]]
        assert torch.equal(rows, torch.cat(parts, 1)) and torch.equal(logits, wanted)


@pytest.mark.parametrize("stacked", [True, False])
def test_a_model_that_is_its_head_has_rows(stacked, rng):
    net, x = nn.Linear(5, N_CLASSES), torch.randn(4, 5, generator=rng)
    ours = Submodels("", {"": ""})
    for own in CLASSES:
        ours.append(own, {"": torch.ones(len(own), dtype=torch.bool)})
    networks = ours.stack(net) if stacked else ours.all_of(net)
    for own, (logits, rows) in zip(CLASSES, relevance_rows(LRP(), networks, x)):
        assert_close(logits, net(x)[:, list(own)].detach())
        assert rows.shape == logits.shape


@pytest.mark.parametrize("stacked", [True, False])
def test_unknown_layers_are_refused_with_the_names_near(stacked, rng):
    net, x, ours = filled("cnn", rng)
    networks = ours.stack(net) if stacked else ours.all_of(net)
    for layers, message in [
        (["0.0", "0.1"], r"layers have '0\.1'; wanted names of .* such as '0\.0'"),
        ([], "layers are none; wanted at least one, or None for all"),
    ]:
        with pytest.raises(ValueError, match=message):
            relevance_rows(LRP(), networks, x, layers)


def test_a_stack_that_masks_in_front_of_its_norms_is_refused(rng):
    net, x, ours = filled("cnn", rng, mask_batchnorm=False)
    before = fingerprint(net)
    message = r"masks units of '0\.0' in front of the norm '0\.1'; wanted that behind"
    with pytest.raises(ValueError, match=message):
        relevance_rows(LRP(), ours.stack(net), x)
    assert_as_before(net, before)
    # each for itself, the constant that a norm makes of 0 is relevant
    for k, (logits, rows) in enumerate(separate(LRP(), net, x, ours)):
        assert_close(logits, ours.of(net, k)(x), rtol=1e-3, atol=1e-4)
        off = ~ours.keeps[k]["0.0"]
        assert rows[:, columns(net, ours, k)["0.0"]][:, off].any()

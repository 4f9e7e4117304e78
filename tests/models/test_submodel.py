"""A submodel is the masked network, and stays the same function."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from avalanche.models import FeatureExtractorModel
from submodel_hosts import (
    HOSTS,
    N_CLASSES,
    authors_network,
    host,
    place,
    plainly,
    random_keep,
)
from torch import nn
from torch.testing import assert_close

from avalanche_ext.models.submodel import Submodel
from avalanche_ext.models.unit_layers import unit_layers

CLASSES = (1, 2, 5)


@pytest.mark.parametrize("mask_batchnorm", [True, False])
@pytest.mark.parametrize("name", HOSTS)
def test_a_submodel_is_the_network_with_its_units_set_to_0(name, mask_batchnorm, rng):
    net, x = host(name, torch.double)
    where = place(net, x, mask_batchnorm=mask_batchnorm)
    keep = random_keep(net, where["head"], len(CLASSES), rng)
    part = Submodel(net, keep, CLASSES, **where)
    assert_close(part(x), plainly(net, x, keep, CLASSES, **where))
    assert not part(x).requires_grad and net.training
    assert list(unit_layers(part.network)) == list(unit_layers(net))


@pytest.mark.parametrize("mask_batchnorm", [True, False])
@pytest.mark.parametrize("name", HOSTS)
def test_what_others_learn_does_not_change_a_submodel(name, mask_batchnorm, rng):
    net, x = host(name)
    where = place(net, x, mask_batchnorm=mask_batchnorm)
    keep = random_keep(net, where["head"], len(CLASSES), rng)
    before = Submodel(net, keep, CLASSES, **where)(x)
    for layer, module in unit_layers(net).items():
        frozen = torch.zeros(len(module.weight), dtype=torch.bool)
        if layer == where["head"]:
            frozen[list(CLASSES)] = True
        else:
            frozen = keep[layer]
        for values in filter(lambda v: v is not None, (module.weight, module.bias)):
            others = torch.randn(values[~frozen].shape, generator=rng)
            values.data[~frozen] = 100 * others
    if name == "incremental":
        seen = SimpleNamespace(classes_in_this_experience=[N_CLASSES, N_CLASSES + 1])
        net.train_classifier.adaptation(seen)
    later = Submodel(net, keep, CLASSES, **where)
    assert torch.equal(later(x), before)
    net.eval()
    assert not torch.equal(net(x)[:, list(CLASSES)], before)


@pytest.mark.parametrize("name", HOSTS)
def test_units_left_out_give_exactly_0_at_layer_and_site(name, rng):
    net, x = host(name)
    where = place(net, x)
    keep = random_keep(net, where["head"], len(CLASSES), rng)
    part = Submodel(net, keep, CLASSES, **where)
    seen = []
    for layer, mask in keep.items():
        for each in {layer, where["sites"][layer]}:
            module = part.network.get_submodule(each)
            axis = -1 if isinstance(module, nn.Linear) else 1
            off = (~mask).nonzero().flatten()
            module.register_forward_hook(
                lambda m, a, out, axis=axis, off=off: seen.append(
                    out.index_select(axis, off).clone()
                )
            )
    part(x)
    assert len(seen) >= len(keep) and not any(out.any() for out in seen)


def test_it_never_trains_again(rng):
    net, x = host("cnn")
    parent = nn.ModuleList([Submodel(net, {}, CLASSES, **place(net, x))])
    before = parent[0](x)
    parent.train()
    parent[0].train()
    assert not any(m.training for m in parent[0].network.modules())
    assert torch.equal(parent[0](x), before) and torch.equal(parent[0](x), before)
    assert not any(p.requires_grad for p in parent.parameters())


def test_results_kept_by_the_model_do_not_stop_the_copy(rng):
    net = FeatureExtractorModel(nn.Linear(3, 4), nn.Linear(4, 2))
    net(torch.ones(2, 3))
    assert net.features.grad_fn is not None
    where = {"head": "train_classifier", "sites": {"feature_extractor": "x"}}
    where["sites"] = {n: n for n in ("feature_extractor", "train_classifier")}
    part = Submodel(net, {}, (0,), **where)
    assert part.network.features.grad_fn is None and net.features.requires_grad


def test_masks_that_do_not_fit_are_refused():
    net, x = host("mlp")
    with pytest.raises(ValueError, match="keep has a mask for 'fc'"):
        Submodel(net, {"fc": torch.ones(2).bool()}, (0, 1), **place(net, x))


@pytest.mark.golden("rerelrp", "recognition.npz")
def test_logits_agree_with_the_authors(golden):
    net, keeps, classes, where = authors_network(golden)
    for k, (keep, own) in enumerate(zip(keeps, classes)):
        part = Submodel(net, keep, own, **where)
        wanted = golden[f"sub_logits.{k}"]
        assert_close(part(golden["x_test"]), wanted, rtol=0, atol=1e-5)

"""All submodels in one pass are the submodels one by one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from submodel_hosts import HOSTS, N_CLASSES, authors_network, host, place, random_keep
from torch import nn
from torch.testing import assert_close
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus

from avalanche_ext.models.submodel import Submodel
from avalanche_ext.models.submodel_stack import SubmodelStack

CLASSES = [(0, 3), (1, 2, 5), (4,)]


def keeps_for(net, head, rng):
    keeps = [random_keep(net, head, len(own), rng) for own in CLASSES]
    return [*keeps[:2], {head: keeps[2][head]}]  # of the last one no layer is masked


@pytest.mark.parametrize("mask_batchnorm", [True, False])
@pytest.mark.parametrize("name", HOSTS)
def test_a_stack_is_its_submodels(name, mask_batchnorm, rng):
    net, x = host(name, torch.double)
    where = place(net, x, mask_batchnorm=mask_batchnorm)
    keeps = keeps_for(net, where["head"], rng)
    with torch.no_grad():
        stacked = SubmodelStack(net, keeps, CLASSES, **where)(x)
    assert stacked.shape == (3 * len(x), N_CLASSES)
    for keep, own, logits in zip(keeps, CLASSES, stacked.split(len(x))):
        part = Submodel(net, keep, own, **where)
        assert_close(logits[:, list(own)], part(x))
        others = [c for c in range(N_CLASSES) if c not in own]
        assert (logits[:, others] == -1000).all()
    assert net.training and all(not m._forward_hooks for m in net.modules())


def test_gradients_pass_and_are_those_of_the_submodels(rng):
    net, x = host("cnn", torch.double)
    where = place(net, x)
    keeps = keeps_for(net, where["head"], rng)
    x.requires_grad_()
    stacked = SubmodelStack(net, keeps, CLASSES, **where)(x)
    found = torch.autograd.grad(stacked.clamp_min(-999).square().sum(), x)
    parts = [Submodel(net, k, own, **where)(x) for k, own in zip(keeps, CLASSES)]
    wanted = torch.autograd.grad(sum(p.square().sum() for p in parts), x)
    assert_close(found, wanted)


def relevances(net, x, start):
    """Relevance at the output of each convolution."""
    found = {}

    def watch(name):
        def hook(module, args, out):
            out.register_hook(lambda g: found.__setitem__(name, g.detach()))

        return hook

    convs = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    handles = [m.register_forward_hook(watch(n)) for n, m in convs.items()]
    composite = EpsilonPlus(canonizers=[SequentialMergeBatchNorm()])
    with Gradient(model=net, composite=composite) as attributor:
        attributor(x.clone(), start)
    for handle in handles:
        handle.remove()
    return found


def test_relevance_propagates_through_a_stack_as_through_its_submodels(rng):
    net, x = host("cnn", torch.double)
    net.eval()
    where = place(net, x)
    keeps, before = keeps_for(net, where["head"], rng), net(x)

    def start(logits):
        return torch.where(logits > -1000, logits, 0)

    stack = SubmodelStack(net, keeps, CLASSES, **where)
    found = relevances(stack, x, start)
    assert sorted(found) == ["network.0.0", "network.2.0"]
    for k, (keep, own) in enumerate(zip(keeps, CLASSES)):
        part = Submodel(net, keep, own, **where)
        for name, wanted in relevances(part, x, start).items():
            relevance = found[name].split(len(x))[k]
            assert_close(relevance, wanted)
            if name[8:] in keep:
                assert not relevance[:, ~keep[name[8:]]].any()
    assert torch.equal(net(x), before)


def test_the_model_is_put_back_after_an_exception(rng):
    net, x = host("cnn")
    where = place(net, x)
    stack = SubmodelStack(net, keeps_for(net, where["head"], rng), CLASSES, **where)
    with pytest.raises(RuntimeError, match="channels"):
        stack(x[:, :2])
    assert net.training and all(not m._forward_hooks for m in net.modules())


def test_a_head_that_grows_leaves_a_stack_as_it_was(rng):
    net, x = host("incremental")
    where = place(net, x)
    keeps = keeps_for(net, where["head"], rng)
    keeps[1][where["head"]] = torch.tensor([True, False, True])
    stack = SubmodelStack(net, keeps, CLASSES, **where)
    before = stack(x)
    seen = SimpleNamespace(classes_in_this_experience=[N_CLASSES, N_CLASSES + 1])
    net.train_classifier.adaptation(seen)
    after = stack(x)
    assert_close(after[:, :N_CLASSES], before)
    assert (after[:, N_CLASSES:] == -1000).all() and not before[16:32, 2].any()


def test_no_samples_give_no_logits(rng):
    net, x = host("cnn")
    where = place(net, x)
    stack = SubmodelStack(net, keeps_for(net, where["head"], rng), CLASSES, **where)
    assert stack(x[:0]).shape == (0, N_CLASSES)


def test_masks_and_classes_must_be_as_many():
    net, x = host("mlp")
    for keeps, classes in (([], []), ([{}], CLASSES)):
        with pytest.raises(ValueError, match="lists of classes; wanted as many, at"):
            SubmodelStack(net, keeps, classes, **place(net, x))


@pytest.mark.golden("rerelrp", "recognition.npz")
def test_logits_agree_with_the_authors(golden):
    net, keeps, classes, where = authors_network(golden)
    stacked = SubmodelStack(net, keeps, classes, **where)(golden["x_test"])
    for k, (own, logits) in enumerate(zip(classes, stacked.chunk(len(classes)))):
        wanted = golden[f"sub_logits.{k}"]
        assert_close(logits[:, list(own)], wanted, rtol=0, atol=1e-5)

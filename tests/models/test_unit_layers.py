"""Where units are switched off, and which networks have none of their own."""

from __future__ import annotations

import pytest
import torch
from submodel_hosts import HOSTS, host, place
from torch import nn
from torch.nn.utils import parametrizations, prune

from avalanche_ext.models.unit_layers import (
    mask_sites,
    require_keep,
    unit_counts,
    unit_layers,
)


def test_sites_are_norm_layers_wherever_they_were_registered():
    net, x = host("odd")
    sites = {"head", "mixed", "right", "left"}
    assert place(net, x)["sites"] == {
        **{name: name for name in sites},
        "conv2": "bn2",
        "conv1": "bn1",
    }
    whole = place(net, x, mask_batchnorm=False)["sites"]
    assert all(name == site for name, site in whole.items())


def test_a_layer_that_feeds_more_than_its_norm_layer_is_its_own_site():
    net, x = host("pre_activated")
    sites = place(net, x)["sites"]
    assert sites["stem"] == "stem" and sites["conv1"] == "bn2"


def test_a_norm_layer_behind_an_activation_or_over_a_sequence_is_no_site():
    between = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(True), nn.BatchNorm2d(2))
    assert mask_sites(between, torch.ones(2, 1, 3, 3)) == {"0": "0"}
    sequence = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    assert mask_sites(sequence, torch.ones(2, 4, 3)) == {"0": "0", "2": "2"}


def test_a_norm_layer_over_several_processes_is_a_site():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.SyncBatchNorm(2), nn.ReLU())
    assert mask_sites(net, torch.ones(2, 1, 3, 3)) == {"0": "1"}


@pytest.mark.parametrize("name", HOSTS)
def test_looking_for_sites_leaves_the_model_as_found(name):
    net, x = host(name)
    net.eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        sites = mask_sites(net, x[:2])
    assert sites.keys() == unit_layers(net).keys()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(not m._forward_hooks and not m.training for m in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


class Calls(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.order = order
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.bn = nn.BatchNorm1d(3)

    def forward(self, x):
        for name in self.order:
            x = getattr(self, name)(x)
        return x


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("aab", "layer 'a' runs 2 times in a forward pass; wanted exactly once"),
        ("a", "layer 'b' runs 0 times"),
        (["a", "bn", "b", "bn"], "layer 'bn' runs 2 times"),
    ],
)
def test_layers_that_do_not_run_once_are_named(order, message):
    with pytest.raises(ValueError, match=message):
        mask_sites(Calls(order), torch.ones(2, 3))


def test_rows_that_are_not_a_units_own_are_refused():
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="layers '0' and '1' share their weight"):
        unit_layers(tied)
    for change in (
        parametrizations.weight_norm,
        lambda m: prune.l1_unstructured(m, "weight", 2),
    ):
        net = nn.Sequential(nn.Linear(3, 3))
        change(net[0])
        with pytest.raises(ValueError, match="the weight of layer '0' is computed"):
            unit_layers(net)
    with pytest.raises(ValueError, match="ReLU has no Conv2d or Linear layer"):
        unit_layers(nn.ReLU())
    with pytest.raises(ValueError, match="cannot run on inputs of shape"):
        mask_sites(nn.Linear(3, 3), torch.ones(2, 4))


def test_masks_that_do_not_fit_are_refused():
    net, x = host("mlp")
    where = place(net, x)
    counts = unit_counts(net, (1, 4), **where)
    assert counts == {"1": 12, "4": 8, "6": 2}
    wanted = r"wanted bool of shape \(2,\)"
    for mask in (torch.ones(2), torch.ones(6).bool()):
        with pytest.raises(ValueError, match=wanted):
            require_keep({"6": mask}, counts)
    with pytest.raises(ValueError, match="for '0'; wanted one of 1, 4, 6"):
        require_keep({"0": torch.ones(2).bool()}, counts)
    with pytest.raises(ValueError, match=r"keep\['6'\] is \[True\]; wanted a Tensor"):
        require_keep({"6": [True]}, counts)
    for classes in ((), (4, 1), (1, 1), (2, 6)):
        with pytest.raises(ValueError, match="wanted some in rising order, all below"):
            unit_counts(net, classes, **where)
    with pytest.raises(ValueError, match=r"classes\[0\] is 1.5; wanted a whole"):
        unit_counts(net, (1.5,), **where)
    with pytest.raises(ValueError, match="head is '5'.*wanted one of 1, 4, 6, and all"):
        unit_counts(net, (1,), head="5", sites=where["sites"])
    with pytest.raises(ValueError, match="layers with sites are 6; wanted"):
        unit_counts(net, (1,), head="6", sites={"6": "6"})

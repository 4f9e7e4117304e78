"""Training above frozen layers, with latents in the place of images."""

from __future__ import annotations

import pytest
import torch
from formula_network import formula_network, our_name, preprocessed
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from avalanche_ext.models.batch_renorm import batch_renorms_of
from avalanche_ext.models.batch_renorm_conversion import to_batch_renorm


@pytest.mark.golden("ar1star", "latent_step.npz")
def test_two_steps_above_frozen_layers_agree_with_the_authors(golden):
    n_below = golden["latent_layer_num"] + 1
    model = to_batch_renorm(formula_network(golden["formula_seed"]), std="legacy")
    net, head = model.feature_extractor, model.train_classifier
    blocks = [net.get_submodule(name) for name in net.layer_names.values()]
    lower, upper = nn.Sequential(*blocks[:n_below]), nn.Sequential(*blocks[n_below:])
    upper.append(net.flatten).append(head)
    lower.eval().requires_grad_(False)
    upper.train()
    for layer in batch_renorms_of(model):
        layer.set_phase(momentum=5e-5, r_max=1.25, d_max=0.5, growth=0)
    named = dict(model.named_parameters())
    trainable = [named[our_name(name, n_below)] for name in golden["trainable_names"]]
    assert [p for p in model.parameters() if p.requires_grad] == trainable
    rates = {k: golden[k] for k in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(model.parameters(), **rates)

    before = {k: v.clone() for k, v in model.state_dict().items()}
    first_norm = next(iter(batch_renorms_of(upper)))
    for name in ("mean", "std"):
        wanted = golden[f"end0_running_avg_{name}_before"]
        assert_close(getattr(first_norm, f"running_{name}")[:64], wanted)
    x, n = preprocessed(golden["images_32"]), golden["n_current"]
    replay = lower(x[n:])
    close = {"rtol": 1e-4, "atol": 1e-4}
    for t in range(2):
        latents = lower(x[:n])
        assert latents.shape == tuple(golden["lat_acts_shape"])
        found = torch.stack([latents.mean(), latents.norm()]).double()
        assert_close(found, golden[f"lat_acts_stats{t}"], rtol=1e-5, atol=0)
        logits = upper(torch.cat([latents, replay]))
        loss = cross_entropy(logits, golden["labels"])
        optimizer.zero_grad()
        loss.backward()
        norms = torch.stack([p.grad.norm() for p in trainable]).double()
        optimizer.step()
        assert_close(logits.detach(), golden[f"logits{t}"], **close)
        assert_close(loss.item(), golden[f"loss{t}"], **close)
        assert_close(norms, golden[f"grad_norm{t}"], **close)
        norms = torch.stack([p.detach().norm() for p in trainable]).double()
        assert_close(norms, golden[f"param_norm{t}"], **close)
        rows = head.weight.detach()[:5, :64]
        assert_close(rows, golden[f"output_rows{t}"], **close)
    for name in ("mean", "std"):
        wanted = golden[f"end0_running_avg_{name}_after"]
        assert_close(getattr(first_norm, f"running_{name}")[:64], wanted)
    after = model.state_dict()
    for changed in False, True:
        for key in golden["changed_keys" if changed else "unchanged_keys"]:
            name = our_name(key, n_below)
            assert torch.equal(after[name], before[name]) != changed, name

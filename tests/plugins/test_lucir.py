"""LUCIR's loss terms on a batch and through experiences."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from cases import naive_with, toy_benchmark, toy_model
from torch import nn
from torch.testing import assert_close

from avalanche_ext.functional.less_forget import adaptive_distillation_weight
from avalanche_ext.models import CosineClassifier, FeatureClassifier
from avalanche_ext.models.frozen_copy import FrozenCopy
from avalanche_ext.plugins import LUCIRPlugin


def head_of(weights, sigma):
    """A cosine classifier grown once for each array of prototypes."""
    head = CosineClassifier(weights[0].shape[1])
    for weight in weights:
        n = head.n_classes
        new = SimpleNamespace(classes_in_this_experience=range(n, n + len(weight)))
        head.train().adaptation(new)
        head.prototypes[-1].data.copy_(weight)
    head.scale.data.copy_(sigma.squeeze())
    return head


class Fixed(nn.Module):
    """A feature extractor that ignores its input."""

    def __init__(self, features):
        super().__init__()
        self.features = nn.Parameter(features)

    def forward(self, x):
        return self.features


def model_of(golden, prefix):
    keys = sorted(k for k in golden if k.startswith(f"{prefix}weight_"))
    head = head_of([golden[k] for k in keys], golden["sigma"])
    return FeatureClassifier(Fixed(golden[f"{prefix}features"]), head)


@pytest.mark.golden("bdr_cwd", "lucir_loss_*.npz")
def test_loss_terms_and_gradients_agree_with_the_authors(golden):
    plugin = LUCIRPlugin(
        distillation_weight=golden["lambda_base"],
        less_forget=golden["less_forget"],
        margin_weight=golden["lamb_mr"],
        margin=golden["margin"],
        n_negatives=golden["K"],
    )
    model, x = model_of(golden, ""), torch.zeros(1)
    head = model.train_classifier
    plugin.before_training_exp(SimpleNamespace(model=model, experience=None))
    plugin.reference = FrozenCopy(model_of(golden, "ref_"))
    assert plugin.current_weight == pytest.approx(golden["lambda_adapted"])

    logits, y = model(x), golden["targets"]
    # BDR's offsets are an input here: they enter the cross-entropy alone
    ce = nn.functional.cross_entropy(logits + golden.get("pi_used", 0), y)
    dist = plugin.distillation(model, x)
    terms = {"ce": ce, "dist": dist, "mr": plugin.penalty(model, x, y) - dist}
    terms["total"] = ce + plugin.penalty(model, x, y)
    arguments = {
        "features": model.feature_extractor.features,
        "weight_new": head.prototypes[-1],
        "sigma": head.scale,
    } | {f"weight_old_{i}": p for i, p in enumerate(head.old_prototypes())}
    for name, loss in terms.items():
        wanted = torch.tensor(golden[f"loss_{name}"]).to(loss.dtype)
        assert_close(loss, wanted, rtol=1e-6, atol=1e-6)
        for of, argument in arguments.items():
            if f"grad_{name}_{of}" not in golden:
                continue
            (grad,) = torch.autograd.grad(
                loss, argument, retain_graph=True, materialize_grads=True
            )
            grad_wanted = golden[f"grad_{name}_{of}"].reshape(grad.shape)
            assert_close(grad, grad_wanted, rtol=1e-4, atol=1e-6)
    frozen = [not p.requires_grad for p in head.old_prototypes()]
    assert all(frozen) == bool(golden["less_forget"])


@pytest.mark.golden("bdr_cwd", "lucir_step_original_*.npz")
def test_three_steps_agree_with_lucirs_own_training_function(golden):
    def model_with(prefix, names):
        linear = nn.Linear(*reversed(golden[f"{prefix}_l1__weight"].shape))
        linear.weight.data.copy_(golden[f"{prefix}_l1__weight"])
        linear.bias.data.copy_(golden[f"{prefix}_l1__bias"])
        weights = [golden[f"{prefix}_fc__{name}weight"] for name in names]
        return FeatureClassifier(
            linear, head_of(weights, golden[f"{prefix}_fc__sigma"])
        )

    model = model_with("before", ["fc1__", "fc2__"])
    plugin = LUCIRPlugin(margin=golden["margin"], n_negatives=golden["K"])
    plugin.before_training_exp(SimpleNamespace(model=model, experience=None))
    plugin.reference = FrozenCopy(model_with("ref", [""]))
    assert plugin.current_weight == pytest.approx(golden["lamda"])
    sgd = torch.optim.SGD(
        model.parameters(),
        lr=golden["lr"],
        momentum=golden["momentum"],
        weight_decay=golden["weight_decay"],
    )
    printed = []
    for i in range(3):
        x, y = golden[f"b{i}_x"], golden[f"b{i}_y"]
        sgd.zero_grad()
        ce = nn.functional.cross_entropy(model(x), y)
        dist = plugin.distillation(model, x)
        total = ce + plugin.penalty(model, x, y)
        total.backward()
        sgd.step()
        printed.append(
            [dist.item(), ce.item(), (total - ce - dist).item(), total.item()]
        )
    mean = torch.tensor(printed, dtype=torch.double).mean(0)
    assert_close(mean, golden["printed_mean_losses"].double(), rtol=0, atol=1e-4)
    linear, head = model.feature_extractor, model.train_classifier
    ours = [linear.weight, linear.bias, head.scale[None], *head.prototypes]
    names = [
        "l1__weight",
        "l1__bias",
        "fc__sigma",
        "fc__fc1__weight",
        "fc__fc2__weight",
    ]
    for tensor, name in zip(ours, names):
        assert_close(tensor.data, golden[f"after_{name}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.RMSprop, None])
def test_old_prototypes_rest_and_become_trainable_again(optimizer):
    benchmark, strategy = toy_benchmark(), naive_with(LUCIRPlugin())
    if optimizer:
        strategy.optimizer = optimizer(
            strategy.model.parameters(), lr=0.1, weight_decay=0.1
        )
    strategy.train(benchmark.train_stream[0])
    head = strategy.model.train_classifier
    before = head.prototypes[0].detach().clone()
    strategy.train(benchmark.train_stream[1])
    assert torch.equal(head.prototypes[0], before)
    assert all(p.requires_grad for p in head.prototypes)


def test_reference_is_the_model_of_the_last_experience_and_never_moves():
    benchmark, plugin = toy_benchmark(), LUCIRPlugin()
    strategy = naive_with(plugin)
    strategy.train(benchmark.train_stream[0])
    assert plugin.reference is None and plugin.memory_bytes() == {"frozen_copies": 0}
    old = {k: v.clone() for k, v in strategy.model.state_dict().items()}
    strategy.train(benchmark.train_stream[1])
    kept = plugin.reference.model.state_dict()
    for name, value in old.items():
        if "class_order" not in name:
            assert torch.equal(kept[name], value), name
    assert plugin.memory_bytes()["frozen_copies"] > 0


def test_weight_follows_the_number_of_old_and_new_classes():
    benchmark, plugin = toy_benchmark(), LUCIRPlugin(distillation_mode="new_over_old")
    strategy = naive_with(plugin)
    for i, experience in enumerate(benchmark.train_stream):
        strategy.train(experience)
        if i:
            wanted = adaptive_distillation_weight(5.0, 2 * i, 2, "new_over_old")
            assert plugin.current_weight == wanted


def test_an_experience_without_new_classes_is_refused_or_kept_as_asked():
    benchmark = toy_benchmark()
    strategy = naive_with(LUCIRPlugin())
    strategy.train(benchmark.train_stream[0])
    before = {k: v.clone() for k, v in strategy.model.state_dict().items()}
    with pytest.raises(ValueError, match="none beyond the 2 classes known"):
        strategy.train(benchmark.train_stream[0])
    for name, value in strategy.model.state_dict().items():
        assert torch.equal(value, before[name])

    plugin = LUCIRPlugin(without_new_classes="keep")
    strategy = naive_with(plugin)
    for experience in (*benchmark.train_stream[:2], benchmark.train_stream[0]):
        strategy.train(experience)
    assert strategy.model.train_classifier.n_classes == 4
    assert plugin.current_weight == 5.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distillation_weight": -1.0}, "distillation_weight is -1.0; wanted a number"),
        ({"distillation_weight": float("nan")}, "distillation_weight is nan"),
        ({"distillation_weight": None}, "distillation_weight is None"),
        ({"margin_weight": -0.5}, "margin_weight is -0.5"),
        ({"margin": "a"}, "margin is 'a'"),
        ({"n_negatives": 0}, "n_negatives is 0; wanted a whole number, at least 1"),
        ({"n_negatives": 1.5}, "n_negatives is 1.5"),
        ({"distillation_mode": "up"}, "distillation_mode is 'up'; wanted one of 'old"),
        ({"without_new_classes": "skip"}, "'skip'; wanted one of 'raise', 'keep'"),
        ({"less_forget": None}, "less_forget is None; wanted one of True, False"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LUCIRPlugin(**options)


def test_a_classifier_that_is_not_cosine_is_refused_before_any_step():
    strategy = naive_with(LUCIRPlugin(), model=toy_model(cosine=False))
    with pytest.raises(ValueError, match="a Linear; wanted a CosineClassifier"):
        strategy.train(toy_benchmark().train_stream[0])


def test_penalty_of_the_ablation_keeps_scores_and_freezes_nothing():
    benchmark, plugin = toy_benchmark(), LUCIRPlugin(less_forget=False)
    strategy = naive_with(plugin)
    strategy.train(benchmark.train_stream[0])
    head = strategy.model.train_classifier
    before = head.prototypes[0].detach().clone()
    strategy.train(benchmark.train_stream[1])
    assert not torch.equal(head.prototypes[0], before)

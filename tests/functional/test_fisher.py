from __future__ import annotations

import pytest
import torch
from prior_cases import TinyMLP, flat, own_head
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from avalanche_ext.functional.fisher import diagonal_fisher
from avalanche_ext.models import TaskClassifier, TaskIncrementalClassifier


def restated(model, x, y, kind="empirical"):
    """One backward pass an example (and class)."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    total = {n: torch.zeros_like(p) for n, p in named.items()}
    for one, label in zip(x, y):
        logits = model(one[None])
        h = logits.softmax(1)[0].detach()
        labels = [(int(label), 1.0)] if kind == "empirical" else enumerate(h.tolist())
        for c, weight in labels:
            loss = cross_entropy(logits, torch.tensor([c]))
            found = torch.autograd.grad(
                loss, list(named.values()), retain_graph=True, allow_unused=True
            )
            for name, g in zip(named, found):
                if g is not None:
                    total[name] += weight * g.square()
    return total


class Reused(nn.Module):
    """A linear layer called twice, one on a sequence, one by its weight, one tied."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.on_sequence = nn.Linear(2, 3)
        self.by_weight = nn.Linear(6, 6)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.first.weight
        self.last = nn.Linear(6, 3, bias=False)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = self.tied(self.first(self.first(x).relu()).tanh())
        x = self.on_sequence(x.view(-1, 2, 2)).flatten(1)
        x = self.by_weight(x) + x @ self.by_weight.weight
        return self.last(x)


def networks():
    torch.manual_seed(0)
    frozen = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    frozen[0].weight.requires_grad_(False)
    found = {
        "linear": nn.Linear(4, 3),
        "mlp": nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False)),
        "frozen": frozen,
        "reused": Reused(),
        "conv": nn.Sequential(
            nn.Unflatten(1, (1, 2, 2)),
            nn.Conv2d(1, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8, 3),
        ),
        "convs": nn.Sequential(
            nn.Unflatten(1, (2, 2, 1)),
            nn.ZeroPad2d((0, 6, 0, 5)),
            nn.Conv2d(2, 4, (2, 3), stride=(1, 2), padding=(0, 1), bias=False),
            nn.Conv2d(4, 4, 3, padding="same", groups=2),
            nn.Tanh(),
            nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"),
            nn.Conv2d(2, 2, 2, dilation=2),
            nn.Flatten(),
            nn.LazyLinear(3),
        ),
    }
    found["convs"](torch.zeros(1, 4))
    return found


@pytest.mark.parametrize("kind", ["empirical", "ggn"])
@pytest.mark.parametrize("chunk", [1, 3, 50])
@pytest.mark.parametrize("name", networks())
def test_fisher_is_the_sum_over_single_examples(name, chunk, kind, rng):
    model = networks()[name].double().eval()
    x = torch.randn(7, 4, generator=rng, dtype=torch.double)
    y = torch.randint(3, (7,), generator=rng)
    ours = diagonal_fisher(model, x, y, kind=kind, chunk=chunk)
    wanted = restated(model, x, y, kind)
    assert ours.keys() == wanted.keys()
    for key, value in wanted.items():
        assert_close(ours[key], value, rtol=1e-9, atol=1e-12)


def test_a_layer_whose_gradient_is_zero_on_the_first_example_is_not_mistaken(rng):
    # called twice, but with zero weights behind it: nothing to compare
    model = Reused().double()
    nn.init.zeros_(model.last.weight)
    x = torch.randn(4, 4, generator=rng, dtype=torch.double)
    y = torch.tensor([0, 1, 2, 0])
    for key, value in restated(model, x, y).items():
        assert_close(diagonal_fisher(model, x, y)[key], value, rtol=1e-9, atol=1e-12)


def test_ggn_is_the_diagonal_of_the_gauss_newton_matrix(rng):
    model = networks()["mlp"].double()
    x = torch.randn(5, 4, generator=rng, dtype=torch.double)
    named = {n: p.detach() for n, p in model.named_parameters()}
    jacobians = jacrev(lambda p: functional_call(model, p, x))(named)
    j = torch.cat([v.flatten(2) for v in jacobians.values()], 2)  # (N, C, P)
    h = model(x).softmax(1).detach()
    hessian = torch.diag_embed(h) - h[:, :, None] * h[:, None, :]
    wanted = torch.einsum("ncp,ncd,ndp->p", j, hessian, j)
    ours = diagonal_fisher(model, x, torch.zeros(5, dtype=torch.long), kind="ggn")
    assert_close(flat(ours), wanted)


def test_disjoint_data_add_up_in_any_order_and_no_data_give_zero(rng):
    model = networks()["conv"].double().eval()
    x = torch.randn(9, 4, generator=rng, dtype=torch.double)
    y = torch.randint(3, (9,), generator=rng)
    whole = flat(diagonal_fisher(model, x, y))
    order = torch.randperm(9, generator=rng)
    parts = [flat(diagonal_fisher(model, x[o], y[o])) for o in order.split(4)]
    assert_close(sum(parts), whole)
    assert not flat(diagonal_fisher(model, x[:0], y[:0])).any()


def test_model_is_left_as_found(rng):
    model = networks()["conv"].eval()
    model[1].weight.grad = torch.ones_like(model[1].weight)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    diagonal_fisher(model, torch.randn(3, 4, generator=rng), torch.tensor([0, 1, 2]))
    assert (model[1].weight.grad == 1).all() and model[5].weight.grad is None
    assert all(not m._forward_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_what_modules_note_of_a_batch_is_put_back(rng):
    class Noting(nn.Linear):
        noted = None

        def forward(self, x):
            self.noted = super().forward(x)
            return self.noted

    model = Noting(4, 3)
    before = model(torch.randn(2, 4, generator=rng))
    diagonal_fisher(model, torch.randn(3, 4, generator=rng), torch.tensor([0, 1, 2]))
    assert model.noted is before


def test_no_gradient_of_an_example_is_made_of_a_large_linear_layer(rng):
    # 64 examples of 4 million weights would be a gigabyte
    model = nn.Sequential(nn.Linear(2000, 2000), nn.ReLU(), nn.Linear(2000, 2))
    x, y = torch.randn(64, 2000, generator=rng), torch.zeros(64, dtype=torch.long)
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    with Watch():
        diagonal_fisher(model, x, y, chunk=64)
    assert max(sizes) <= 2000 * 2000


@pytest.mark.parametrize("n_outputs", [None, 60])
def test_heads_that_no_logit_depends_on_cost_no_gradient(n_outputs, rng):
    x, y = torch.randn(8, 4, generator=rng), torch.randint(2, (8,), generator=rng)
    squares = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            squares[-1] += func is torch.ops.aten.pow.Tensor_Scalar
            return func(*args, **(kwargs or {}))

    for n_tasks in (2, 30):
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        head = TaskClassifier(4, n_outputs)
        model = TaskIncrementalClassifier(model, head).eval()
        for task in range(n_tasks):
            head.grow([(task, 0), (task, 1)])
        squares.append(0)
        with Watch():
            found = diagonal_fisher(model, x, y, arguments=(1,))
        other = [name for name, value in found.items() if not value.any()]
        assert len(other) == (2 * (n_tasks - 1) if n_outputs is None else 0)
    assert squares[0] == squares[1] > 0


def test_wrong_arguments_are_refused():
    model, x, y = nn.Linear(4, 2), torch.zeros(2, 4), torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match="3 targets for 2 inputs"):
        diagonal_fisher(model, x, y)
    with pytest.raises(ValueError, match="chunk is 0; wanted a whole number, at"):
        diagonal_fisher(model, x, y[:2], chunk=0)
    with pytest.raises(ValueError, match="kind is 'ef'; wanted"):
        diagonal_fisher(model, x, y[:2], kind="ef")


@pytest.mark.golden("ewc_fr_replay", "fisher_mlp.npz")
def test_both_heads_agree_with_the_authors(golden):
    model = TinyMLP(golden)
    x, y, ids = golden["x"], golden["y"], golden["class_ids"]
    head = own_head(model, ids)
    assert_close(flat(diagonal_fisher(head, x, y)), golden["out_ef_head"], **TIGHT)
    ggn = flat(diagonal_fisher(head, x, y, kind="ggn"))
    assert_close(ggn, golden["out_ggn_head"], **TIGHT)
    every = flat(diagonal_fisher(model, x, y))
    assert_close(every, golden["out_ef_all_outputs"], **TIGHT)


@pytest.mark.golden("ewc_fr_replay", "fisher_conv.npz")
def test_a_convolution_agrees_with_the_authors(golden):
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 3),
    )
    state = {k[6:]: v for k, v in golden.items() if k.startswith("param.")}
    model.load_state_dict(state)
    x, y = golden["x"], golden["y"]
    assert_close(flat(diagonal_fisher(model, x, y)), golden["out_ef"], **TIGHT)
    ggn = flat(diagonal_fisher(model, x, y, kind="ggn"))
    assert_close(ggn, golden["out_ggn"], **TIGHT)


TIGHT = {"rtol": 1e-5, "atol": 1e-6}

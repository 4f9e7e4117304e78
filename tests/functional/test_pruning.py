from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from relevance_nets import conv_net
from torch.testing import assert_close

from avalanche_ext.functional.pruning import prune, relevance_steps

#: Few different values beside many: ties are the rule.
VALUE = st.one_of(st.sampled_from([-1.0, 0.0, 0.25]), st.floats(-3, 3, width=32))
RELEVANCE = st.dictionaries(
    st.sampled_from("abc"),
    st.lists(VALUE, min_size=1, max_size=8).map(torch.tensor),
    min_size=1,
)


def units_of(relevance):
    return [(layer, c) for layer, r in relevance.items() for c in range(len(r))]


def named(steps, relevance):
    units = units_of(relevance)
    return [[units[u] for u in step.tolist()] for step in steps]


@given(relevance=RELEVANCE, bins=st.sampled_from([1, 3, 10_000]))
def test_steps_are_the_bins_of_a_histogram(relevance, bins):
    values = torch.cat(list(relevance.values())).double()
    wanted = np.histogram(values.numpy(), bins=bins)[0]
    steps = relevance_steps(relevance, bins=bins)
    assert [len(step) for step in steps] == wanted[wanted > 0].tolist()
    order = torch.cat(steps)
    assert sorted(order.tolist()) == list(range(len(values)))
    assert (values[order].diff() >= 0).all()


def test_the_bins_of_many_units_are_those_of_a_histogram_in_float64(rng):
    values = torch.randn(20_000, generator=rng)
    wanted = np.histogram(values.double().numpy(), bins=10_000)[0]
    steps = relevance_steps({"conv": values[:9000], "fc": values[9000:]})
    assert [len(step) for step in steps] == wanted[wanted > 0].tolist()


@given(
    low=st.floats(-50, 50, width=32),
    width=st.floats(0.125, 100, width=32),
    bins=st.integers(1, 40),
)
def test_values_on_the_edges_of_bins_are_counted_as_numpy_counts(low, width, bins):
    values = np.linspace(low, low + width, bins + 1)
    values = np.concatenate([values, np.nextafter(values, -np.inf)[1:]])
    wanted = np.histogram(values, bins=bins)[0]
    steps = relevance_steps({"fc": torch.from_numpy(values)}, bins=bins)
    assert [len(step) for step in steps] == wanted[wanted > 0].tolist()


@given(relevance=RELEVANCE, step=st.integers(1, 5))
def test_a_number_as_step_is_that_many_units(relevance, step):
    wanted = [u for group in relevance_steps(relevance, 1) for u in group.tolist()]
    found = relevance_steps(relevance, step)
    assert [u for group in found for u in group.tolist()] == wanted
    assert {len(group) for group in found[:-1]} <= {step}
    assert 1 <= len(found[-1]) <= step


def restated(relevance, accuracy, acc_drop, *, fixed, min_units, patience):
    """Unit by unit, counting what is left of each layer."""
    left = set(units_of(relevance))
    ranked = sorted(
        (float(r), name, c) for name, rs in relevance.items() for c, r in enumerate(rs)
    )
    counts = np.histogram([r for r, _, _ in ranked], bins=10_000)[0]
    accuracies, sizes = [accuracy(left)], []
    held, violations = set(left), 0
    for count in counts:
        group, ranked = ranked[:count], ranked[count:]
        removed = 0
        for _, name, c in group:
            if name not in fixed and Counter(n for n, _ in left)[name] > min_units:
                left.remove((name, c))
                removed += 1
        if not removed:
            continue
        accuracies.append(accuracy(left))
        sizes.append(removed)
        lost = accuracies[0] - accuracies[-1]
        if lost < acc_drop or (acc_drop == 0 and lost <= 0):
            held, violations = set(left), 0
        else:
            violations += 1
            if violations > patience:
                break
    return held, accuracies, sizes


def left_of(keep):
    return {
        (name, c)
        for name, units in keep.items()
        for c in units.nonzero()[:, 0].tolist()
    }


@given(
    relevance=RELEVANCE,
    acc_drop=st.sampled_from([0, 0.5, 5, 100]),
    fixed=st.sampled_from(["", "a"]),
    min_units=st.integers(0, 3),
    patience=st.integers(0, 3),
    seed=st.integers(0, 20),
)
def test_pruning_agrees_with_its_restatement(
    relevance, acc_drop, fixed, min_units, patience, seed
):
    rng = torch.Generator().manual_seed(seed)
    worth = {u: float(torch.rand((), generator=rng)) for u in units_of(relevance)}

    def accuracy(left):
        # sorted: the sum is to be the same to the last bit
        return 90 + 10 * round(np.cos(sum(worth[u] for u in sorted(left))), 1)

    options = {
        "fixed": [name for name in relevance if name in fixed],
        "min_units": min_units,
        "patience": patience,
    }
    relevance = dict(sorted(relevance.items()))
    found = prune(
        relevance, lambda keep: accuracy(left_of(keep)), acc_drop=acc_drop, **options
    )
    held, accuracies, sizes = restated(relevance, accuracy, acc_drop, **options)
    assert left_of(found.keep) == held
    assert found.accuracies == accuracies
    assert found.step_sizes == sizes
    # what is left is as good as promised, and the next step is not
    assert accuracy(held) == found.accuracies[found.steps_kept]
    lost = [accuracies[0] - a for a in accuracies]
    assert lost[found.steps_kept] <= acc_drop
    assert all(a >= acc_drop for a in lost[found.steps_kept + 1 :])


def test_units_kept_are_those_of_the_layers_and_no_views_of_each_other():
    relevance = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.0])}
    found = prune(relevance, lambda keep: 50.0, acc_drop=1, min_units=0).keep
    found["a"][:] = True
    assert found["b"].tolist() == [False]
    assert found["b"].untyped_storage().nbytes() == 1


def test_where_nothing_matters_the_most_relevant_units_stay(rng):
    relevance = {k: torch.randn(6, generator=rng) for k in "ab"} | {"c": torch.ones(1)}
    found = prune(relevance, lambda keep: 100.0, acc_drop=1, min_units=2)
    for layer, r in relevance.items():
        best = r.argsort(descending=True)[:2]
        assert found.keep[layer].nonzero()[:, 0].tolist() == sorted(best.tolist())


def test_equal_relevance_is_one_step():
    relevance = {"a": torch.full((3,), 0.1), "b": torch.full((2,), 0.1)}
    assert [step.tolist() for step in relevance_steps(relevance)] == [[0, 1, 2, 3, 4]]


def test_no_loss_allowed_lets_a_tie_pass_and_strictly_less_than_a_drop_does_not():
    relevance = {"fc": torch.tensor([0.0, 1.0, 2.0, 3.0])}

    def accuracy(keep):
        return [0.0, 97.0, 98.0, 99.0, 98.0][int(keep["fc"].sum())]

    def steps_kept(acc_drop):
        found = prune(relevance, accuracy, acc_drop=acc_drop, min_units=0)
        return found.steps_kept

    assert [steps_kept(d) for d in (0, 1, 1.5)] == [2, 2, 3]


def test_patience_goes_over_one_unlucky_unit():
    relevance = {"fc": torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])}

    def accuracy(keep):
        return [0.0, 0.0, 0.0, 90.0, 0.0, 90.0][int(keep["fc"].sum())]

    calm = prune(relevance, accuracy, acc_drop=1, patience=1)
    hasty = prune(relevance, accuracy, acc_drop=1)
    assert calm.keep["fc"].tolist() == [False, False, True, True, True]
    assert hasty.keep["fc"].all() and hasty.accuracies == [90, 0]
    assert calm.accuracies == [90, 0, 90, 0, 0] and calm.steps_kept == 2


def test_wrong_arguments_are_refused_before_any_work():
    def unasked(keep):
        raise AssertionError

    fine = {"fc": torch.ones(2)}
    for relevance, options, message in [
        ({"fc": torch.tensor([1.0, torch.nan])}, {}, "'fc' is not finite"),
        ({"fc": torch.tensor([1.0, torch.inf])}, {}, "'fc' is not finite"),
        ({"fc": torch.ones(2, 2)}, {}, r"'fc' is of shape \(2, 2\); wanted \(C,\)"),
        ({}, {}, "of 0 layers; wanted at least 1"),
        (fine, {"acc_drop": -1}, "acc_drop is -1; wanted a number, at least 0"),
        (fine, {"fixed": ["head"]}, "fixed is 'head'; wanted some of 'fc'"),
        (fine, {"min_units": -1}, "min_units is -1; wanted"),
        (fine, {"patience": -1}, "patience is -1; wanted"),
        (fine, {"step": 0}, "step is 0; wanted a whole number, at least 1"),
        (fine, {"step": "unit"}, "step is 'unit'; wanted one of 'bins'"),
        (fine, {"bins": 0}, "bins is 0; wanted"),
    ]:
        with pytest.raises(ValueError, match=message):
            prune(relevance, unasked, **{"acc_drop": 1, **options})
    with pytest.raises(ValueError, match="accuracy is nan; wanted a number"):
        prune(fine, lambda keep: float("nan"), acc_drop=1)


@pytest.mark.golden("rerelrp", "ranking.json")
def test_ranking_and_steps_agree_with_the_authors(golden):
    bins = golden["histogram_bins"]
    relevance = {k: torch.tensor(golden["relevance"][k]) for k in golden["layers"]}
    steps = relevance_steps(relevance, bins=bins)
    assert [len(step) for step in steps] == golden["step_sizes"]
    gone = {(k, c) for k, units in golden["already_pruned"].items() for c in units}
    ranked = [
        u for step in named(relevance_steps(relevance, 1), relevance) for u in step
    ]
    ranked = [unit for unit in ranked if unit not in gone]
    for case in golden["cases"]:
        picked = [tuple(unit) for unit in case["picked"]]
        assert ranked[: case["r"]] == [unit for unit in picked if unit not in gone]
        assert [float(relevance[k][c]) for k, c in picked] == case["values"]
    case = golden["tie_case"]
    relevance = {k: torch.tensor(case["relevance"][k]) for k in golden["layers"]}
    groups = named(relevance_steps(relevance, bins=bins), relevance)
    assert [len(group) for group in groups] == case["step_sizes"]
    wanted = [{tuple(unit) for unit in group} for group in case["groups"]]
    assert [set(group) for group in groups] == wanted


@pytest.mark.parametrize("head", ["free", "fixed"])
@pytest.mark.golden("rerelrp", "pruning.npz")
def test_pruning_agrees_with_the_authors(golden, head):
    for t, offset in enumerate(golden["offsets"].tolist()):
        own = {k[3:]: v for k, v in golden.items() if k.startswith(f"t{t}.")}
        state = {k[6:]: v for k, v in own.items() if k.startswith("model.")}
        net, x, y = (
            conv_net(state).requires_grad_(False),
            own["x_val"],
            own["y_val"] - offset,
        )

        def accuracy(keep, net=net, x=x, y=y):
            masked = copy.deepcopy(net)
            for name, kept in keep.items():
                layer = masked.get_submodule(name)
                layer.weight[~kept] = 0
                layer.bias[~kept] = 0
            return float((masked(x).argmax(1) == y).double().mean()) * 100

        relevance = {layer: own[f"R.{layer}"] for layer in golden["layers"]}
        options = {"min_units": 0} if head == "free" else {"fixed": ["fc"]}
        found = prune(relevance, accuracy, acc_drop=own["acc_drop"], **options)
        wanted = {layer: own[f"keep.{layer}"].bool() for layer in relevance}
        assert all(torch.equal(found.keep[k], wanted[k]) for k in relevance)
        assert found.step_sizes == own["step_sizes"].tolist()
        trajectory = own["acc_trajectory"].tolist()
        assert_close(found.accuracies, trajectory, rtol=0, atol=1e-4)
        assert found.steps_kept == len(trajectory) - 2

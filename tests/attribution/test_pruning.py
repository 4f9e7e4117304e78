"""What relevance says is not needed goes, and the accuracy stays."""

from __future__ import annotations

import warnings

import pytest
import torch
from relevance_nets import assert_as_before, fingerprint
from submodel_hosts import host, place
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from avalanche_ext.attribution import LRP
from avalanche_ext.attribution.pruning import prune_by_relevance
from avalanche_ext.models.submodels import Submodels
from avalanche_ext.models.unit_layers import unit_layers

CLASSES = (1, 2, 5)  # rows of the head, not from 0 on


def learned(name="cnn", n=60, classes=CLASSES):
    """A network that has learned some classes, its sites, and images of them."""
    net, _ = host(name)
    rng = torch.Generator().manual_seed(2)
    y = torch.tensor(classes)[torch.arange(n) % len(classes)]
    patterns = torch.randn(6, 3, 8, 8, generator=rng)
    x = patterns[y] + 0.7 * torch.randn(n, 3, 8, 8, generator=rng)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(15):
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()
        optimizer.step()
    return net, Submodels(**place(net, x)), x, y


def pruned(net, ours, x, y, classes=CLASSES, **options):
    fixed = {"lrp": LRP(), "reference": (x[::2], y[::2]), "acc_drop": 5.0}
    fixed |= {"validation": (x[1::2], y[1::2]), "prune_head": False}
    return prune_by_relevance(net, ours, classes, **{**fixed, **options})


def slow_relevance(net, ours, x, y, lrp):
    """R by loops over samples, units and space."""
    part = ours.whole(net, CLASSES)
    total = {n: [0.0] * (len(m.weight)) for n, m in unit_layers(part.network).items()}
    for image, label in zip(x, y):
        local = torch.tensor([CLASSES.index(int(label))])
        units = lrp(part.network, image[None], local).units
        for name, values in units.items():
            for c, value in enumerate(values[0].tolist()):
                total[name][c] += value
    return total


def accuracy_of(net, ours, keep, x, y):
    part = ours.whole(net, CLASSES, keep)
    right = torch.tensor(CLASSES)[part(x).argmax(1)] == y
    return 100 * float(right.double().mean())


@pytest.mark.parametrize("start", ["logit", "one"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "incremental"])
def test_units_go_from_the_least_relevant_on_until_accuracy_breaks(name, start):
    net, ours, x, y = learned(name)
    before, lrp = fingerprint(net), LRP(start=start)
    found = pruned(net, ours, x, y, lrp=lrp, min_units=0)
    assert_as_before(net, before)
    relevance = slow_relevance(net, ours, x[::2], y[::2], lrp)
    assert found.keep.keys() == relevance.keys()
    assert found.keep[ours.head].all() and found.keep[ours.head].shape == (3,)
    del relevance[ours.head]
    order = sorted((r, n, c) for n, rs in relevance.items() for c, r in enumerate(rs))
    removed = sum(found.step_sizes[: found.steps_kept])
    assert 0 < removed < len(order)
    # to rounding: the least of those kept is not below the largest of those that went
    going = [r for r, n, c in order if not found.keep[n][c]]
    staying = [r for r, n, c in order if found.keep[n][c]]
    assert len(going) == removed and max(going) <= min(staying) + 1e-4
    accuracies = found.accuracies
    assert accuracies[0] == pytest.approx(accuracy_of(net, ours, {}, x[1::2], y[1::2]))
    kept = accuracy_of(net, ours, found.keep, x[1::2], y[1::2])
    assert accuracies[found.steps_kept] == pytest.approx(kept)
    assert accuracies[0] - kept < 5.0
    if found.steps_kept < len(found.step_sizes):
        assert accuracies[0] - accuracies[found.steps_kept + 1] >= 5.0


def test_reference_samples_in_many_passes_are_one_set(monkeypatch):
    net, ours, x, y = learned()
    whole = pruned(net, ours, x, y)
    monkeypatch.setattr("avalanche_ext.attribution.lrp._FIRST_PASS", 7)
    few = {"cpu": 1, "cuda": 1}
    monkeypatch.setattr("avalanche_ext.attribution.lrp._PASS_BYTES", few)
    parts = pruned(net, ours, x, y)
    turned = pruned(net, ours, x, y, reference=(x[::2].flip(0), y[::2].flip(0)))
    for other in (parts, turned):
        assert other.step_sizes == whole.step_sizes
        assert all(torch.equal(other.keep[n], k) for n, k in whole.keep.items())


def test_the_labels_of_reference_samples_count():
    net, ours, x, y = learned()
    seen = []

    class Telling(LRP):
        def __call__(self, model, images, targets=None, **options):
            seen.append(targets)
            return super().__call__(model, images, targets, **options)

    pruned(net, ours, x, y, lrp=Telling())
    wanted = [CLASSES.index(label) for label in y[::2].tolist()]
    assert torch.cat(seen).tolist() == wanted


def test_rows_of_the_head_go_only_if_asked():
    net, ours, x, y = learned()
    head = ours.head
    most = {"acc_drop": 100.0, "min_units": 0}
    assert pruned(net, ours, x, y, **most).keep[head].all()
    assert not pruned(net, ours, x, y, **most, prune_head=True).keep[head].all()


def test_every_layer_keeps_its_least_number_of_units():
    net, ours, x, y = learned()
    for least in (1, 2, 3):
        found = pruned(net, ours, x, y, acc_drop=100.0, min_units=least)
        sizes = [int(k.sum()) for n, k in found.keep.items() if n != ours.head]
        assert min(sizes) >= least
        assert found.accuracies[0] - found.accuracies[found.steps_kept] < 100


def test_no_drop_allowed_keeps_the_accuracy():
    net, ours, x, y = learned()
    found = pruned(net, ours, x, y, acc_drop=0)
    assert found.accuracies[found.steps_kept] >= found.accuracies[0]


def test_options_of_pruning_are_handed_on():
    net, ours, x, y = learned()
    assert set(pruned(net, ours, x, y, step=2).step_sizes) <= {1, 2}
    patient = pruned(net, ours, x, y, patience=10**6, acc_drop=4.0)
    assert len(patient.accuracies) > len(
        pruned(net, ours, x, y, acc_drop=4.0).accuracies
    )


def test_a_network_at_chance_is_told():
    net, ours, x, y = learned()
    message = "is .* % of 3 classes, no better than chance: nearly every unit may"
    with pytest.warns(UserWarning, match=message):
        pruned(net, ours, x, y, validation=(x[1::2], y[1::2].roll(1)), acc_drop=50.0)


def test_one_class_alone_is_told_and_leaves_the_least_number_of_units():
    # every answer is right
    net, ours, x, y = learned(classes=(4,))
    with pytest.warns(UserWarning, match="one class alone is always told right"):
        found = pruned(net, ours, x, y, (4,))
    assert set(found.accuracies) == {100.0}
    sizes = {n: int(k.sum()) for n, k in found.keep.items()}
    assert set(sizes.values()) == {1}


@pytest.mark.parametrize(("acc_drop", "told"), [(5.0, True), (4.0, True), (5.1, False)])
def test_a_drop_smaller_than_a_sample_is_told(acc_drop, told):
    net, ours, x, y = learned()
    twenty = (x[:20], y[:20])
    if told:
        message = rf"^acc_drop is {acc_drop} points, one of 20 .* 5\.0: no sample may"
        with pytest.warns(UserWarning, match=message):
            found = pruned(net, ours, x, y, validation=twenty, acc_drop=acc_drop)
        assert found.accuracies[found.steps_kept] >= found.accuracies[0]
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pruned(net, ours, x, y, validation=twenty, acc_drop=acc_drop)


def test_a_network_that_diverged_is_refused_and_left_alone():
    net, ours, x, y = learned()
    net[0][0].weight.data[0, 0] = torch.nan
    before = fingerprint(net)[1]
    with pytest.raises(ValueError, match="the logits of .* are not finite"):
        pruned(net, ours, x, y)
    assert fingerprint(net)[1] == before


def test_wrong_options_and_no_samples_are_refused():
    net, ours, x, y = learned()
    none = (x[:0], y[:0])
    for options, message in [
        ({"acc_drop": -1}, "acc_drop is -1; wanted a number, at least 0"),
        ({"min_units": -1}, "min_units is -1; wanted"),
        ({"validation": none}, "for 0 images; wanted one for each, and at least one"),
        ({"reference": none}, "relevance is of 0 samples; wanted at least 1"),
        ({"validation": (x, y * 0)}, r"y has classes \[0\]; wanted only"),
    ]:
        with pytest.raises(ValueError, match=message):
            pruned(net, ours, x, y, **options)


def test_a_submodel_of_what_is_kept_is_the_network_that_was_measured():
    net, ours, x, y = learned("incremental")
    found = pruned(net, ours, x, y)
    ours.append(CLASSES, found.keep)
    right = torch.tensor(CLASSES)[ours.of(net, 0)(x[1::2]).argmax(1)] == y[1::2]
    wanted = found.accuracies[found.steps_kept]
    assert_close(100 * float(right.double().mean()), wanted)

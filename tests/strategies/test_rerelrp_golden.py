"""Whole chains of the authors' ReReLRP, in our parts."""

import json

import numpy as np
import pytest
import torch
from relevance_nets import conv_net, state_of
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from avalanche_ext.attribution import LRP
from avalanche_ext.attribution.pruning import prune_by_relevance
from avalanche_ext.attribution.relevance_rows import relevance_rows
from avalanche_ext.models.experience_detectors import ExperienceDetectors
from avalanche_ext.models.frozen_rows import FrozenRows
from avalanche_ext.models.submodels import Submodels, widened

LAYERS = ("conv1", "conv2", "fc1", "fc")
SITES = {name: name for name in LAYERS}


def classes_of(golden):
    """Class ids of each experience."""
    both = zip(golden["offsets"].tolist(), golden["classes"].tolist())
    return [tuple(range(first, first + n)) for first, n in both]


@pytest.mark.golden("rerelrp", "pruning.npz")
def test_pruning_from_images_agrees_with_the_authors(golden):
    for t, classes in enumerate(classes_of(golden)):
        own = state_of(golden, f"t{t}.")
        local = tuple(range(len(classes)))
        found = prune_by_relevance(
            conv_net(state_of(own, "model.")),
            Submodels("fc", SITES),
            local,
            lrp=LRP(),
            reference=(own["x_ref"], own["y_ref"] - classes[0]),
            validation=(own["x_val"], own["y_val"] - classes[0]),
            acc_drop=own["acc_drop"],
            prune_head=True,
        )
        for layer in LAYERS:
            assert torch.equal(found.keep[layer], own[f"keep.{layer}"].bool())
        assert found.step_sizes == own["step_sizes"].tolist()
        wanted = own["acc_trajectory"].tolist()
        assert_close(found.accuracies, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("variant", ["code", "intended"])
@pytest.mark.golden("rerelrp", "freezing.npz")
def test_one_step_agrees_with_the_authors(golden, variant, request):
    folder = request.config.getoption("--golden-root") / "rerelrp"
    for case in json.loads((folder / "freezing.json").read_text()):
        own = state_of(golden, f"t{case['task']}.")
        net = conv_net(state_of(own, "before."))
        frozen = {}
        for layer, index in case[f"frozen_{variant}"].items():
            mask = torch.zeros(len(own[f"before.{layer}.weight"]), dtype=torch.bool)
            mask[index] = True
            frozen[layer] = mask
        holder = FrozenRows(net, frozen)
        net.zero_grad()
        cross_entropy(net(own["x"]), own["y"]).backward()
        holder.zero_gradients(net)
        torch.optim.SGD(net.parameters(), lr=0.5).step()
        for name, value in net.state_dict().items():
            assert_close(value, own[f"after_{variant}.{name}"], rtol=0, atol=1e-6)
            held = frozen.get(name.partition(".")[0])
            if held is not None:
                before = own[f"before.{name}"]
                assert torch.equal(value[held], before[held])


def submodels_of(golden):
    """The authors' submodels, of the merged network."""
    ours = Submodels("fc", SITES)
    for k, classes in enumerate(classes_of(golden)):
        keep = {name: golden[f"keep.{k}.{name}"].bool() for name in LAYERS}
        ours.append(classes, keep)
    return ours, conv_net(state_of(golden, "model."))


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.golden("rerelrp", "recognition.npz")
def test_relevance_rows_agree_with_the_authors(golden, stacked):
    ours, net = submodels_of(golden)
    network = ours.stack(net) if stacked else ours.all_of(net)
    rows = relevance_rows(LRP(), network, golden["x_test"])
    for m, (logits, row) in enumerate(rows):
        assert_close(logits, golden[f"sub_logits.{m}"], rtol=0, atol=1e-5)
        assert_close(row, golden[f"rel_test.{m}"], rtol=0, atol=1e-5)


class Stub:
    """The authors' stand-in: a logistic function of the selected features."""

    classes_ = np.array([0, 1])

    def fit(self, X, y):
        self.seen = X, y

    def predict_proba(self, X):
        inside = torch.sigmoid(torch.from_numpy(X) @ self.w + self.b).numpy()
        return np.stack([inside, 1 - inside], 1)


@pytest.mark.golden("rerelrp", "recognition.npz")
def test_decisions_agree_with_the_authors(golden, request):
    ours, net = submodels_of(golden)
    n, lrp = len(ours), LRP()
    stubs = []

    def make():
        stubs.append(Stub())
        return stubs[-1]

    folder = request.config.getoption("--golden-root") / "rerelrp"
    with np.load(folder / "pruning.npz") as arrays:
        reference = [torch.from_numpy(arrays[f"t{k}.x_ref"]) for k in range(n)]
    size = len(golden["selected.0"])
    detectors = ExperienceDetectors(size, table="code", make_detector=make)
    for k in range(n):
        part = ours.all_of(net)[: k + 1]
        found = relevance_rows(lrp, part, reference[k])
        rows, predicted = [r for _, r in found], [z.argmax(1) for z, _ in found]
        for m, row in enumerate(rows[: n - 1]):  # the last one needs no detector
            order = predicted[m].argsort(stable=True)
            assert_close(row[order], golden[f"rel.{m}.{k}"], rtol=0, atol=1e-5)
        labels = torch.zeros(len(reference[k]), dtype=torch.long)
        stubs.clear()
        detectors.add(rows, predicted, labels)
    for m, stub in enumerate(stubs):
        selected = detectors.selected[m]  # in another order than theirs
        theirs = golden[f"selected.{m}"]
        assert set(selected.tolist()) == set(theirs.tolist())
        to_ours = [theirs.tolist().index(i) for i in selected.tolist()]
        x, y = stub.seen
        wanted = golden[f"X.{m}"][:, to_ours]
        assert_close(torch.from_numpy(x), wanted.float(), rtol=0, atol=1e-5)
        assert y.tolist() == golden[f"y.{m}"].tolist()
        stub.w = golden[f"stub_w.{m}"][to_ours].float()
        stub.b = golden[f"stub_b.{m}"]
    found = relevance_rows(lrp, ours.stack(net), golden["x_test"])
    p = detectors.probabilities([row for _, row in found])
    assert_close(p, golden["p_task"].double(), rtol=0, atol=1e-5)
    task = p.argmax(1)
    assert torch.equal(task, golden["pred_task"])
    width = max(ours.known) + 1
    wide = torch.stack([widened(z, c, width) for (z, _), c in zip(found, ours.classes)])
    answer = wide[task, torch.arange(len(task))].argmax(1)
    assert torch.equal(answer, golden["pred_class"])


@pytest.mark.golden("rerelrp", "recognition.npz")
def test_forests_agree_with_the_authors(golden):
    ours, _ = submodels_of(golden)
    detectors = ExperienceDetectors(table="code", num_trees=300)
    for m in range(len(ours) - 1):
        forest = detectors.make_detector()
        forest.fit(golden[f"X.{m}"].numpy(), golden[f"y.{m}"].numpy())
        features = golden[f"rel_test.{m}"][:, golden[f"selected.{m}"]]
        inside = torch.from_numpy(forest.predict_proba(features.numpy())[:, 0])
        wanted = golden[f"rf_p_in_mean.{m}"].double()
        assert_close(inside, wanted, rtol=0, atol=0.2)
        assert (inside - wanted).abs().mean() < 0.03

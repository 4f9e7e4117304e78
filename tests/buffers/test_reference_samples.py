"""Reference samples: of the classes wanted, found again, and never kept."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from avalanche.benchmarks.utils import make_avalanche_dataset
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from cases import APIS, SIDE, toy_benchmark, toy_model
from torch import nn

from avalanche_ext.buffers import ReferenceSamples
from avalanche_ext.buffers.reference_samples import head_inputs
from avalanche_ext.functional.herding import herding_indices

HEAD = "train_classifier"
CPU = torch.device("cpu")


def behind(api="old", k=0):
    """A strategy that has just trained an experience, as far as is looked at."""
    experience = toy_benchmark(api).train_stream[k]
    clock = SimpleNamespace(train_exp_counter=k + 1)
    data = experience.dataset.train()
    return SimpleNamespace(device=CPU, clock=clock, adapted_dataset=data)


def network():
    torch.manual_seed(4)
    return toy_model(cosine=False)


def arrays(data):
    x = torch.stack([item[0] for item in data])
    return x, torch.tensor([int(y) for y in data.targets])


class Counting:
    """A transform that tells how often it was used."""

    def __init__(self, shift):
        self.shift, self.calls = shift, 0

    def __call__(self, x):
        self.calls += 1
        return x + self.shift


def with_transforms(data, train, evaluation):
    groups = TransformGroups({"train": (train, None), "eval": (evaluation, None)})
    changed = make_avalanche_dataset(
        data, transform_groups=groups, data_attributes=[data.targets]
    )
    return changed.train()


@pytest.mark.parametrize("memory_resident", [True, False])
@pytest.mark.parametrize("api", APIS)
def test_each_class_gives_its_number_in_every_api(api, memory_resident):
    strategy = behind(api, 1)
    found = ReferenceSamples(7, memory_resident=memory_resident, batch_size=5)
    x, y = found.of(strategy, network(), HEAD, (2, 3))
    assert x.shape == (14, 1, SIDE, SIDE) and y.tolist() == [2] * 7 + [3] * 7
    images, labels = arrays(strategy.adapted_dataset)
    for image, label in zip(x, y):
        assert (images[labels == label] == image).flatten(1).all(1).sum() == 1
    assert len(torch.unique(x.flatten(1), dim=0)) == 14


def test_herding_is_on_the_inputs_of_the_head_in_evaluation():
    strategy, net = behind(), network()
    found, _ = ReferenceSamples(5).of(strategy, net, HEAD, (0, 1))
    images, labels = arrays(strategy.adapted_dataset)
    assert net.training
    net.eval()
    with torch.no_grad():
        features = net.feature_extractor(images)
    wanted = []
    for label in (0, 1):
        own = (labels == label).nonzero().flatten()
        wanted.append(images[own[herding_indices(features[own], 5)]])
    assert torch.equal(found, torch.cat(wanted))


def test_the_order_of_classes_is_that_wanted():
    strategy, net = behind(), network()
    x, _ = ReferenceSamples(5).of(strategy, net, HEAD, (0, 1))
    other, labels = ReferenceSamples(5).of(strategy, net, HEAD, (1, 0))
    assert labels.tolist() == [1] * 5 + [0] * 5
    assert torch.equal(other, x.roll(5, 0))
    one, labels = ReferenceSamples(5).of(strategy, net, HEAD, (1,))
    assert labels.tolist() == [1] * 5 and torch.equal(one, x[5:])


@pytest.mark.parametrize("selection", ["random", "herding"])
def test_whoever_asks_again_gets_the_same_until_the_next_experience(selection, rng):
    samples = ReferenceSamples(5, selection=selection, generator=rng)
    first = behind()
    x, _ = samples.of(first, network(), HEAD, (0, 1))
    state = rng.get_state()
    other = toy_model(cosine=False)  # another network does not count
    assert torch.equal(samples.of(first, other, HEAD, (0, 1))[0], x)
    assert torch.equal(rng.get_state(), state)
    second = behind(k=1)
    x, y = samples.of(second, network(), HEAD, (2, 3))
    assert y.tolist() == [2] * 5 + [3] * 5
    fresh = ReferenceSamples(5, selection=selection).of(first, other, HEAD, (1,))[1]
    assert fresh.tolist() == [1] * 5


def test_other_classes_are_not_mistaken_for_those_chosen_before():
    samples, strategy = ReferenceSamples(5), behind()
    assert (
        samples.of(strategy, network(), HEAD, (0, 1))[1].tolist() == [0] * 5 + [1] * 5
    )
    assert samples.of(strategy, network(), HEAD, (1,))[1].tolist() == [1] * 5


def test_other_data_at_the_same_time_are_not_mistaken():
    # a second strategy may even get the identity of the first
    samples = ReferenceSamples(5, selection="random")
    one = behind()
    samples.of(one, network(), HEAD, (0, 1))
    one.adapted_dataset = one.adapted_dataset.subset(range(20, 28))
    with pytest.warns(UserWarning, match="have fewer"):
        x, _ = samples.of(one, network(), HEAD, (0, 1))
    images = arrays(one.adapted_dataset)[0]
    assert len(x) == 8 and all((images == image).flatten(1).all(1).any() for image in x)


def test_no_sample_is_kept():
    samples, strategy = ReferenceSamples(5), behind()
    x, _ = samples.of(strategy, network(), HEAD, (0, 1))
    there = [weakref.ref(x), weakref.ref(strategy.adapted_dataset)]
    assert all(each() is not None for each in there)
    del x, strategy
    gc.collect()
    assert all(each() is None for each in there)


def test_random_samples_follow_their_generator_and_differ_between_seeds():
    strategy = behind()

    def drawn(seed):
        own = torch.Generator().manual_seed(seed)
        samples = ReferenceSamples(5, selection="random", generator=own)
        return samples.of(strategy, network(), HEAD, (0, 1))[0]

    net = network()
    state = torch.random.get_rng_state()
    own = torch.Generator().manual_seed(1)
    ReferenceSamples(5, selection="random", generator=own).of(
        strategy, net, HEAD, (0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_a_class_with_too_few_gives_all_and_is_told():
    strategy = behind()
    labels = arrays(strategy.adapted_dataset)[1]
    rows = (labels == 0).nonzero().flatten().tolist()
    rows += (labels == 1).nonzero().flatten().tolist()[:3]
    strategy.adapted_dataset = strategy.adapted_dataset.subset(rows)
    message = r"^5 reference samples a class wanted, .* give all: \{1: 3\}$"
    for selection in ("herding", "random"):
        with pytest.warns(UserWarning, match=message):
            found = ReferenceSamples(5, selection=selection).of(
                strategy, network(), HEAD, (0, 1)
            )
        assert found[1].tolist() == [0] * 5 + [1] * 3


def test_the_transform_is_that_asked_for():
    strategy = behind()
    data = strategy.adapted_dataset
    plain = arrays(data)[0]
    train, evaluation = Counting(100.0), Counting(-100.0)
    strategy.adapted_dataset = with_transforms(data, train, evaluation)
    x, _ = ReferenceSamples(5).of(strategy, network(), HEAD, (0, 1))
    assert (x < -50).all() and train.calls == 0
    y, _ = ReferenceSamples(5, transform="train").of(strategy, network(), HEAD, (0, 1))
    assert (y > 50).all() and train.calls > 0
    z, _ = ReferenceSamples(5, transform="train").load(
        strategy, strategy.adapted_dataset, (0, 1)
    )
    assert torch.equal(z, plain - 100)  # others always as in evaluation


@pytest.mark.parametrize("api", APIS)
def test_other_data_are_loaded_whole_without_other_classes(api):
    strategy, data = behind(), toy_benchmark(api).test_stream[1].dataset
    x, y = ReferenceSamples(batch_size=3).load(strategy, data, (3,))
    images, labels = arrays(data)
    assert torch.equal(x, images[labels == 3]) and y.tolist() == [3] * 10
    with pytest.raises(ValueError, match=r"none of 20 samples are of classes \(0, 7\)"):
        ReferenceSamples().load(strategy, data, (0, 7))


def test_a_class_without_samples_is_refused():
    with pytest.raises(ValueError, match=r"by class are \{0: 24, 5: 0\}; wanted at"):
        ReferenceSamples(5).of(behind(), network(), HEAD, (0, 5))


def test_features_that_are_not_finite_are_refused():
    net = network()
    net.feature_extractor[1].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="inputs of the head are not finite; wanted"):
        ReferenceSamples(5).of(behind(), net, HEAD, (0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_class": 0}, "per_class is 0; wanted a whole number, at least 1"),
        ({"batch_size": 0}, "batch_size is 0; wanted a whole number, at least 1"),
        ({"selection": "best"}, "selection is 'best'; wanted one of 'herding', 'ran"),
        ({"transform": "test"}, "transform is 'test'; wanted one of 'eval', 'train'"),
        ({"memory_resident": "yes"}, "memory_resident is 'yes'; wanted one of"),
        ({"generator": 3}, "generator is 3; wanted a Generator"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ReferenceSamples(**options)


def test_head_inputs_leave_the_network_alone_also_after_an_error(rng):
    net = network()
    x = torch.randn(8, 1, SIDE, SIDE, generator=rng)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    found = head_inputs(net, HEAD, [(x[:3], None), (x[3:], None)])
    net.eval()
    assert torch.allclose(found, net.feature_extractor(x)) and not found.requires_grad
    net.train()
    with pytest.raises(RuntimeError):
        head_inputs(net, HEAD, [(x[:, :, :2],)])
    assert all(m.training and not m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_head_inputs_of_a_model_that_is_its_head(rng):
    x = torch.randn(4, 6, generator=rng)
    assert torch.equal(head_inputs(nn.Linear(6, 2), "", [(x,)]), x)

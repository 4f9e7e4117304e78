"""The memory of a fixed size a past experience."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from avalanche.training.plugins import ReplayPlugin
from cases import APIS, naive_with, task_model, toy_benchmark
from contract import run

from avalanche_ext.buffers import MemorablePastBuffer
from avalanche_ext.functional.functional_prior import FUNCTION, REPLAY
from avalanche_ext.functional.memory_selection import output_uncertainty
from avalanche_ext.models.past_data import forward

N = 48  # samples of each experience of the toy stream


def agent(api="old"):
    """A strategy as far as a buffer looks at it."""
    model, benchmark = task_model(), toy_benchmark(api)
    for experience in benchmark.train_stream:
        model.train_classifier.adaptation(experience)
    return SimpleNamespace(model=model, device=torch.device("cpu"))


def filled(size, *, api="old", n=3, **options):
    buffer, strategy = MemorablePastBuffer(size, **options), agent(api)
    stream = toy_benchmark(api).train_stream
    for experience in stream[:n]:
        buffer.post_adapt(strategy, experience)
    return buffer, strategy, stream


def counts(buffer):
    """Points of M1 and of M2, by experience."""
    return [
        (int((r == FUNCTION).sum()), int((r == REPLAY).sum())) for r in buffer.roles
    ]


def images(data):
    return torch.stack([item[0] for item in data])


@pytest.mark.parametrize("api", APIS)
def test_each_experience_has_its_own_points_of_a_fixed_number(api):
    buffer, _, stream = filled(7, api=api)
    assert [len(p) for p in buffer.positions] == [7, 7, 7] and len(buffer.buffer) == 21
    assert buffer.data_sizes == [N, N, N]
    for k, where in enumerate(buffer.positions):
        assert len(where.unique()) == 7
        own = images(stream[k].dataset.subset(where.tolist()))
        assert torch.equal(images(buffer.buffer)[7 * k : 7 * k + 7], own)
    assert {len(item) for item in buffer.buffer} == ({2} if api == "new" else {3})


@pytest.mark.parametrize(
    ("size", "fraction", "wanted"),
    [
        (7, 0.5, (4, 3)),
        (8, 0.5, (4, 4)),
        (1, 0.5, (1, 0)),
        (1, 1.0, (0, 1)),
        (7, 0.0, (7, 0)),
        (7, 1.0, (0, 7)),
        (10, 0.39, (7, 3)),
        (N, 0.5, (24, 24)),
        (0, 0.5, (0, 0)),
    ],
)
def test_the_share_of_replay_is_rounded_down_to_whole_points(size, fraction, wanted):
    buffer, _, _ = filled(size, replay_fraction=fraction)
    assert counts(buffer) == [wanted] * 3


@pytest.mark.parametrize("size", [0, 1, 7, N])
@pytest.mark.parametrize("selection", ["random", "lambda"])
def test_left_out_is_the_complement_of_the_memory(size, selection):
    buffer, _, _ = filled(size, selection=selection)
    for k in range(3):
        rest = buffer.left_out(k)
        assert rest == sorted(rest) and len(rest) == N - size
        assert sorted(rest + buffer.positions[k].tolist()) == list(range(N))


def test_more_points_than_samples_are_refused_naming_both_numbers():
    for act in (MemorablePastBuffer.post_adapt, None):
        buffer, first = MemorablePastBuffer(N + 1), toy_benchmark().train_stream[0]
        with pytest.raises(ValueError, match=r"0 has 48 samples; .*least 49.*'clip'"):
            act(buffer, agent(), first) if act else buffer.require_enough(first)
        assert not buffer.positions and not len(buffer.buffer)


def test_clip_takes_all_points_with_a_warning():
    buffer = MemorablePastBuffer(100, on_small="clip")
    with pytest.warns(UserWarning, match="has 48 samples, fewer than 100: all"):
        buffer.post_adapt(agent(), toy_benchmark().train_stream[0])
    assert counts(buffer) == [(24, 24)] and buffer.left_out(0) == []


def test_random_points_are_drawn_from_the_whole_experience_and_both_roles_alike():
    picked, replayed = torch.zeros(N), torch.zeros(N)
    stream = toy_benchmark().train_stream
    for _ in range(300):
        buffer = MemorablePastBuffer(12)
        buffer.post_adapt(None, stream[0])
        picked[buffer.positions[0]] += 1
        replayed[buffer.positions[0][buffer.roles[0] == REPLAY]] += 1
    # means 75 and 37.5, standard deviations 7.5 and 5.7
    assert 45 < picked.min() and picked.max() < 105
    assert 15 < replayed.min() and replayed.max() < 61


def test_a_seeded_generator_fixes_the_points_and_spares_torchs():
    def positions():
        generator = torch.Generator().manual_seed(3)
        return filled(7, generator=generator)[0].positions

    before = torch.get_rng_state()
    buffer = MemorablePastBuffer(7, generator=torch.Generator().manual_seed(3))
    buffer.post_adapt(None, toy_benchmark().train_stream[0])
    assert torch.equal(torch.get_rng_state(), before)
    first, again = positions(), positions()
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert torch.equal(buffer.positions[0], first[0])
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("selection", ["lambda", "lambda_ascending"])
def test_lambda_keeps_the_most_or_least_certain_points_of_each_class(selection, api):
    buffer, strategy, stream = filled(6, selection=selection, api=api)
    sign = 1 if selection == "lambda" else -1
    strategy.model.eval()
    for k, where in enumerate(buffer.positions):
        data = stream[k].dataset
        x, y = images(data), torch.tensor(list(data.targets))
        t = None if api == "new" else torch.tensor(list(data.targets_task_labels))
        with torch.no_grad():
            scores = sign * output_uncertainty(forward(strategy.model, x, t))
        for label in y.unique():
            mine = where[y[where] == label]
            rest = torch.tensor(sorted(set(range(N)) - set(where.tolist())))
            rest = rest[y[rest] == label]
            assert len(mine) == 3 and scores[mine].min() >= scores[rest].max()


def test_lambda_leaves_model_and_modes_as_found():
    strategy = agent()
    before = {k: v.clone() for k, v in strategy.model.state_dict().items()}
    strategy.model.train()
    buffer = MemorablePastBuffer(6, selection="lambda")
    buffer.post_adapt(strategy, toy_benchmark().train_stream[0])
    assert strategy.model.training
    assert all(
        torch.equal(before[k], v) for k, v in strategy.model.state_dict().items()
    )


def test_outputs_that_are_not_finite_are_reported_with_the_experience():
    strategy = agent()
    strategy.model.feature_extractor[4].bias.data.fill_(float("nan"))
    buffer = MemorablePastBuffer(6, selection="lambda")
    with pytest.raises(ValueError, match="logits of experience 0 are not finite"):
        buffer.post_adapt(strategy, toy_benchmark().train_stream[0])
    assert not buffer.positions


def test_resizing_shrinks_each_memory_in_both_roles():
    buffer, _, _ = filled(12)
    before = [set(p.tolist()) for p in buffer.positions]
    buffer.resize(None, 5)
    assert counts(buffer) == [(3, 2)] * 3 and len(buffer.buffer) == 15
    for k, where in enumerate(buffer.positions):
        assert set(where.tolist()) < before[k] and len(buffer.left_out(k)) == N - 5


def test_resizing_to_more_holds_for_experiences_to_come():
    buffer, strategy, stream = filled(4, n=2)
    buffer.resize(None, 9)
    buffer.post_adapt(strategy, stream[2])
    assert [len(p) for p in buffer.positions] == [4, 4, 9]


def test_resizing_to_nothing_forgets_all():
    buffer, _, _ = filled(4)
    buffer.resize(None, 0)
    assert len(buffer.buffer) == 0 and buffer.left_out(1) == list(range(N))


@pytest.mark.parametrize("api", APIS)
def test_it_is_a_storage_policy_of_avalanches_replay(api):
    buffer = MemorablePastBuffer(6)
    run(lambda **o: naive_with(ReplayPlugin(6, storage_policy=buffer), **o), api)
    assert [len(p) for p in buffer.positions] == [6, 6, 6] and len(buffer.buffer) == 18


def test_the_state_dict_brings_back_the_same_points_and_the_generator():
    buffer, _, stream = filled(7, n=2, generator=torch.Generator().manual_seed(3))
    other = MemorablePastBuffer(3, generator=torch.Generator())
    other.load_state_dict(buffer.state_dict(), stream)
    assert torch.equal(images(other.buffer), images(buffer.buffer))
    assert (other.max_size, other.data_sizes) == (7, [N, N])
    assert counts(other) == counts(buffer) and other.left_out(1) == buffer.left_out(1)
    for each in (buffer, other):
        each.post_adapt(None, stream[2])
    assert torch.equal(other.positions[2], buffer.positions[2])
    assert len(buffer.positions) == len(other.positions) == 3


def test_a_generator_on_one_side_only_is_refused_and_changes_nothing():
    with_one, _, stream = filled(7, generator=torch.Generator())
    without, _, _ = filled(6)
    for saved, ours in ((with_one, without), (without, with_one)):
        before = ours.state_dict()["positions"]
        with pytest.raises(ValueError, match="a generator; wanted the same"):
            ours.load_state_dict(saved.state_dict(), stream)
        assert ours.positions is before
    # as earlier files say it
    without.load_state_dict({**without.state_dict(), "generator": None}, stream)


def test_images_are_counted_as_they_are_kept():
    buffer, _, _ = filled(7)
    assert buffer.memory_bytes() == {"exemplars": 21 * 36 * 4}
    assert MemorablePastBuffer(7).memory_bytes() == {"exemplars": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": -1}, "size is -1; wanted a whole number, at least 0"),
        ({"size": 1.0}, "size is 1.0"),
        ({"replay_fraction": 1.1}, "replay_fraction is 1.1; wanted a number from 0"),
        ({"replay_fraction": -0.1}, "replay_fraction is -0.1"),
        ({"replay_fraction": float("nan")}, "replay_fraction is nan"),
        ({"selection": "herding"}, "'herding'; wanted one of 'random', 'lambda'"),
        ({"on_small": "skip"}, "'skip'; wanted one of 'raise', 'clip'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"generator": 3}, "generator is 3; wanted a Generator"),
    ],
)
def test_bad_arguments_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        MemorablePastBuffer(**{"size": 4, **options})


def test_a_negative_new_size_is_refused_and_changes_nothing():
    buffer, _, _ = filled(4)
    with pytest.raises(ValueError, match="new_size is -1"):
        buffer.resize(None, -1)
    assert buffer.max_size == 4 and len(buffer.buffer) == 12

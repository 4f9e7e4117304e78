from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from avalanche_ext.buffers import LatentBuffer


class Given(LatentBuffer):
    """Takes its draws from a list."""

    def __init__(self, *arguments, draws, **options):
        super().__init__(*arguments, **options)
        self.draws = list(draws)

    def _draw(self, n, k):
        drawn = torch.tensor(self.draws.pop(0))
        assert len(drawn) == k and int(drawn.max()) < n
        return drawn


def put(buffer, n, experience, *, label=None, scale=1.0, **options):
    """n latents, of which the buffer chooses; each holds its label and position."""
    labels = torch.arange(n) if label is None else torch.full((n,), label)
    latents = torch.stack([labels.float(), torch.arange(n).float()], 1) * scale
    rows = buffer.choose(n, experience)
    buffer.insert(latents[rows], labels[rows], experience=experience, **options)
    return latents, rows


@pytest.mark.golden("ar1star", "replay_policy.json")
def test_replacement_agrees_with_the_authors(golden):
    simulation = golden["simulation"]
    steps = simulation["steps"]
    keys = [k for s in steps for k in ("idxs_cur", "idxs_2_replace") if s.get(k)]
    draws = [s[k] for s in steps for k in ("idxs_cur", "idxs_2_replace") if s.get(k)]
    assert len(keys) == 2 * len(steps) - 1
    buffer = Given(simulation["rm_sz"], replacement="published", draws=draws)
    for step in steps:
        labels = torch.tensor(step["labels"])
        latents = torch.arange(step["n_acts"]).float()[:, None] + 1000 * step["i"]
        rows = buffer.choose(step["n_acts"], step["i"])
        assert len(rows) == step["h"]
        buffer.insert(latents[rows], labels[rows], experience=step["i"])
        assert buffer.labels.tolist() == step["mem_labels"]
        assert buffer.experiences.tolist() == step["mem_experience"]
        assert (buffer.latents(slice(None))[:, 0] // 1000).tolist() == step[
            "mem_experience"
        ]


@pytest.mark.parametrize("max_size", [0, 3, 20, 1000])
def test_size_is_the_smaller_of_places_and_latents_seen(max_size, rng):
    buffer, seen = LatentBuffer(max_size, generator=rng), 0
    for experience, n in enumerate([7, 9, 4, 30]):
        put(buffer, n, experience)
        seen += n
        assert len(buffer) == min(max_size, seen)


def test_h_places_change_when_full(rng):
    buffer = LatentBuffer(30, generator=rng)
    put(buffer, 50, 0)
    for experience in range(1, 8):
        before = buffer.experiences.clone()
        put(buffer, 12, experience)
        changed = buffer.experiences != before
        assert int(changed.sum()) == min(30 // (experience + 1), 12)
        assert (buffer.experiences[changed] == experience).all()


def test_experiences_have_equal_expected_shares():
    counts = torch.zeros(5)
    for seed in range(300):
        buffer = LatentBuffer(60, generator=torch.Generator().manual_seed(seed))
        for experience in range(5):
            put(buffer, 80, experience)
        counts += buffer.experiences.bincount(minlength=5)
    assert_close(counts / 300, torch.full((5,), 12.0), atol=0.5, rtol=0)


@pytest.mark.parametrize("replacement", ["fill", "published"])
def test_latents_keep_their_labels(replacement, rng):
    buffer = LatentBuffer(10, replacement=replacement, generator=rng)
    for experience in range(6):
        put(buffer, 20, experience)
        assert buffer.latents(slice(None))[:, 0].tolist() == buffer.labels.tolist()


def test_latents_chosen_are_distinct(rng):
    _, rows = put(LatentBuffer(10, generator=rng), 15, 0)
    assert len(set(rows.tolist())) == 10


def test_float32_returns_the_bits():
    buffer = LatentBuffer(10)
    latents = torch.randn(10, 3, 2)
    rows = buffer.choose(10, 0)
    buffer.insert(latents[rows], rows, experience=0)
    assert torch.equal(buffer.latents(buffer.labels.argsort()), latents)


@pytest.mark.parametrize("signed", [False, True])
def test_uint8_is_within_half_a_step(signed):
    latents = torch.randn(200, 6) * 3
    latents = latents if signed else latents.relu()
    buffer = LatentBuffer(200, dtype="uint8")
    buffer.insert(latents, torch.arange(200), experience=0)
    step = float(latents.max() - latents.min()) / 255
    back = buffer.latents(slice(None))
    assert float((back - latents).abs().max()) <= 0.51 * step + 0.5 * step * signed
    assert torch.equal(back[latents == 0], latents[latents == 0])  # zero is exact


def test_uint8_range_is_fixed_by_the_first_experience_and_saturates():
    buffer = LatentBuffer(4, dtype="uint8")
    buffer.observe(torch.tensor(0.0), torch.tensor(10.0))  # of one that is not kept
    buffer.insert(torch.tensor([[5.0], [0.0]]), torch.zeros(2).long(), experience=0)
    buffer.observe(torch.tensor(-9.0), torch.tensor(99.0))
    buffer.insert(torch.tensor([[-3.0], [70.0]]), torch.ones(2).long(), experience=1)
    back = buffer.latents(slice(None))[:, 0]
    assert_close(back, torch.tensor([5.0, 0.0, 0.0, 10.0]), atol=0.02, rtol=0)
    assert buffer.range.tolist() == [0.0, 10.0]


def test_uint8_of_zeros_is_zeros():
    buffer = LatentBuffer(2, dtype="uint8")
    buffer.insert(torch.zeros(2, 3), torch.zeros(2).long(), experience=0)
    assert not buffer.latents(slice(None)).any()


def test_float16_saturates():
    buffer = LatentBuffer(1, dtype="float16")
    buffer.insert(torch.tensor([[1e6, -1e6]]), torch.zeros(1).long(), experience=0)
    assert buffer.latents(slice(None)).tolist() == [[65504.0, -65504.0]]


@pytest.mark.parametrize("dtype, size", [("float32", 4), ("float16", 2), ("uint8", 1)])
def test_bytes_follow_the_dtype(dtype, size):
    buffer = LatentBuffer(10, dtype=dtype)
    assert buffer.nbytes == 0
    tasks = torch.zeros(10).long()
    buffer.insert(torch.rand(10, 5), tasks, experience=0, task_labels=tasks)
    assert buffer.nbytes == 10 * (5 * size + 3 * 8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_latents_that_are_not_finite_are_refused(dtype, bad):
    buffer = LatentBuffer(4, dtype=dtype)
    with pytest.raises(ValueError, match="NaN or inf"):
        buffer.insert(torch.tensor([[1.0, bad]]), torch.zeros(1).long(), experience=0)
    assert len(buffer) == 0


def test_latents_of_another_shape_are_refused():
    buffer, zero = LatentBuffer(4), torch.zeros(1).long()
    buffer.insert(torch.rand(1, 8, 4, 4), zero, experience=0)
    with pytest.raises(ValueError, match=r"shape \(8, 2, 2\); wanted \(8, 4, 4\)"):
        buffer.insert(torch.rand(1, 8, 2, 2), zero, experience=1)


def test_task_labels_that_appear_later_are_refused():
    buffer, zero = LatentBuffer(4), torch.zeros(1).long()
    buffer.insert(torch.rand(1, 2), zero, experience=0)
    with pytest.raises(ValueError, match="come with task labels, unlike"):
        buffer.insert(torch.rand(1, 2), zero, experience=1, task_labels=zero)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_state_goes_on_as_if_never_stopped(dtype):
    def buffer(seed):
        generator = torch.Generator().manual_seed(seed)
        return LatentBuffer(6, dtype=dtype, generator=generator)

    whole, other = buffer(0), buffer(5)
    tasks = torch.ones(6).long()
    put(whole, 9, 0, scale=0.5, task_labels=tasks)
    state = {
        k: v.clone() if isinstance(v, torch.Tensor) else v
        for k, v in whole.state_dict().items()
    }
    other.load_state_dict(state, [])
    for each in (whole, other):
        put(each, 9, 1, scale=2.0, task_labels=tasks[:3])
    for name, value in whole.state_dict().items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
        assert same(other.state_dict()[name], value), name


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_size": -1}, "max_size is -1"),
        ({"dtype": "int4"}, "dtype is 'int4'"),
        ({"replacement": "oldest"}, "replacement is 'oldest'"),
        ({"generator": 3}, "generator is 3"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LatentBuffer(**{"max_size": 5, **options})


def test_latents_of_an_empty_memory_are_refused():
    with pytest.raises(ValueError, match="empty"):
        LatentBuffer(5).latents(slice(None))


@pytest.mark.parametrize(
    "n, labels, experience, message",
    [
        (6, torch.zeros(6).long(), 0, "latents are 6; wanted at most 5"),
        (3, torch.zeros(2).long(), 0, r"labels are of shape \(2,\); wanted \(3,\)"),
        (3, torch.zeros(3), 0, "labels are torch.float32; wanted whole numbers"),
        (3, [0, 0, 0], 0, r"labels is \[0, 0, 0\]; wanted a Tensor"),
        (3, torch.zeros(3).long(), -1, "experience is -1"),
    ],
)
def test_what_cannot_be_put_in_is_refused(n, labels, experience, message):
    buffer = LatentBuffer(5)
    with pytest.raises(ValueError, match=message):
        buffer.insert(torch.rand(n, 2), labels, experience=experience)
    assert len(buffer) == 0


def test_memory_without_places_takes_nothing():
    with pytest.raises(ValueError, match="latents are 1; wanted at most 0"):
        LatentBuffer(0).insert(torch.rand(1, 2), torch.zeros(1).long(), experience=0)


def test_memory_of_the_published_rule_never_grows():
    buffer = LatentBuffer(5, replacement="published")
    put(buffer, 3, 0)
    with pytest.raises(ValueError, match="latents are 4; wanted at most 3"):
        buffer.insert(torch.rand(4, 2), torch.zeros(4).long(), experience=1)


def test_range_with_nan_is_refused_and_forgotten():
    buffer = LatentBuffer(2, dtype="uint8")
    with pytest.raises(ValueError, match="latents hold NaN or inf"):
        buffer.observe(torch.tensor(float("nan")), torch.tensor(1.0))
    put(buffer, 2, 0)
    assert buffer.range.isfinite().all()


def test_state_of_something_else_is_refused(rng):
    with_, without = LatentBuffer(5, generator=rng), LatentBuffer(5)
    with pytest.raises(ValueError, match="state is without stored, labels"):
        without.load_state_dict({}, [])
    with pytest.raises(ValueError, match="saved with a generator; wanted the same"):
        without.load_state_dict(with_.state_dict(), [])
    with pytest.raises(ValueError, match="saved without a generator; wanted the same"):
        with_.load_state_dict(without.state_dict(), [])

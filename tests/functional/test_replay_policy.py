from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_ext.functional.replay_policy import (
    filled_and_overwritten,
    minibatch_composition,
    replaced_latents,
)

sizes = {
    "n": st.integers(1, 3000),
    "m": st.integers(0, 3000),
    "b": st.integers(1, 200),
}


@pytest.mark.golden("ar1star", "replay_policy.json")
def test_composition_agrees_with_the_authors(golden):
    for case in golden["minibatch_composition"]:
        sizes = case["n_current"], case["rm_sz"], case["mb_size"]
        if "error" in case:
            with pytest.raises(ValueError, match="divide by zero"):
                minibatch_composition(*sizes, legacy=True)
            continue
        found = minibatch_composition(*sizes, legacy=True)
        wanted = case["iterations"], case["cur_per_mb"], case["inject"]
        assert found == wanted
        assert found.iterations * found.current == case["current_used"]
        assert found.iterations * found.replayed == case["replay_slots"]


@pytest.mark.golden("ar1star", "replay_policy.json")
def test_replaced_latents_agree_with_the_authors(golden):
    simulation = golden["simulation"]
    for step in simulation["steps"]:
        seen = simulation["rm_sz"], step["i"], step["n_acts"]
        assert replaced_latents(*seen) == step["h"]


def test_default_composition_is_the_published_one_on_nicv2():
    for n in (300, 600, 1500, 294):
        ours = minibatch_composition(n, 1500, 128)
        assert ours == minibatch_composition(n, 1500, 128, legacy=True)


@given(**sizes)
def test_composition_keeps_within_batch_and_data(n, m, b):
    iterations, current, replayed = minibatch_composition(n, m, b)
    assert iterations >= 1 and current >= 1 and replayed >= 0
    assert current + replayed <= b
    assert iterations * current <= n
    assert n - iterations * current < current  # no whole batch is dropped


@given(**sizes)
def test_composition_replays_exactly_if_there_is_a_memory(n, m, b):
    iterations, _, replayed = minibatch_composition(n, m, b)
    assert (replayed > 0) == (m > 0 and b > 1)
    if m >= iterations:
        assert iterations * replayed <= m  # no latent twice in an epoch


@pytest.mark.parametrize("n, m, b", [(1, 10, 4), (5, 1500, 128), (3, 0, 128)])
def test_composition_serves_what_the_published_rule_divides_by_zero_for(n, m, b):
    assert minibatch_composition(n, m, b).current >= 1
    with pytest.raises(ValueError, match="divide by zero"):
        minibatch_composition(n, m, b, legacy=True)


@given(
    max_size=st.integers(0, 200),
    seen=st.lists(st.integers(1, 100), min_size=1, max_size=12),
)
def test_memory_fills_up_to_what_was_seen(max_size, seen):
    stored = 0
    for experience, n_seen in enumerate(seen):
        fill, over = filled_and_overwritten(max_size, stored, experience, n_seen)
        assert over <= stored and fill + over <= n_seen
        assert fill + over >= replaced_latents(max_size, experience, n_seen)
        stored += fill
        assert stored == min(max_size, sum(seen[: experience + 1]))


def test_both_rules_are_the_same_while_the_memory_is_full():
    for experience in range(1, 20):
        ours = filled_and_overwritten(150, 150, experience, 60)
        assert ours == filled_and_overwritten(150, 150, experience, 60, "published")


def test_published_rule_refuses_to_replace_more_than_there_is():
    assert filled_and_overwritten(20, 0, 0, 5, "published") == (5, 0)
    with pytest.raises(ValueError, match="holds 5 latents, .* replace 10"):
        filled_and_overwritten(20, 5, 1, 12, "published")


@pytest.mark.parametrize(
    "arguments, message",
    [((0, 1, 1), "n_current"), ((1, -1, 1), "n_memory"), ((1, 1, 0), "batch_size")],
)
def test_sizes_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        minibatch_composition(*arguments)


def test_unknown_replacement_is_refused():
    with pytest.raises(ValueError, match="replacement is 'all'"):
        filled_and_overwritten(1, 1, 1, 1, "all")

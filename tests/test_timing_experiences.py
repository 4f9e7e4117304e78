"""What small experiences cost, and that it does not grow."""

from __future__ import annotations

import json

import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from pytest import MonkeyPatch
from timings.experiences import FEWEST, Experience, growth, measured
from timings.experiences_command import run
from timings.many_experiences import METHODS, Long
from timings.options import parse

from avalanche_ext.buffers import HerdingBuffer, MemorablePastBuffer
from avalanche_ext.loaders import values_of

SMALL = Long(n=FEWEST, n_images=24, side=4)

pytestmark = pytest.mark.filterwarnings("ignore")  # few samples, Avalanche's own


@pytest.mark.parametrize("name", METHODS)
def test_each_method_is_measured_on_all_its_experiences(name):
    found = measured(name, SMALL)
    assert len(found) == SMALL.n
    assert all(one.iterations > 0 and one.rest > 0 for one in found)
    assert all(one.evaluation > one.inference > 0 for one in found)


def test_what_is_followed_is_put_back():
    before = torch.nn.Module.__call__, HerdingBuffer.post_adapt
    measured("lucir", SMALL)
    assert (torch.nn.Module.__call__, HerdingBuffer.post_adapt) == before


def test_growth_leaves_the_first_experiences_out():
    assert growth([100.0, 50.0, *[2.0] * 10, *[7.0] * 30, *[6.0] * 10]) == 3


def test_file_and_curve_hold_every_experience(tmp_path):
    out, curve = tmp_path / "found.json", tmp_path / "curve.svg"
    run(["ar1_star", "naive"], SMALL, out, curve)
    found = json.loads(out.read_text())["milliseconds"]
    assert found.keys() == {"ar1_star", "naive"}
    for columns in found.values():
        assert columns.keys() == Experience.__dataclass_fields__.keys()
        assert {len(column) for column in columns.values()} == {SMALL.n}
    assert b"<svg" in curve.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiences", "all", "--n-experiences", "3"], "is 3, wanted at least 4"),
        (["--curve", "a.svg"], "wanted only with --experiences"),
        (["--experiences", "all", "--curve", "a.txt"], "wanted a file .svg or .png"),
    ],
)
def test_wrong_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse(arguments)
    assert message in capsys.readouterr().err


def operations(name: str) -> list[int]:
    """Data sets that Avalanche joins or cuts in each experience of a method."""
    strategy, benchmark = METHODS[name](Long(n=12, n_images=24, side=4))
    counts, made = [], AvalancheDataset.__init__
    with MonkeyPatch.context() as patch:

        def counted(self, *args, **kwargs):
            counts[-1] += 1
            made(self, *args, **kwargs)

        patch.setattr(AvalancheDataset, "__init__", counted)
        for experience in benchmark.train_stream:
            counts.append(0)
            strategy.train(experience, eval_streams=[])
    return counts


@pytest.mark.parametrize("name", ["lucir", "ewc_fr_replay", "mnemonics", "ar1_star"])
def test_as_many_data_sets_are_joined_and_cut_late_as_early(name):
    counts = operations(name)
    assert counts[-1] == counts[3]


@pytest.mark.parametrize("name", ["lucir", "ewc_fr_replay"])
def test_a_memory_lies_no_deeper_late_than_early(name):
    strategy, benchmark = METHODS[name](Long(n=12, n_images=24, side=4))
    depths = []
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
        depths.append(strategy.buffer.buffer._tree_depth())
    assert depths[-1] == depths[2]


@pytest.mark.parametrize("name", ["lucir", "ewc_fr_replay"])
def test_a_memory_made_step_by_step_is_the_one_made_at_once(name):
    strategy, benchmark = METHODS[name](Long(n=6, n_images=24, side=4))
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
    grown = strategy.buffer
    fresh = (
        HerdingBuffer(max_size=grown.max_size)
        if name == "lucir"
        else MemorablePastBuffer(grown.size)
    )
    fresh.load_state_dict(grown.state_dict(), benchmark.train_stream)
    assert values_of(fresh.buffer.targets) == values_of(grown.buffer.targets)
    pairs = zip(fresh.buffer, grown.buffer, strict=True)
    assert all(torch.equal(one[0], other[0]) for one, other in pairs)


def test_values_of_an_attribute_are_those_that_avalanche_gives():
    strategy, benchmark = METHODS["ewc_fr_replay"](Long(n=5, n_images=24, side=4))
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
    data = benchmark.train_stream[0].dataset.concat(strategy.buffer.buffer)
    data = data.subset(range(len(data) - 1, 0, -2))
    for attribute in data._data_attributes.values():
        assert values_of(attribute) == list(attribute)
    assert values_of([3, 1, 2]) == [3, 1, 2]

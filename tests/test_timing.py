"""What `scripts/timing.py` measures with: turns, watches, memory, options."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import timings
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Naive
from timings.many_experiences import Long
from timings.measure import Figure
from timings.memory import in_own_process, peak_bytes
from timings.method_memory import LOADED, Memory, figure, measured
from timings.methods.data import two_experiences
from timings.methods.turns import in_turns
from timings.options import TURNS, parse
from timings.watch import Watch, around_epochs
from torch import nn

CPU = torch.device("cpu")


def strategy(*plugins):
    """Two mini-batches an epoch, of an experience of `two_experiences(10)`."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    return Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        train_mb_size=5,
        plugins=list(plugins),
        evaluator=None,
    )


def test_turns_are_taken_epoch_by_epoch():
    done = []

    def loop(name, n):
        def run(turn):
            for epoch in range(n):
                done.append(f"{name} before {epoch}")
                with turn.epoch():
                    done.append(f"{name} {epoch}")

        return run

    seconds = in_turns([loop("a", 2), loop("b", 3)], CPU)
    epochs = [each for each in done if "before" not in each]
    assert epochs == ["a 0", "b 0", "a 1", "b 1", "b 2"]
    assert [len(each) for each in seconds] == [2, 3]


def test_nothing_of_another_side_happens_within_an_epoch():
    inside, met = [], []

    def loop(turn):
        for _ in range(20):
            met.append(len(inside))
            with turn.epoch():
                inside.append(loop)
                torch.ones(50).sum()
                met.append(len(inside) - 1)
                inside.pop()

    in_turns([loop, loop, loop], CPU)
    assert set(met) == {0}
    assert len(met) == 120


def test_an_error_of_a_side_is_raised_after_the_others_end():
    done = []

    def broken(turn):
        with turn.epoch():
            raise RuntimeError("broken side")

    def whole(turn):
        for epoch in range(3):
            with turn.epoch():
                done.append(epoch)

    with pytest.raises(RuntimeError, match="broken side"):
        in_turns([broken, whole], CPU)
    assert done == [0, 1, 2]


def test_sides_keep_the_number_of_threads():
    found = []

    def loop(turn):
        with turn.epoch():
            found.append(torch.get_num_threads())

    in_turns([loop, loop], CPU)
    assert found == [torch.get_num_threads()] * 2


def test_a_watched_call_within_another_counts_once(monkeypatch):
    ticks = count()
    watch = Watch()
    monkeypatch.setattr(watch, "now", lambda: float(next(ticks)))

    class Two:
        def inner(self):
            return 1

        def outer(self):
            return self.inner() + self.inner()

    two = Two()
    watch.follow(two, "inner", "outer")
    assert two.outer() == 2
    assert watch.seconds == 1  # two readings of the clock
    two.inner()
    assert watch.seconds == 2


def test_a_watch_follows_the_arithmetic_and_no_empty_callback(monkeypatch):
    class Adds(SupervisedPlugin):
        def before_backward(self, strategy, **kwargs):
            strategy.loss += 1

        def before_training_iteration(self, strategy, **kwargs):
            strategy.seen = True

    plugin = Adds()
    naive = strategy(plugin)
    watch = Watch()
    ticks = count()
    monkeypatch.setattr(watch, "now", lambda: float(next(ticks)))
    watch.follow_arithmetic(naive)
    assert [name for name in vars(plugin) if name in dir(SupervisedPlugin)] == [
        "before_backward"
    ]
    naive.train(two_experiences(10, size=8).train_stream[0])
    # two mini-batches of forward, criterion, penalty, backward, step
    assert watch.seconds == 2 * 5


def test_an_epoch_has_the_callbacks_of_all_plugins_within():
    order = []

    class Notes(SupervisedPlugin):
        def before_training_epoch(self, strategy, **kwargs):
            order.append("before")

        def after_training_epoch(self, strategy, **kwargs):
            order.append("after")

    @contextmanager
    def context():
        order.append("enter")
        yield
        order.append("leave")

    naive = strategy(Notes())
    around_epochs(naive, context)
    naive.train_epochs = 2
    naive.train(two_experiences(10, size=8).train_stream[0])
    assert order == ["enter", "before", "after", "leave"] * 2


def test_both_experiences_and_the_test_have_as_many_images():
    stream = two_experiences(20, size=8)
    assert [len(e.dataset) for e in stream.train_stream] == [20, 20]
    assert sum(len(e.dataset) for e in stream.test_stream) == 20
    old, new = (set(e.classes_in_this_experience) for e in stream.train_stream)
    assert (old, new) == ({0, 1, 2, 3, 4}, {5, 6, 7, 8, 9})


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak")
def test_peak_memory_holds_what_is_freed_again():
    n_bytes = 64 * 2**20
    # where no memory is left of what ran before
    ones = partial(torch.ones, n_bytes, dtype=torch.uint8)
    peak = in_own_process(peak_bytes, ones, CPU)
    assert 0.9 * n_bytes < peak < 2 * n_bytes


def test_images_a_method_remembers_are_rows_of_its_data():
    found = measured("lucir", LOADED)
    assert found.data == 2 * 60 * 3 * 8 * 8
    assert found.kept["exemplars"] == 20 * 3 * 8 * 8
    assert found.added == found.kept["frozen_copies"]


def test_growth_of_memory_leaves_out_what_is_kept_and_does_not_grow():
    small = Memory(100, {"latents": 40, "exemplars": 9}, 1000)
    large = Memory(300, {"latents": 70, "exemplars": 9}, 1000 + 30 + 2 * 200)
    assert figure("twice", small, large).value == 2
    assert not figure("twice", small, large).reached


@pytest.mark.parametrize(
    ("value", "at_least", "reached"),
    [(1.2, True, True), (1.2, False, False), (1.0, False, True), (0.9, True, False)],
)
def test_a_figure_says_whether_its_target_is_reached(value, at_least, reached):
    figure = Figure("speed", value, 1, at_least, "one over another")
    assert figure.reached is reached
    assert ("reached" in str(figure)) is reached
    assert ("MISSED" in str(figure)) is not reached


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--method", "lucir", "--device", "cuda:99"], "--device is cuda:99; wanted"),
        (["--method", "lucir", "--device", "tpu"], "--device is tpu; wanted one"),
        (["--method", "lucir", "--only", "loader"], "not allowed with argument"),
        (["--method", "lucyr"], "invalid choice: 'lucyr'"),
        (["--json", "x.json"], "--json is x.json, wanted only with --method"),
        (["--device", "cpu"], "--device is cpu, wanted only with --method"),
        (["--profile", "x"], "--profile is x, wanted only with --method"),
        (["--method", "all", "--json", "no/x.json"], "--json is no/x.json; wanted a"),
        (["--method", "all", "--profile", __file__], "wanted a folder that can"),
        (["--method", "all", "--profile", f"{__file__}/x"], "Not a directory"),
        (["--method", "all", "--json", "/proc/x.json"], "wanted a file that can be"),
        (["--memory", "all", "--json", "."], "--json is .; wanted a file that can be"),
        (["--experiences", "lucir", "--curve", "/no/x.svg"], "--curve is /no/x.svg; w"),
        (
            ["--experiences", "bdr", "--curve", "x.svg", "--json", "./x.svg"],
            "--json is x.svg, which --curve writes; wanted another file",
        ),
        (
            ["--method", "bdr", "--profile", ".", "--json", "bdr.json"],
            "--json is bdr.json, which --profile writes; wanted another file",
        ),
        (["--n-experiences", "9"], "--n-experiences is 9, wanted only with --exp"),
        (
            ["--memory", "all", "--n-experiences", "9"],
            "--n-experiences is 9, wanted only with --experiences",
        ),
        (["--experiences", "all", "--repeats", "7"], "--repeats is 7, wanted only"),
        (["--memory", "all", "--repeats", "7"], "--repeats is 7, wanted only with f"),
        (["--repeats", "0"], "--repeats is 0, wanted at least 1"),
    ],
)
def test_an_option_that_means_nothing_is_refused(words, told, capsys):
    with pytest.raises(SystemExit):
        parse(words)
    said = capsys.readouterr().err.splitlines()
    assert told in said[-1] and "error: " in said[-1]


def test_options_not_given_are_filled_only_where_they_mean_something(tmp_path):
    file = ["--json", str(tmp_path / "found.json")]
    parts, many = parse([]), parse(["--experiences", "all", *file])
    memory = parse(["--memory", "all", *file])
    assert (parts.repeats, many.repeats, memory.repeats) == (TURNS, None, None)
    assert (parts.n_experiences, many.n_experiences) == (None, Long.n)


def test_files_are_tried_and_left_as_they_are(tmp_path):
    out, curve = tmp_path / "found.json", tmp_path / "curve.svg"
    out.write_text("before")
    parse(["--experiences", "all", "--json", str(out), "--curve", str(curve)])
    assert out.read_text() == "before" and not curve.exists()


# a loop in another thread goes on, as those that take turns do
STOPPED = """
import runpy, signal, sys, threading, time, types
# what runs in the background may have been started with Ctrl-C ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
def parse(*_):
    threading.Thread(target=time.sleep, args=(1000,)).start()
    signal.raise_signal(signal.SIGINT)
sys.modules["timings.options"] = types.SimpleNamespace(parse=parse)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_ctrl_c_ends_at_once_with_one_line():
    script = Path(timings.__path__[0]).with_name("timing.py")
    command = [sys.executable, "-c", STOPPED, str(script)]
    paths = {**os.environ, "PYTHONPATH": str(script.parent)}
    done = subprocess.run(
        command, check=False, env=paths, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nstopped\n")


def test_ctrl_c_is_left_to_the_process_that_others_work_for():
    before = signal.getsignal(signal.SIGINT)
    found = in_own_process(signal.getsignal, signal.SIGINT)
    assert found is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before

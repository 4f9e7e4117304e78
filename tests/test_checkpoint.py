"""Stopping after any experience and going on in a new strategy changes no bit."""

from __future__ import annotations

import copy
import enum
import io
import random
from collections import Counter, deque
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import (
    accuracy_metrics,
    amca_metrics,
    bwt_metrics,
    confusion_matrix_metrics,
    forgetting_metrics,
    loss_metrics,
)
from avalanche.logging import TextLogger
from avalanche.models import (
    DynamicModule,
    IncrementalClassifier,
    MultiHeadClassifier,
    MultiTaskModule,
)
from avalanche.training.plugins import (
    EvaluationPlugin,
    EWCPlugin,
    LRSchedulerPlugin,
    LwFPlugin,
    ReplayPlugin,
)
from avalanche.training.storage_policy import (
    ClassBalancedBuffer,
    ExperienceBalancedBuffer,
    ParametricBuffer,
    ReservoirSamplingBuffer,
)
from avalanche.training.supervised import DER, Cumulative, Naive
from cases import N_CLASSES, N_EXPERIENCES, SIDE, Images, toy_benchmark
from contract import assert_equal, weights
from torch import nn, optim

from avalanche_ext._checkpoint.insertion import insertion_order
from avalanche_ext._checkpoint.kinds import StateError
from avalanche_ext._checkpoint.samples import StreamSamples
from avalanche_ext.checkpoint import Resumable, load_checkpoint, save_checkpoint


def body() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIDE * SIDE, 8), nn.BatchNorm1d(8), nn.Dropout(0.1)
    )


class Plain(nn.Module):
    """One head, of fixed size or growing."""

    def __init__(self, growing: bool = False) -> None:
        super().__init__()
        self.body = body()
        self.head = IncrementalClassifier(8) if growing else nn.Linear(8, N_CLASSES)

    def forward(self, x):
        return self.head(self.body(x))


class MultiHead(MultiTaskModule):
    """A head for each task label."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()
        self.head = MultiHeadClassifier(8)

    def forward(self, x, task_labels):
        return self.head(self.body(x), task_labels)


class Adapter(nn.Module):
    """A part of a class that only the user's code knows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return x + self.linear(x)


class Adapters(DynamicModule):
    """One more part for each experience trained."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.seen = nn.ModuleList(), []

    def adaptation(self, experience):
        if self.training:
            self.parts.append(Adapter())
            self.seen.append(sorted(experience.classes_in_this_experience))

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


def adapted() -> nn.Module:
    model = Plain()
    model.head = nn.Sequential(Adapters(), model.head)
    return model


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class FirstSamples(SupervisedPlugin):
    """Says itself what to save: it pulls towards the first samples' mean image."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.means, self.rng = [], [], torch.Generator().manual_seed(1)
        self.given: Any = None

    def after_training_exp(self, strategy, **kwargs):
        size = int(torch.randint(2, 9, (), generator=self.rng))
        self._take(strategy.experience, size)

    def before_backward(self, strategy, **kwargs):
        for mean in self.means:
            strategy.loss += strategy.model.body(mean).pow(2).sum()

    def _take(self, experience, size):
        self.sizes.append(size)
        images = [experience.dataset[i][0] for i in range(size)]
        self.means.append(torch.stack(images))

    def state_dict(self):
        return {"sizes": self.sizes, "rng": self.rng.get_state()}

    def load_state_dict(self, state, experiences):
        self.given = experiences
        for experience, size in zip(experiences, state["sizes"], strict=True):
            self._take(experience, size)
        self.rng.set_state(state["rng"])


class Everything(SupervisedPlugin):
    """Keeps one of every kind of thing that is saved without the plugin's help."""

    def __init__(self) -> None:
        super().__init__()
        self.numpy, self.python = np.random.default_rng(3), random.Random(4)
        self.torch, self.made_later = torch.Generator().manual_seed(5), None
        self.function, self.history, self.teachers = (lambda x: 2 * x), [], {}
        self.colour, self.shape = Colour.RED, torch.Size([2, 3])
        self.last, self.counts = deque(maxlen=2), Counter("aab")
        self.nested = {(1, "a"): [{None: {2, 3}}, frozenset([4])], 1.5: (b"x", 1j)}

    def after_training_exp(self, strategy, **kwargs):
        self.made_later = self.made_later or torch.Generator().manual_seed(6)
        draws = [torch.rand((), generator=g) for g in (self.torch, self.made_later)]
        draws += [self.numpy.random(), self.python.random(), np.float32(0.5)]
        self.history.append(tuple(draws))
        self.same_history, self.experience = self.history, strategy.experience
        self.array, self.colour = np.arange(3.0), Colour.BLUE
        self.last.append(len(self.history))
        self.teachers[len(self.history)] = copy.deepcopy(strategy.model.body).eval()

    def before_backward(self, strategy, **kwargs):
        if self.history:
            assert self.same_history is self.history
            assert self.nested[1, "a"][0][None] == {2, 3}
            assert self.colour is Colour.BLUE and self.shape.numel() == 6
            assert (self.last.maxlen, self.last[-1]) == (2, len(self.history))
            assert self.counts.most_common(1) == [("a", 2)]
            scale = self.function(float(sum(self.history[-1])) + self.array.sum())
            place = self.experience.logging().current_experience + 1
            strategy.loss += place * scale * strategy.model.head.weight.pow(2).mean()
        for teacher in self.teachers.values():
            ours = strategy.model.body(strategy.mb_x)
            strategy.loss += (ours - teacher(strategy.mb_x)).pow(2).mean()


def make(
    strategy: Any = Naive,
    *,
    model: Any = Plain,
    optimizer: Any = lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    plugins: Any = lambda model, optimizer: [],
    log: Any = None,
    more_metrics: Any = list,
    **options: Any,
) -> Any:
    """A strategy with nearly every metric."""
    net = model()
    by_name = optimizer(net.parameters())
    evaluator = EvaluationPlugin(
        accuracy_metrics(
            epoch=True, experience=True, stream=True, trained_experience=True
        ),
        loss_metrics(epoch=True, stream=True),
        forgetting_metrics(experience=True, stream=True),
        bwt_metrics(experience=True, stream=True),
        confusion_matrix_metrics(stream=True, save_image=False),
        more_metrics(),
        loggers=[TextLogger(log or io.StringIO())],
    )
    return strategy(
        model=net,
        optimizer=by_name,
        plugins=plugins(net, by_name),
        train_mb_size=16,
        train_epochs=2,
        eval_mb_size=64,
        evaluator=evaluator,
        **options,
    )


def replay(buffer: Any, **options: Any) -> Any:
    return lambda model, optimizer: [
        ReplayPlugin(13, storage_policy=buffer(13, **options)),
        EWCPlugin(0.1),
    ]


def scheduled(model: Any, optimizer: Any) -> list[Any]:
    """Decays over the whole stream, so that its position matters."""
    steps = optim.lr_scheduler.MultiStepLR(optimizer, [1, 3, 5], 0.5)
    return [LRSchedulerPlugin(steps, reset_scheduler=False, reset_lr=False)]


def grows() -> Plain:
    return Plain(growing=True)


SUBJECTS: dict[str, dict[str, Any]] = {
    "momentum": {},
    "metrics made at run time": {
        "more_metrics": lambda: amca_metrics(streams=("test",))
    },
    "growing head": {"model": grows},
    "own growing parts": {"model": adapted},
    "class-balanced replay, EWC": {"plugins": replay(ClassBalancedBuffer)},
    "experience-balanced replay, EWC": {"plugins": replay(ExperienceBalancedBuffer)},
    "reservoir replay, EWC": {"plugins": replay(ReservoirSamplingBuffer)},
    "grouped replay, EWC": {"plugins": replay(ParametricBuffer, groupby="class")},
    "LwF": {"plugins": lambda model, optimizer: [LwFPlugin()]},
    "scheduler": {"plugins": scheduled},
    "evaluation while training": {"model": grows, "eval_every": 1},
    "stored logits": {"strategy": DER, "mem_size": 13},
    "all data so far": {"strategy": Cumulative, "criterion": nn.CrossEntropyLoss()},
    "states of its own": {"plugins": lambda model, optimizer: [FirstSamples()]},
    "one of every kind": {"plugins": lambda model, optimizer: [Everything()]},
    "heads by task label": {
        "model": MultiHead,
        "optimizer": lambda p: optim.Adam(p, lr=0.01),
    },
    "heads by task label, LwF": {
        "model": MultiHead,
        "plugins": lambda model, optimizer: [LwFPlugin()],
    },
    "Adam": {"model": grows, "optimizer": lambda p: optim.Adam(p, foreach=True)},
    "AdamW": {"model": grows, "optimizer": lambda p: optim.AdamW(p, amsgrad=True)},
    "RMSprop": {"model": grows, "optimizer": lambda p: optim.RMSprop(p, momentum=0.5)},
    "Adagrad": {"model": grows, "optimizer": lambda p: optim.Adagrad(p, lr=0.05)},
}

NEW_API = ["momentum", "growing head", "reservoir replay, EWC", "states of its own"]
CASES = [
    *((name, "old_task_labels" if "label" in name else "old") for name in SUBJECTS),
    *((name, "new") for name in NEW_API),
]


def seed(number: int) -> None:
    """All global generators."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def go_on(strategy: Any, benchmark: Any, start: int, path: Any = None) -> Any:
    """The rest of the stream; each evaluation covers all classes."""
    results = []
    for n, experience in enumerate(benchmark.train_stream):
        if n >= start:
            strategy.train(experience)
            results.append(dict(strategy.eval(benchmark.test_stream)))
            if path:
                file = path / f"{n + 1}.pt"
                save_checkpoint(file, strategy, benchmark.train_stream, extra={"n": n})
    return results


def new(api: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """A benchmark and a strategy; the same at every call, in every process."""
    seed(0)
    return toy_benchmark(api), make(**options)


def curves(strategy: Any) -> dict[str, Any]:
    """All metrics of a run, flat."""
    return {
        f"{name} {i}": value
        for name, (steps, values) in strategy.evaluator.get_all_metrics().items()
        for i, value in enumerate([*steps, *values])
    }


@pytest.mark.parametrize(("name", "api"), CASES)
def test_resuming_after_any_experience_equals_never_stopping(name, api, tmp_path):
    options, log = SUBJECTS[name], io.StringIO()
    benchmark, wanted = new(api, {**options, "log": log})
    seed(1)
    results = go_on(wanted, benchmark, 0, tmp_path)
    draws = (random.random(), np.random.rand(), torch.rand(()))

    for stop in range(1, N_EXPERIENCES):
        rest = io.StringIO()
        benchmark, strategy = new(api, {**options, "log": rest})
        seed(999)
        path = tmp_path / f"{stop}.pt"
        checkpoint = load_checkpoint(path, strategy, benchmark.train_stream)
        assert (checkpoint.n_experiences, checkpoint.extra["n"]) == (stop, stop - 1)
        last = go_on(strategy, benchmark, stop)[-1]
        assert (random.random(), np.random.rand(), torch.rand(())) == draws
        assert_equal(weights(strategy), weights(wanted))
        assert_equal(last, results[-1])
        assert_equal(curves(strategy), curves(wanted))
        assert rest.getvalue() and log.getvalue().endswith(rest.getvalue())


def test_saving_changes_nothing(tmp_path):
    runs = []
    for path in (None, tmp_path):
        benchmark, strategy = new("old", SUBJECTS["class-balanced replay, EWC"])
        seed(1)
        runs.append((go_on(strategy, benchmark, 0, path), strategy))
    (results, strategy), (others, other) = runs
    assert_equal(weights(other), weights(strategy))
    assert_equal(others[-1], results[-1])


def test_checkpoint_opens_as_plain_data_and_holds_no_images(tmp_path):
    benchmark, strategy = new("old", SUBJECTS["class-balanced replay, EWC"])
    go_on(strategy, benchmark, 0, tmp_path)
    content = torch.load(tmp_path / "3.pt", weights_only=True)
    tensors = [node[1] for node in content["table"] if node[0] == "tensor"]
    assert tensors and not any(t.shape[-3:] == (1, SIDE, SIDE) for t in tensors)


def test_resumed_strategy_keeps_its_parameters_and_trains_them(tmp_path):
    benchmark, strategy = new("old", {"model": grows})
    go_on(strategy, benchmark, 0, tmp_path)
    benchmark, strategy = new("old", {"model": grows})
    parameters = list(strategy.model.parameters())
    load_checkpoint(tmp_path / "1.pt", strategy, benchmark.train_stream)
    pairs = zip(strategy.model.parameters(), parameters, strict=True)
    assert all(ours is theirs for ours, theirs in pairs)
    assert strategy.model.head.classifier.out_features == N_CLASSES
    strategy.train(benchmark.train_stream[1])
    optimized = [p for g in strategy.optimizer.param_groups for p in g["params"]]
    assert all(
        any(p is q for q in optimized) for p in strategy.model.parameters()
    ) and len(optimized) == len(list(strategy.model.parameters()))


class Teacher(SupervisedPlugin):
    """Begins with the model itself and goes on with copies."""

    def __init__(self, model) -> None:
        super().__init__()
        self.teacher = model
        self.classes, self.two_of_many = {56}, torch.zeros(10**6)[:2]

    def after_training_exp(self, strategy, **kwargs):
        self.teacher = copy.deepcopy(strategy.model)
        self.classes.update([66, 33, 7, 103, 70])


def with_teacher() -> dict[str, Any]:
    return {"plugins": lambda model, optimizer: [Teacher(model)]}


def test_objects_that_were_one_and_became_two_stay_two(tmp_path):
    benchmark, strategy = new("old", with_teacher())
    strategy.train(benchmark.train_stream[0])
    wanted = copy.deepcopy(strategy.plugins[0].teacher.state_dict())
    nn.init.zeros_(strategy.model.head.weight)
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    benchmark, strategy = new("old", with_teacher())
    load_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    assert not strategy.model.head.weight.any()
    assert_equal(dict(strategy.plugins[0].teacher.state_dict()), dict(wanted))


def test_order_of_a_set_and_size_of_a_slice_are_kept(tmp_path):
    benchmark, strategy = new("old", with_teacher())
    strategy.train(benchmark.train_stream[0])
    wanted = list(strategy.plugins[0].classes)
    assert list(set(wanted)) != wanted  # else the test shows nothing
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    assert (tmp_path / "c.pt").stat().st_size < 100_000
    benchmark, strategy = new("old", with_teacher())
    load_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    assert list(strategy.plugins[0].classes) == wanted


def test_frozen_parts_and_modes_are_as_they_were(tmp_path):
    benchmark, strategy = new("old", {})
    strategy.train(benchmark.train_stream[0])
    strategy.model.body[1].requires_grad_(False)
    strategy.model.body[2].eval()
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    benchmark, strategy = new("old", {})
    load_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    frozen = [n for n, p in strategy.model.named_parameters() if not p.requires_grad]
    resting = [n for n, m in strategy.model.named_modules() if not m.training]
    assert frozen == ["body.1.weight", "body.1.bias"] and resting == ["body.2"]


def test_resumable_plugin_is_given_the_experiences_trained_so_far(tmp_path):
    options = SUBJECTS["states of its own"]
    benchmark, strategy = new("old", options)
    go_on(strategy, benchmark, 0, tmp_path)
    assert isinstance(strategy.plugins[0], Resumable)
    benchmark, strategy = new("old", options)
    load_checkpoint(tmp_path / "2.pt", strategy, benchmark.train_stream)
    given = strategy.plugins[0].given
    assert [e.current_experience for e in given] == [0, 1]


class Extra(Plain):
    """Takes care itself of what is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.unsavable = 0, iter(())

    def forward(self, x):
        self.calls += 1
        return super().forward(x)

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


def test_extra_state_of_a_module_is_used(tmp_path):
    benchmark, strategy = new("old", {"model": Extra})
    go_on(strategy, benchmark, 0, tmp_path)
    calls = strategy.model.calls
    benchmark, strategy = new("old", {"model": Extra})
    load_checkpoint(tmp_path / "3.pt", strategy, benchmark.train_stream)
    assert strategy.model.calls == calls > 0


def test_figures_are_left_out_and_numbers_go_on(tmp_path):
    def with_figures():
        evaluator = EvaluationPlugin(
            accuracy_metrics(stream=True),
            confusion_matrix_metrics(stream=True, save_image=True),
            loggers=[TextLogger(io.StringIO())],
        )
        net = Plain()
        return Naive(
            model=net,
            optimizer=optim.SGD(net.parameters(), lr=0.1),
            train_mb_size=16,
            eval_mb_size=64,
            evaluator=evaluator,
        )

    benchmark, strategy = toy_benchmark(), with_figures()
    go_on(strategy, benchmark, 0, tmp_path)
    accuracies = strategy.evaluator.get_all_metrics()
    strategy = with_figures()
    load_checkpoint(tmp_path / "2.pt", strategy, benchmark.train_stream)
    go_on(strategy, benchmark, 2)
    name = "Top1_Acc_Stream/eval_phase/test_stream/Task000"
    assert strategy.evaluator.get_all_metrics()[name] == accuracies[name]


@pytest.mark.parametrize(
    "history", [[[523, 17], [999, 491, 8]], [[8, 0], [72, 40, 104]]]
)
def test_sets_come_out_in_their_old_order(history):
    numbers: set[int] = set()
    for some in history:
        numbers.update(some)
    anew = set()
    for number in insertion_order(numbers):
        anew.add(number)
    assert list(anew) == list(numbers)


def test_order_of_a_set_is_found_where_copying_it_fails():
    rng, found = random.Random(0), 0
    for _ in range(100):
        numbers: set[int] = set()
        for number in rng.sample(range(1000), 12):
            numbers.add(number)
        in_order = list(numbers)
        found += list(set(in_order)) != in_order
        assert list(set(insertion_order(numbers))) == in_order
    assert found > 10  # else the test shows nothing


class Permutation:
    def __init__(self, rng: torch.Generator) -> None:
        self.order = torch.randperm(SIDE * SIDE, generator=rng)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten()[self.order].view(x.shape)


def test_references_tell_experiences_of_the_same_images_apart(rng):
    data = as_classification_dataset(Images(4, seed=1))
    experiences = []
    for _ in range(3):
        groups = {"train": (Permutation(rng), None), "eval": (None, None)}
        permuted = as_classification_dataset(Images(4, seed=1), transform_groups=groups)
        permuted._flat_data._datasets = data._flat_data._datasets
        experience = type("Experience", (), {"dataset": permuted})()
        experiences.append(experience)
    samples = StreamSamples(experiences)
    parts = [e.dataset.subset([7, 3]) for e in experiences]
    mixed = parts[2].concat(parts[0]).concat(parts[1]).subset([5, 0, 2, 1])
    reference = samples.refer(mixed.eval())
    assert reference["rows"].tolist() == [[1, 3], [2, 7], [0, 7], [2, 3]]
    again = samples.take(reference)
    assert list(again.targets) == list(mixed.targets)
    for ours, wanted in zip(again.train(), mixed, strict=True):
        assert torch.equal(ours[0], wanted[0])
    for ours, wanted in zip(again, mixed.eval(), strict=True):
        assert torch.equal(ours[0], wanted[0])


def test_references_refuse_data_of_elsewhere():
    here, elsewhere = (as_classification_dataset(Images(4, seed=s)) for s in (1, 2))
    samples = StreamSamples([type("Experience", (), {"dataset": here})()])
    with pytest.raises(StateError, match="sample 0 is not in the stream"):
        samples.refer(elsewhere.subset([3]))
    changed = here.subset([3]).replace_current_transform_group(lambda x: -x)
    with pytest.raises(StateError, match="sample 0 is not in the stream"):
        samples.refer(changed)

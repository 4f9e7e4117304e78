"""BDR as a plugin; Q1 to Q14 are the rows of the table of the published code's quirks.

Those of the update alone (Q1 to Q3, Q5, Q9) are in ``functional/test_logit_adjustment``,
Q12 in ``test_processes``, Q13 in ``test_margin_ranking``; Q14 (a schedule of an earlier
upload, gone in the release) is not here at all.
"""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.losses import ICaRLLossPlugin, MaskedCrossEntropy
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.supervised import Naive
from cases import APIS, build, naive_with, toy_benchmark, toy_model
from contract import assert_equal, run, weights
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from torch.testing import assert_close

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.functional.class_statistics import class_statistics
from avalanche_ext.models import CosineClassifier, FeatureClassifier
from avalanche_ext.plugins import BDRPlugin, ExemplarReplayPlugin, LUCIRPlugin

MASKED = pytest.approx(-27.63, abs=0.01)


class Watcher(SupervisedPlugin):
    """Notes, by experience, losses, offsets and what plugins see."""

    def __init__(self, plugin):
        super().__init__()
        self.plugin, self.losses, self.plain, self.offsets = plugin, {}, {}, {}

    def before_backward(self, strategy, **kwargs):
        i = strategy.clock.train_exp_counter
        logits, targets = strategy.mb_output, strategy.mb_y
        pi = self.plugin.offsets(logits)
        adjusted = cross_entropy(logits + pi, targets).item()
        assert strategy.loss.item() == pytest.approx(adjusted, rel=1e-6)
        assert strategy.loss.dtype == torch.float32
        self.losses.setdefault(i, []).append(adjusted)
        self.plain.setdefault(i, []).append(cross_entropy(logits, targets).item())
        self.offsets.setdefault(i, []).append(pi)


def replaying(plugin, *others, cosine=True, **options):
    memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5))
    options.setdefault("model", toy_model(cosine))
    return naive_with(memory, plugin, *others, **options)


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("api", APIS)
def test_loss_is_that_of_the_adjusted_logits_after_the_first_experience(api, cosine):
    plugin = BDRPlugin()
    watcher = Watcher(plugin)
    run(lambda **o: replaying(plugin, watcher, cosine=cosine, **o), api)
    assert watcher.losses[0] == watcher.plain[0]
    for i in (1, 2):
        assert all(a != b for a, b in zip(watcher.losses[i], watcher.plain[i]))
        old, new = (
            watcher.offsets[i][0][: 2 * i],
            watcher.offsets[i][0][2 * i : 2 * i + 2],
        )
        assert old.max() < new.min()  # 5 exemplars against 24 images


def test_one_experience_equals_naive_bit_for_bit():
    def first(*plugins):
        torch.manual_seed(0)
        benchmark, strategy = toy_benchmark(), naive_with(*plugins)
        torch.manual_seed(1)
        strategy.train(benchmark.train_stream[0])
        return weights(strategy)

    assert_equal(first(BDRPlugin()), first())


def test_metrics_plugins_and_predictions_never_see_the_offsets():
    seen = []

    class Outputs(SupervisedPlugin):
        def after_forward(self, strategy, **kwargs):
            seen.append((strategy.mb_output, strategy.mb_output.clone()))

        def after_training_iteration(self, strategy, **kwargs):
            assert strategy.mb_output is seen[-1][0]
            assert torch.equal(*seen[-1])
            assert isinstance(strategy._criterion, nn.CrossEntropyLoss)

        def before_eval_iteration(self, strategy, **kwargs):
            assert isinstance(strategy._criterion, nn.CrossEntropyLoss)

        def after_eval_iteration(self, strategy, **kwargs):
            wanted = cross_entropy(strategy.mb_output, strategy.mb_y)
            assert_close(strategy.loss, wanted)

    # also with evaluation inside training, and whichever stands first
    for order in (1, -1):
        plugins = [BDRPlugin(), Outputs()][::order]
        run(lambda p=plugins, **o: replaying(*p, eval_every=1, **o))
    assert len(seen) > 20


@pytest.mark.parametrize("cosine", [True, False])
def test_two_exemplars_a_class_are_worth_more_with_bdr(cosine):
    def accuracy(*plugins):
        _, metrics = run(
            lambda **o: naive_with(
                ExemplarReplayPlugin(HerdingBuffer(per_class=2)),
                *plugins,
                model=toy_model(cosine),
                train_epochs=4,
                **o,
            )
        )
        return metrics[-1]["Top1_Acc_Stream/eval_phase/test_stream/Task000"]

    assert accuracy(BDRPlugin()) > accuracy() + 0.1


# Q4: absent classes, odd labels


def odd_labels():
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset
    from torch.utils.data import TensorDataset

    sets, rng = [], torch.Generator().manual_seed(0)
    for labels in ([17, 3], [42, 8], [3, 5]):  # 3 comes again, as an old class
        y = torch.tensor(labels).repeat(12)
        data = TensorDataset(
            torch.randn(24, 1, 6, 6, generator=rng) + y[:, None, None, None] / 20, y
        )
        data.targets = y.tolist()
        sets.append(as_classification_dataset(data))
    return benchmark_from_datasets(train=sets).train_stream


@pytest.mark.parametrize("width", [None, 50])
def test_labels_need_not_be_numbered_from_zero(width):
    model = toy_model()
    if width:
        model = FeatureClassifier(model.feature_extractor, nn.Linear(8, width))
    plugin = BDRPlugin()
    watcher = Watcher(plugin)
    strategy = replaying(plugin, watcher, model=model)
    for experience in odd_labels():
        strategy.train(experience)
    pi = watcher.offsets[2][0]
    present = {3, 5, 8, 17, 42}
    assert {i for i, value in enumerate(pi.tolist()) if value > -20} == present
    if not width:
        assert plugin.classes.tolist() == [3, 17, 8, 42, 5]


@pytest.mark.parametrize(("absent", "offset"), [("mask", MASKED), ("ignore", 0)])
def test_classes_without_data_are_masked_or_ignored_with_one_warning(absent, offset):
    plugin = BDRPlugin(absent=absent)
    watcher = Watcher(plugin)
    strategy = naive_with(plugin, watcher)
    fate = "masked" if absent == "mask" else "not adjusted"
    with pytest.warns(UserWarning, match=rf"lack classes \[0, 1\].*{fate}") as record:
        strategy.train(toy_benchmark().train_stream)
    assert sum("lack classes" in str(w.message) for w in record) == 1
    assert watcher.offsets[1][0][0].item() == offset
    assert watcher.offsets[2][0][3].item() == offset
    assert all(np.isfinite(watcher.losses[2]))


def test_future_columns_of_a_fixed_classifier_cause_no_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the training data lack")
        run(lambda **o: replaying(BDRPlugin(), cosine=False, **o))


# Q5: no spread


def test_one_exemplar_a_class_is_neutral_or_refused():
    def make(**options):
        memory = ExemplarReplayPlugin(HerdingBuffer(per_class=1))
        return naive_with(memory, BDRPlugin(**options))

    strategy, _ = run(make)
    assert all(p.isfinite().all() for p in strategy.model.parameters())
    with pytest.raises(ValueError, match=r"classes \[0, 1\] have no spread"):
        run(lambda: make(zero_dispersion="raise"))


# Q6: where the statistics come from, and what the pass over the data leaves behind


def counts_of(plugin, *before, after=(), **options):
    strategy = naive_with(*before, plugin, *after, **options)
    torch.manual_seed(1)
    strategy.train(toy_benchmark().train_stream[:2])
    return plugin.adjustment


def test_counts_are_those_of_data_and_exemplars():
    memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5))
    wanted = torch.tensor([5, 5, 24, 24], dtype=torch.double)
    for source in ("auto", "targets", "loader"):
        state = counts_of(BDRPlugin(psi_source=source), memory)
        assert torch.equal(state.prior, wanted / 58)
        memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5))


@pytest.mark.parametrize("first", [True, False])
def test_avalanche_s_replay_is_counted_as_delivered_whatever_the_order(first):
    replay, plugin = ReplayPlugin(mem_size=10), BDRPlugin()
    before, after = ((replay,), ()) if first else ((), (replay,))
    state = counts_of(plugin, *before, after=after)
    # its loader draws the 10 exemplars again and again
    assert state.counts[:2].sum() > 20 and state.counts[2:].sum() == 48
    assert_close(state.prior, state.counts / state.counts.sum())
    only = BDRPlugin(psi_source="targets")
    with pytest.warns(UserWarning, match=r"lack classes \[0, 1\]"):
        state = counts_of(only, ReplayPlugin(mem_size=10))
    assert state.prior[:2].tolist() == [0, 0]


def test_dropped_last_batches_count_as_well():
    memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5))
    plugin = BDRPlugin()
    strategy = naive_with(memory, plugin)
    strategy.train(toy_benchmark().train_stream[:2], drop_last=True)
    wanted = torch.tensor([5, 5, 24, 24], dtype=torch.double)
    assert torch.equal(plugin.adjustment.prior, wanted / 58)


def test_the_first_experience_is_not_passed_over():
    passes = []

    class Extractor(nn.Flatten):
        def forward(self, x):
            passes.append(self.training)
            return super().forward(x)

    model = FeatureClassifier(Extractor(), CosineClassifier(36))
    strategy = replaying(BDRPlugin(), model=model, train_epochs=1)
    strategy.plugins = [p for p in strategy.plugins if not hasattr(p, "buffer")]
    stream = toy_benchmark().train_stream
    strategy.train(stream[0])
    assert passes == [True] * 3
    passes.clear()
    with pytest.warns(UserWarning, match="lack classes"):
        strategy.train(stream[1])
    assert passes == [False] * 3 + [True] * 3


@pytest.mark.parametrize("own_generator", [True, False])
def test_the_pass_leaves_generators_modes_and_buffers_alone(own_generator):
    found = []

    class Probe(SupervisedPlugin):
        def __init__(self, where):
            super().__init__()
            self.where = where

        def before_training_epoch(self, strategy, **kwargs):
            norm = strategy.model.feature_extractor[2]
            found.append(
                {
                    "torch": torch.get_rng_state(),
                    "numpy": torch.tensor(np.random.get_state()[1].astype(np.int64)),
                    "python": random.getstate(),
                    "own": generator.get_state() if generator else None,
                    "mean": norm.running_mean.clone(),
                    "modes": [m.training for m in strategy.model.modules()],
                }
            )

    generator = torch.Generator().manual_seed(5) if own_generator else None
    memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5), generator=generator)
    # with several task labels the plugin makes the loader, with the generator
    strategy = naive_with(
        memory, Probe("before"), BDRPlugin(), Probe("after"), train_epochs=1
    )
    strategy.model.feature_extractor[2].eval()  # one module is frozen by the user
    strategy.train(toy_benchmark("new_task_labels").train_stream)
    for before, after in zip(found[::2], found[1::2]):
        for key, value in before.items():
            same = (
                torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
            )
            assert same(after[key], value), key


def test_start_is_that_of_a_pass_in_evaluation_mode():
    plugin = BDRPlugin(momentum=1.0)
    starts = []

    class Grab(SupervisedPlugin):
        def before_training_epoch(self, strategy, **kwargs):
            if plugin.adjustment is None or strategy.clock.train_exp_epochs:
                return
            data = strategy.adapted_dataset
            x = torch.stack([data[i][0] for i in range(len(data))])
            y = torch.tensor(list(data.targets))
            strategy.model.eval()
            with torch.no_grad():
                strategy.model(x)
            strategy.model.train()
            wanted = class_statistics(strategy.model.features, y, len(plugin.classes))
            for ours, theirs in zip(plugin.adjustment, wanted):
                assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
            starts.append(plugin.adjustment.offsets)

    run(lambda **o: replaying(plugin, Grab(), **o), evaluations=0)
    assert len(starts) == 2
    # with momentum 1 the offsets never leave their start
    assert torch.equal(plugin.adjustment.offsets, starts[-1])


# Q7 to Q11


def test_statistics_are_float64_and_the_loss_float32():
    plugin = BDRPlugin()
    run(lambda **o: replaying(plugin, Watcher(plugin), **o), evaluations=0)
    assert {t.dtype for t in plugin.adjustment} == {torch.double, torch.bool}


def test_updates_use_features_of_train_mode_unless_normalised():
    norms = {}
    for flag in (False, True):
        plugin = BDRPlugin(normalize_features=flag)
        run(lambda p=plugin, **o: replaying(p, **o), evaluations=0)
        norms[flag] = plugin.adjustment.means.norm(dim=1)
        assert (plugin.adjustment.dispersions <= 1).all() or not flag
    assert (norms[True] <= 1).all() and (norms[False] > 1).any()


def test_an_extractor_that_returns_its_input_finds_it_unchanged():
    class AsIs(nn.Module):
        def forward(self, x):
            return x.flatten(1)

    inputs = []

    class Inputs(SupervisedPlugin):
        def before_forward(self, strategy, **kwargs):
            inputs.append((strategy.mb_x, strategy.mb_x.clone()))

        def after_training_iteration(self, strategy, **kwargs):
            assert torch.equal(*inputs[-1])

    model = FeatureClassifier(AsIs(), CosineClassifier(36))
    run(lambda **o: replaying(BDRPlugin(), Inputs(), model=model, **o))
    assert inputs


# hosts


@pytest.mark.parametrize(
    ("criterion", "seen"),
    [
        (nn.BCEWithLogitsLoss(), "BCEWithLogitsLoss"),
        (ICaRLLossPlugin(), "ICaRLLossPlugin"),
        (nn.MultiMarginLoss(), "MultiMarginLoss"),
        (nn.CrossEntropyLoss(reduction="sum"), "reduction='sum'"),
        (lambda logits, targets: logits.sum(), "<lambda>"),
    ],
)
def test_other_losses_are_refused_with_the_reason(criterion, seen):
    strategy = replaying(BDRPlugin(), criterion=criterion)
    before = weights(strategy)
    with pytest.raises(ValueError, match=f"criterion is .*{seen}.*sigmoid"):
        strategy.train(toy_benchmark().train_stream)
    assert_equal(weights(strategy), before)


@pytest.mark.parametrize(
    "criterion",
    [
        cross_entropy,
        nn.CrossEntropyLoss(label_smoothing=0.1),
        MaskedCrossEntropy(mask="all"),
    ],
)
def test_forms_of_softmax_cross_entropy_are_taken(criterion):
    strategy = replaying(BDRPlugin(), cosine=False, criterion=criterion)
    strategy.train(toy_benchmark().train_stream)
    assert strategy._criterion is criterion


def test_a_strategy_that_never_calls_its_criterion_is_refused_at_once():
    class Own(Naive):
        def criterion(self):
            return cross_entropy(self.mb_output, self.mb_y)

    strategy = build(Own, plugins=[BDRPlugin()])
    with pytest.raises(ValueError, match="Own computed its loss without calling"):
        strategy.train(toy_benchmark().train_stream[0])
    assert isinstance(strategy._criterion, nn.CrossEntropyLoss)


def test_a_failing_criterion_is_put_back():
    class Failing(nn.CrossEntropyLoss):
        def forward(self, logits, targets):
            raise RuntimeError("mine")

    strategy = build(Naive, plugins=[BDRPlugin()], criterion=Failing())
    with pytest.raises(RuntimeError, match="mine"):
        strategy.train(toy_benchmark().train_stream[0])
    assert isinstance(strategy._criterion, Failing)


def test_a_model_without_features_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 6))
    with pytest.raises(ValueError, match="does not expose its features"):
        run(lambda **o: naive_with(BDRPlugin(), model=model, **o))


def test_bdr_and_lucir_plugins_compose_in_a_strategy_of_one_s_own():
    strategy, metrics = run(lambda **o: replaying(BDRPlugin(), LUCIRPlugin(), **o))
    assert all(p.isfinite().all() for p in strategy.model.parameters())
    assert metrics[-1]


# failures


@pytest.mark.parametrize("when", ["start", "batch"])
def test_features_that_are_not_finite_are_reported_by_class(when):
    plugin = BDRPlugin()

    class Break(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            if when == "start" and strategy.clock.train_exp_counter:
                strategy.model.feature_extractor[4].bias.data.fill_(float("nan"))

        def before_forward(self, strategy, **kwargs):
            if when == "batch" and strategy.clock.train_exp_counter:
                strategy.model.feature_extractor[4].bias.data.fill_(float("inf"))

    strategy = replaying(plugin, Break())
    with pytest.raises(ValueError, match=r"features of classes \[.*\] hold nan or inf"):
        strategy.train(toy_benchmark().train_stream)
    if when == "batch":
        assert all(t.isfinite().all() for t in plugin.adjustment)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"m1": 1.1}, "m1 is 1.1; wanted a number from 0 to 1"),
        ({"m2": -0.1}, "m2 is -0.1"),
        ({"momentum": float("nan")}, "momentum is nan"),
        ({"momentum": "0.9"}, "momentum is '0.9'"),
        ({"tro": -1}, "tro is -1; wanted a number, at least 0"),
        ({"dispersion_weights": "all"}, "'all'; wanted one of 'per_class'"),
        ({"absent": None}, "absent is None; wanted one of 'mask'"),
        ({"zero_dispersion": "x"}, "'x'; wanted one of 'neutral', 'raise'"),
        ({"psi_source": "data"}, "'data'; wanted one of 'auto'"),
        ({"normalize_features": 1}, "normalize_features is 1; wanted one of True"),
    ],
)
def test_bad_arguments_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        BDRPlugin(**options)


# resuming


def test_a_checkpoint_holds_the_statistics_exactly(tmp_path):
    benchmark, plugin = toy_benchmark(), BDRPlugin()
    strategy = replaying(plugin)
    strategy.train(benchmark.train_stream[:2])
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    other = BDRPlugin()
    load_checkpoint(tmp_path / "c.pt", replaying(other), toy_benchmark().train_stream)
    assert plugin.adjustment is not None
    for name, ours, wanted in zip(
        plugin.adjustment._fields, other.adjustment, plugin.adjustment
    ):
        assert torch.equal(ours, wanted), name
    assert torch.equal(other.classes, plugin.classes) and other.met == {0, 1, 2, 3}
    assert plugin.memory_bytes() == {"class_statistics": 4 * (8 * 8 + 4 * 8 + 1)}


def test_offsets_written_by_hand_match(rng):
    """The whole of an experience, from the logits and features the host shows."""
    plugin = BDRPlugin(m1=0.7, m2=0.3, momentum=0.9, tro=1.5)
    history = []

    class Replay(SupervisedPlugin):
        def after_forward(self, strategy, **kwargs):
            if plugin.adjustment is not None:
                history.append(
                    (strategy.model.features.detach().double(), strategy.mb_y)
                )

        def before_training_epoch(self, strategy, **kwargs):
            if plugin.adjustment is not None and not strategy.clock.train_exp_epochs:
                history.clear()
                starts.append(plugin.adjustment)

    starts = []
    run(lambda **o: replaying(plugin, Replay(), **o), evaluations=0)
    n, mu, disp, psi, pi = (t.clone() for t in starts[-1][:5])
    for features, targets in history:
        present = targets.unique()
        weight = {c.item(): (targets == c).sum() for c in present}
        for c, b in weight.items():
            w = b / (n[c] + b)
            mu[c] += w * (features[targets == c].mean(0) - mu[c])
            if b > 1:
                spread = (features[targets == c] - mu[c]).square().sum(1).mean()
                disp[c] += w * (spread - disp[c])
        omega = (1 / disp) / (1 / disp).sum()
        hat = ((0.3 * psi + 0.7 * omega) ** 1.5 + 1e-12).log()
        pi = 0.9 * pi + 0.1 * hat
    assert_close(plugin.adjustment.offsets, pi, rtol=0, atol=1e-10)
    assert normalize(mu).shape == plugin.adjustment.means.shape

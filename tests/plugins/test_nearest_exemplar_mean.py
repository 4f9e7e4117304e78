"""Classification by the nearest mean of exemplars, in evaluation."""

from __future__ import annotations

import pytest
import torch
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import (
    ClassBalancedBuffer,
    ReservoirSamplingBuffer,
)
from cases import (
    APIS,
    N_CLASSES,
    SIDE,
    Images,
    build,
    naive_with,
    task_model,
    toy_benchmark,
    toy_model,
)
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.models import FeatureClassifier
from avalanche_ext.models.cosine_classifier import MASK_VALUE
from avalanche_ext.plugins import ExemplarReplayPlugin, NearestExemplarMeanPlugin
from avalanche_ext.strategies import LUCIR

BUFFERS = {
    "herding": lambda: HerdingBuffer(per_class=4),
    "herding_in_all": lambda: HerdingBuffer(max_size=15),
    "class_balanced": lambda: ClassBalancedBuffer(max_size=15),
    "reservoir": lambda: ReservoirSamplingBuffer(max_size=15),
}


class Watch(SupervisedPlugin):
    """What every mini-batch of an evaluation was given."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def after_eval_iteration(self, strategy, **kwargs):
        scores = strategy.nearest_mean
        self.batches.append((strategy.mb_x, strategy.mb_y, scores, strategy.mb_output))


def unit(v):
    return v / v.norm()


def slow_scores(model, buffer, x, turn):
    """Exemplar by exemplar and sample by sample; None for a class without exemplars."""
    model.eval()
    views: dict[int, list] = {}
    with torch.no_grad():

        def feature(image):
            return unit(model.feature_extractor(image[None])[0])

        for image, label, *_ in buffer.buffer.eval():
            seen = [image] if turn is None else [image, image.flip(turn)]
            views.setdefault(int(label), []).extend(map(feature, seen))
        means = {k: unit(sum(v) / len(v)) for k, v in views.items()}
        return [{k: float(feature(i) @ m) for k, m in means.items()} for i in x]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("name", BUFFERS)
def test_scores_agree_with_a_slow_restatement(name, api):
    buffer, watch = BUFFERS[name](), Watch()
    nearest = NearestExemplarMeanPlugin(buffer)
    strategy = naive_with(ExemplarReplayPlugin(buffer), nearest, watch)
    benchmark = toy_benchmark(api)
    strategy.train(benchmark.train_stream[:2])
    strategy.eval(benchmark.test_stream)
    stored = {int(y) for y in buffer.buffer.targets}
    assert stored and stored <= {0, 1, 2, 3}
    for x, _, scores, _ in watch.batches:
        wanted = torch.full_like(scores, MASK_VALUE)
        for row, each in zip(wanted, slow_scores(strategy.model, buffer, x, -1)):
            for k, score in each.items():
                row[k] = score
        assert_close(scores, wanted)
        # classes never met are never predicted
        assert {*scores.argmax(dim=1).tolist()} <= stored


def test_means_follow_the_order_of_class_ids_whatever_the_order_of_arrival():
    buffer, watch = HerdingBuffer(per_class=3), Watch()
    nearest = NearestExemplarMeanPlugin(buffer)
    strategy = naive_with(ExemplarReplayPlugin(buffer), nearest, watch)
    stream = toy_benchmark().train_stream
    for k in (2, 0):
        strategy.train(stream[k])
    strategy.eval(toy_benchmark().test_stream[2])
    [(_, y, scores, output)] = watch.batches
    assert scores.shape == output.shape == (20, N_CLASSES)
    assert (scores[:, 2:4] == MASK_VALUE).all()
    assert (scores[:, [0, 1, 4, 5]].abs() <= 1 + 1e-6).all()
    assert (scores.argmax(dim=1) == y).double().mean() > 0.5


def colour_benchmark():
    """Images of three channels, one experience."""
    from avalanche.benchmarks import benchmark_from_datasets

    data = Images(6, seed=1)
    x, y = data.tensors
    x = torch.cat([x, 2 * x + torch.randn_like(x), x.flip(3)], dim=1)
    tensors = TensorDataset(x, y)
    tensors.targets = y.tolist()
    made = as_classification_dataset(tensors)
    return benchmark_from_datasets(train=[made], test=[made])


@pytest.mark.parametrize(("view", "turn"), [("mirror", 2), ("bgr", 0), (None, None)])
def test_the_second_view_is_the_one_asked_for(view, turn):
    extractor = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 8), nn.Tanh())
    model = FeatureClassifier(extractor, nn.Linear(8, N_CLASSES))
    buffer, watch = HerdingBuffer(per_class=3), Watch()
    nearest = NearestExemplarMeanPlugin(buffer, second_view=view)
    strategy = naive_with(ExemplarReplayPlugin(buffer), nearest, watch, model=model)
    benchmark = colour_benchmark()
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)
    x, _, scores, _ = watch.batches[0]
    # the slow form turns a single image (C, H, W)
    wanted = slow_scores(model, buffer, x, turn)
    assert_close(
        scores, torch.tensor([[s[k] for k in range(N_CLASSES)] for s in wanted])
    )
    others = [t for t in (2, 0, None) if t != turn]
    for other in others:
        wrong = slow_scores(model, buffer, x, other)
        rows = torch.tensor([[s[k] for k in range(N_CLASSES)] for s in wrong])
        assert (rows - scores).abs().max() > 1e-3


@pytest.mark.parametrize("predict", [True, False])
def test_predicting_replaces_the_output_and_not_predicting_does_not(predict):
    buffer, watch = HerdingBuffer(per_class=4), Watch()
    nearest = NearestExemplarMeanPlugin(buffer, predict=predict)
    strategy = naive_with(ExemplarReplayPlugin(buffer), nearest, watch)
    benchmark = toy_benchmark()
    strategy.train(benchmark.train_stream[0])
    results = strategy.eval(benchmark.test_stream[:1])
    [(x, y, scores, output)] = watch.batches
    strategy.model.eval()
    with torch.no_grad():
        plain = strategy.model(x)
    assert torch.equal(output, scores if predict else plain)
    accuracy = (output.argmax(dim=1) == y).double().mean()
    name = "Top1_Acc_Stream/eval_phase/test_stream/Task000"
    assert results[name] == pytest.approx(float(accuracy))


def test_without_exemplars_there_are_no_scores_and_the_output_stays():
    watch = Watch()
    nearest = NearestExemplarMeanPlugin(HerdingBuffer(), predict=True)
    strategy = naive_with(nearest, watch, model=toy_model(cosine=False))
    strategy.eval(toy_benchmark().test_stream)
    assert all(scores is None for _, _, scores, _ in watch.batches)
    assert all(output is not None for *_, output in watch.batches)


def test_nothing_is_left_behind_an_evaluation():
    buffer = HerdingBuffer(per_class=4)
    nearest = NearestExemplarMeanPlugin(buffer)
    strategy = naive_with(ExemplarReplayPlugin(buffer), nearest)
    benchmark = toy_benchmark()
    strategy.train(benchmark.train_stream[0])
    before, vars_before = len(buffer.buffer), dict(vars(nearest))
    strategy.eval(benchmark.test_stream)
    assert strategy.nearest_mean is None
    assert vars(nearest).keys() == vars_before.keys()
    assert not [k for k, v in vars(nearest).items() if isinstance(v, torch.Tensor)]
    assert len(buffer.buffer) == before


def test_evaluation_within_training_uses_the_model_and_the_exemplars_of_that_moment():
    class Slow(Watch):
        def after_eval_iteration(self, strategy, **kwargs):
            slow = slow_scores(strategy.model, buffer, strategy.mb_x, -1)
            self.batches.append((strategy.nearest_mean, slow))

    buffer, watch = HerdingBuffer(per_class=4), Slow()
    nearest = NearestExemplarMeanPlugin(buffer)
    strategy = naive_with(ExemplarReplayPlugin(buffer), nearest, watch, eval_every=1)
    benchmark = toy_benchmark()
    strategy.train(benchmark.train_stream[0])
    watch.batches = []
    past = benchmark.test_stream[:1]
    strategy.train(benchmark.train_stream[1], eval_streams=[past])
    assert len(watch.batches) == 3  # before training, and after each epoch
    for scores, slow in watch.batches:
        assert_close(scores[:, :2], torch.tensor([[s[0], s[1]] for s in slow]))
        assert (scores[:, 2:] == MASK_VALUE).all()  # no exemplars yet
    first, second, third = (scores[:, :2] for scores, _ in watch.batches)
    assert not torch.equal(first, second) and not torch.equal(second, third)
    assert strategy.nearest_mean is None


def test_a_checkpoint_is_resumed_by_an_evaluation(tmp_path):
    def make():
        buffer, watch = HerdingBuffer(per_class=4), Watch()
        nearest = NearestExemplarMeanPlugin(buffer)
        model = toy_model(cosine=False)
        replay = ExemplarReplayPlugin(buffer)
        return naive_with(replay, nearest, watch, model=model), watch

    benchmark, (strategy, watch) = toy_benchmark(), make()
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)
    wanted = [scores for _, _, scores, _ in watch.batches]
    watch.batches = []
    save_checkpoint(tmp_path / "c.pt", strategy, benchmark.train_stream)
    again, watch = make()
    load_checkpoint(tmp_path / "c.pt", again, benchmark.train_stream)
    again.eval(benchmark.test_stream)
    for (_, _, ours, _), scores in zip(watch.batches, wanted, strict=True):
        assert torch.equal(ours, scores)


@pytest.mark.parametrize("predict", [True, False])
def test_it_serves_lucir(predict):
    # LUCIR's own buffer is the one to be read
    watch, benchmark = Watch(), toy_benchmark()
    strategy = build(LUCIR, exemplars_per_class=5, plugins=[watch])
    [replay] = [p for p in strategy.plugins if isinstance(p, ExemplarReplayPlugin)]
    nearest = NearestExemplarMeanPlugin(replay.buffer, predict=predict)
    strategy.plugins.insert(0, nearest)
    strategy.train(benchmark.train_stream)
    strategy.eval(benchmark.test_stream)
    right = [scores.argmax(dim=1) == y for _, y, scores, _ in watch.batches]
    assert torch.cat(right).double().mean() > 0.5
    assert all(s.shape[1] == N_CLASSES for _, _, s, _ in watch.batches)


def test_a_head_a_task_is_served():
    buffer, watch = HerdingBuffer(per_class=4), Watch()
    nearest = NearestExemplarMeanPlugin(buffer)
    strategy = naive_with(
        ExemplarReplayPlugin(buffer), nearest, watch, model=task_model()
    )
    benchmark = toy_benchmark("new_task_labels")
    strategy.train(benchmark.train_stream)
    strategy.eval(benchmark.test_stream)
    for _, _, scores, output in watch.batches:
        assert scores.shape == (len(output), max(N_CLASSES, output.shape[1]))
        assert (scores.abs() <= 1 + 1e-6).all()


def test_features_of_zeros_score_zero():
    model = toy_model(cosine=False)
    buffer, watch = HerdingBuffer(per_class=4), Watch()
    nearest = NearestExemplarMeanPlugin(buffer)
    strategy = naive_with(ExemplarReplayPlugin(buffer), nearest, watch, model=model)
    benchmark = toy_benchmark()
    strategy.train(benchmark.train_stream[0])
    last = model.feature_extractor[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    strategy.eval(benchmark.test_stream[:1])
    [(_, _, scores, _)] = watch.batches
    assert torch.equal(scores[:, :2], torch.zeros(20, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffer": []}, "wanted a ExemplarsBuffer"),
        ({"second_view": "rgb"}, "second_view is 'rgb'; wanted one of 'mirror', 'bgr'"),
        ({"predict": 1}, "predict is 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"memory_resident": "yes"}, "memory_resident is 'yes'"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    given = {"buffer": HerdingBuffer(), **options}
    with pytest.raises(ValueError, match=message):
        NearestExemplarMeanPlugin(given.pop("buffer"), **given)


def test_a_model_without_features_is_refused():
    nearest = NearestExemplarMeanPlugin(HerdingBuffer())
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, N_CLASSES))
    strategy = naive_with(nearest, model=model)
    with pytest.raises(ValueError, match="wanted a FeatureClassifier"):
        strategy.eval(toy_benchmark().test_stream)


def test_a_second_view_of_vectors_is_refused():
    from avalanche_ext.plugins.nearest_exemplar_mean import _turned

    batches = [[torch.zeros(2, 9), torch.zeros(2)]]
    with pytest.raises(ValueError, match=r"inputs have shape \(2, 9\); wanted images"):
        next(_turned(batches, "mirror"))

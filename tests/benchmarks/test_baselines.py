"""Avalanche's own strategies as recipes."""

from __future__ import annotations

import json

import pytest
import torch
from avalanche.models import IncrementalClassifier
from avalanche.training.templates import SupervisedTemplate
from fake_data import lay

from avalanche_ext.plugins import MirrorTestPlugin
from benchmarks.__main__ import main
from benchmarks.names import UsageError
from benchmarks.recipes import RECIPES
from benchmarks.streams import STREAMS, make_stream
from benchmarks.streams.transforms import augmentation


def record(folder):
    return json.loads((folder / "run.json").read_text())


def strategy_of(recipe, **options):
    """The strategy a recipe builds."""
    setup = RECIPES[recipe].function(**options)
    return setup.make_strategy(evaluator=None, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("lwf", []),
        ("icarl", ["--memory_bytes", "9000"]),
        ("joint", []),
        ("joint", ["--fresh_weights", "true"]),
        ("der", []),
    ],
)
def test_stopped_in_the_middle_and_resumed_equals_never_stopped(
    recipe, options, tmp_path, monkeypatch
):
    run = ["run", recipe, "--smoke", "--loggers", "text", *options]
    run += ["--images_per_class", "60", "--threads", "1"]
    full, parts = tmp_path / "full", tmp_path / "parts"
    assert main([*run, "--out", str(full)]) == 0
    step = SupervisedTemplate.optimizer_step

    def stop(strategy):
        step(strategy)
        clock = strategy.clock
        if (clock.train_exp_counter, clock.train_exp_iterations) == (2, 3):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedTemplate, "optimizer_step", stop)
        assert main([*run, "--out", str(parts)]) == 130
    assert record(parts / recipe / "0")["experiences_finished"] == 2
    torch.rand(3)
    assert main(["run", recipe, "--resume", "--out", str(parts)]) == 0
    folders = [out / recipe / "0" for out in (full, parts)]
    for name in ("accuracy.csv", "log.txt"):
        whole, resumed = ((folder / name).read_bytes() for folder in folders)
        assert whole == resumed
    whole, resumed = (record(folder)["memory_bytes"] for folder in folders)
    assert whole == resumed and min(whole.values()) > 0


@pytest.mark.parametrize("stream", ["split_mnist", "split_cifar10"])
def test_icarl_runs_on_the_streams_of_images(stream, tmp_path, fake_files):
    lay(stream, tmp_path / "data")
    small = ["--train_epochs", "1", "--exemplars", "12", "--n_experiences", "2"]
    few = ["--images_per_class", "8"]
    options = [*small, *few, "--dataset-root", str(tmp_path / "data")]
    assert (
        main(["run", "icarl", "--stream", stream, *options, "--out", str(tmp_path)])
        == 0
    )
    assert record(tmp_path / "icarl" / "0")["finished"]


@pytest.mark.parametrize("images_per_class", [None, 20])
def test_icarl_keeps_exemplars_of_the_classes_seen_in_order(images_per_class):
    setup = RECIPES["icarl"].function(
        exemplars=12, train_epochs=1, n_experiences=5, images_per_class=images_per_class
    )
    strategy = setup.make_strategy(evaluator=None, device=torch.device("cpu"))
    benchmark = make_stream(setup.stream, **setup.stream_options)
    memory = next(p for p in strategy.plugins if hasattr(p, "x_memory"))
    for n, experience in enumerate(benchmark.train_stream[:2], start=1):
        strategy.train(experience)
        labels = [label for kept in memory.y_memory for label in kept]
        assert labels == sorted([*range(2 * n)] * (12 // (2 * n)))
        new = sorted(int(c) for c in experience.classes_in_this_experience)
        assert new == [2 * n - 2, 2 * n - 1]
        data = experience.dataset.eval()
        images = torch.stack([x for x, y, *_ in data if y == new[0]])
        kept = memory.x_memory[new[0]]
        assert (kept[:, None] == images).flatten(2).all(2).any(1).all()


def test_icarl_augments_its_memory_as_the_stream_its_images():
    assert augmentation(STREAMS["split_digits"]) is None
    transform = augmentation(STREAMS["split_cifar10"])
    image = torch.arange(3 * 32 * 32.0).reshape(3, 32, 32)
    made = torch.stack([transform(image) for _ in range(8)])
    assert made.shape == (8, 3, 32, 32) and len(made.unique(dim=0)) > 1
    memory = next(
        p
        for p in strategy_of("icarl", stream="split_cifar10").plugins
        if hasattr(p, "buffer_transform")
    )
    assert memory.buffer_transform.transforms == transform.transforms


def test_options_of_lwf_reach_its_loss():
    def loss_of(**options):
        benchmark = make_stream("split_digits")
        torch.manual_seed(0)
        strategy = strategy_of("lwf", train_epochs=1, **options)
        strategy.train(benchmark.train_stream[:2])
        heads = (
            m for m in strategy.model.modules() if type(m) is IncrementalClassifier
        )
        return next(heads).classifier.weight.detach()

    weights = [loss_of(), loss_of(), loss_of(alpha=3.0), loss_of(temperature=5.0)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


@pytest.mark.parametrize("recipe", ["lwf", "icarl", "der", "avalanche_ar1"])
def test_task_labels_are_refused(recipe):
    with pytest.raises(UsageError, match="task_labels is True; wanted False"):
        RECIPES[recipe].setup(task_labels=True)


@pytest.mark.parametrize(
    ("recipe", "stream"),
    [
        *(("icarl", s) for s in ("mnist_nic", "core50_nicv2_391", "image_folder")),
        ("der", "image_folder"),
        ("avalanche_ar1", "image_folder"),
    ],
)
def test_streams_that_a_strategy_cannot_learn_are_refused(recipe, stream):
    with pytest.raises(UsageError, match=f"stream is {stream}.*; wanted"):
        RECIPES[recipe].setup(stream=stream)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "small_cnn"}, "network is small_cnn; wanted mobilenet"),
        ({"optimizer": "adam"}, "optimizer adam, .*sgd and none"),
        ({"milestones": (2,)}, r"milestones \[2\]; wanted"),
        ({"memory_size": 31}, "memory_size is 31; wanted at least .* is 32"),
    ],
)
def test_avalanches_ar1_refuses_what_it_cannot_do(options, message):
    with pytest.raises(UsageError, match=message):
        RECIPES["avalanche_ar1"].setup(**options)


@pytest.mark.parametrize("recipe", ["joint", "icarl", "der", "avalanche_ar1"])
def test_the_test_of_the_frame_reaches_the_strategy(recipe):
    plugins = strategy_of(recipe, mirror_test=True).plugins
    assert sum(type(plugin) is MirrorTestPlugin for plugin in plugins) == 1


@pytest.mark.parametrize(
    ("recipe", "stream"),
    [
        *((r, "core50_mini_nicv2_79") for r in ("joint", "replay", "lwf", "der")),
        *((r, "image_folder") for r in ("joint", "replay")),
    ],
)
def test_classes_may_come_back_and_images_be_files(recipe, stream, tmp_path, data):
    here = ["--stream", stream, "--dataset-root", str(data(stream))]
    small = ["--n_experiences", "2", "--train_epochs", "1", "--out", str(tmp_path)]
    assert main(["run", recipe, *here, *small, "--stream_seed", "3"]) == 0
    assert record(tmp_path / recipe / "0")["finished"]

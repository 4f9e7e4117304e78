"""Metrics and loggers by name."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from avalanche.logging import InteractiveLogger, TensorboardLogger, WandBLogger
from avalanche.training.supervised import Naive
from cases import APIS, toy_benchmark, toy_model

from avalanche_ext.buffers import HerdingBuffer
from avalanche_ext.checkpoint import load_checkpoint, save_checkpoint
from avalanche_ext.plugins import NearestExemplarMeanPlugin
from benchmarks.runs.evaluation import LOGGERS, METRICS, make_evaluator

# they measure the machine
MACHINE = ("timing", "ram", "gpu_memory")
FILES = ("log.txt", "training_results.csv", "eval_results.csv")


def naive(evaluator):
    torch.manual_seed(0)
    model = toy_model(cosine=False)
    return Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=24,
        eval_mb_size=60,
        evaluator=evaluator,
        eval_every=1,
        plugins=[NearestExemplarMeanPlugin(HerdingBuffer())],  # a metric asks for it
    )


def run(out, *, begin=0, end=3, killed=False, checkpoint=None, api="old"):
    """Train some experiences of the toy stream; save each, or be killed in the last."""
    names = [metric for metric in METRICS if metric not in MACHINE]
    evaluator = make_evaluator(metrics=names, loggers=("text", "csv"), out=out)
    benchmark, strategy = toy_benchmark(api), naive(evaluator)
    if begin:
        load_checkpoint(checkpoint, strategy, benchmark.train_stream)
    for experience in list(benchmark.train_stream)[begin:end]:
        strategy.train(experience, eval_streams=[benchmark.test_stream])
        if killed and experience.current_experience == end - 1:
            return strategy
        strategy.eval(benchmark.test_stream)
        if checkpoint:
            save_checkpoint(checkpoint, strategy, benchmark.train_stream)
    return strategy


def read(out):
    return {name: (out / name).read_text() for name in FILES}


@pytest.mark.parametrize("api", ["old", "new"])
def test_logs_of_a_killed_and_resumed_run_equal_those_of_one_never_stopped(
    api, tmp_path
):
    run(tmp_path / "whole", api=api)
    out, checkpoint = tmp_path / "parts", tmp_path / "checkpoint.pt"
    run(out, end=2, killed=True, checkpoint=checkpoint, api=api)
    cut = read(out)
    run(out, begin=1, checkpoint=checkpoint, api=api)
    assert read(out) == read(tmp_path / "whole")
    assert all(cut[name] != read(out)[name] for name in FILES[:2])


def test_logs_of_a_run_killed_in_its_first_experience_begin_anew(tmp_path):
    run(tmp_path / "whole", end=1)
    run(tmp_path / "parts", end=1, killed=True)
    run(tmp_path / "parts", end=1)
    assert read(tmp_path / "parts") == read(tmp_path / "whole")


def test_making_loggers_touches_no_file(tmp_path):
    for name in FILES:
        (tmp_path / name).write_text("earlier")
    make_evaluator(loggers=("text", "csv"), out=tmp_path)
    assert set(read(tmp_path).values()) == {"earlier"}


def test_a_log_that_vanished_is_begun_anew(tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    run(tmp_path / "out", end=1, checkpoint=checkpoint)
    for name in FILES:
        (tmp_path / "out" / name).unlink()
    run(tmp_path / "out", begin=1, end=2, checkpoint=checkpoint)
    assert all(read(tmp_path / "out").values())
    assert "\0" not in "".join(read(tmp_path / "out").values())


def test_the_text_log_holds_plain_lines_with_results(tmp_path):
    strategy = run(tmp_path, end=1)
    text = (tmp_path / "log.txt").read_text()
    assert "\r" not in text and "\x1b" not in text
    accuracy = strategy.evaluator.get_last_metrics()[
        "Top1_Acc_Seen/eval_phase/test_stream"
    ]
    assert f"Top1_Acc_Seen/eval_phase/test_stream = {accuracy:.4f}\n" in text


@pytest.mark.parametrize("api", APIS)
def test_every_metric_is_published_and_none_by_the_mini_batch(api, tmp_path):
    evaluator = make_evaluator(metrics=tuple(METRICS), loggers=(), out=tmp_path)
    benchmark, strategy = toy_benchmark(api), naive(evaluator)
    for experience in list(benchmark.train_stream)[:2]:
        strategy.train(experience, eval_streams=[benchmark.test_stream])
    strategy.eval(benchmark.test_stream)
    names = {name.split("/")[0] for name in evaluator.get_all_metrics()}
    assert names == {
        "Top1_Acc_Epoch",
        "Top1_Acc_Exp",
        "Top1_Acc_Stream",
        "Accuracy_On_Trained_Experiences",
        "Top1_Acc_Seen",
        "Avg_Incremental_Acc",
        "Loss_Epoch",
        "Loss_Exp",
        "Loss_Stream",
        "ExperienceForgetting",
        "StreamForgetting",
        "ExperienceBWT",
        "StreamBWT",
        "ConfusionMatrix_Stream",
        "Gradient_Reconstruction",
        "Memory_Bytes",
        "Time_Epoch",
        "Time_Stream",
        "MaxRAMUsage_Epoch",
        "MaxRAMUsage_Stream",
        "TaskAware_Acc_Exp",
        "TaskAware_Acc_Stream",
        "TaskAgnostic_Acc_Exp",
        "TaskAgnostic_Acc_Stream",
    }  # no GPU here, so no Peak_GPU_Bytes; Naive recognises, prunes and stores nothing


def test_no_logger_is_silent(tmp_path, capsys):
    evaluator = make_evaluator(loggers=(), out=tmp_path / "out")
    naive(evaluator).train(toy_benchmark().train_stream[0])
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "out").exists()


def test_loggers_come_in_the_order_of_their_names(tmp_path):
    names = ("tensorboard", "interactive")
    first, second = make_evaluator(loggers=names, out=tmp_path).loggers
    assert isinstance(first, TensorboardLogger)
    assert isinstance(second, InteractiveLogger)
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.fixture
def wandb(monkeypatch):
    """What W&B is told, instead of W&B."""
    told = SimpleNamespace(runs=[], logged=[])

    def log(values, step):
        told.logged.append((values, step))

    def before_run(logger):
        told.runs.append(logger.init_kwargs)
        logger.wandb = SimpleNamespace(log=log)

    monkeypatch.setattr(WandBLogger, "before_run", before_run)
    return told


def test_wandb_is_told_only_when_chosen_and_goes_on_with_a_resumed_run(tmp_path, wandb):
    make_evaluator(loggers=("text",), out=tmp_path)
    assert wandb.runs == []
    for name in ("a", "a", "b"):
        make_evaluator(loggers=("wandb",), out=tmp_path / name, run_name="lucir 7")
    first, again, other = wandb.runs
    assert first["name"] == "lucir 7" and first["dir"] == tmp_path / "a"
    assert first["id"] == again["id"] != other["id"]
    assert first["resume"] == "allow"


def test_wandb_is_told_the_numbers(tmp_path, wandb):
    metrics = ("seen_accuracy", "confusion_matrix", "memory_bytes")
    evaluator = make_evaluator(metrics=metrics, loggers=("wandb",), out=tmp_path)
    benchmark, strategy = toy_benchmark(), naive(evaluator)
    strategy.train(benchmark.train_stream[0], eval_streams=[benchmark.test_stream])
    values = dict(pair for logged, _ in wandb.logged for pair in logged.items())
    assert "Top1_Acc_Seen/eval_phase/test_stream" in values
    assert all(isinstance(value, int | float) for value in values.values())


def test_every_logger_can_be_in_a_checkpoint(tmp_path, wandb, capsys):
    checkpoint = tmp_path / "checkpoint.pt"
    steps = []
    for _ in range(2):
        out = tmp_path / "out"
        names = tuple(metric for metric in METRICS if metric != "confusion_matrix")
        evaluator = make_evaluator(metrics=names, loggers=tuple(LOGGERS), out=out)
        benchmark, strategy = toy_benchmark(), naive(evaluator)
        if checkpoint.exists():
            load_checkpoint(checkpoint, strategy, benchmark.train_stream)
        experience = benchmark.train_stream[len(steps)]
        strategy.train(experience, eval_streams=[benchmark.test_stream])
        save_checkpoint(checkpoint, strategy, benchmark.train_stream)
        steps.append(strategy.clock.train_iterations)
    assert steps == [2, 4]
    assert "Start of training phase" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["acuracy"]}, "unknown metric 'acuracy'; did you mean accuracy"),
        ({"metrics": ["loss", "loss"]}, "metric loss is given twice"),
        ({"loggers": ["tex"]}, "unknown logger 'tex'; did you mean text"),
        ({"loggers": ["nothing like it"]}, f"wanted one of {', '.join(LOGGERS)}"),
    ],
)
def test_wrong_names_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_evaluator(out=tmp_path, **options)


def test_importing_evaluation_is_light():
    code = "import sys, benchmarks.runs.evaluation; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "avalanche", "numpy"} & set(result.stdout.split())

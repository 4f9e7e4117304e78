"""Whole experiences of the authors' code, with the memory and the order they drew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from prior_cases import flat, stream_of, wide_model
from torch.testing import assert_close

from avalanche_ext.functional.functional_prior import FUNCTION, REPLAY
from avalanche_ext.metrics import GradientReconstructionError
from avalanche_ext.strategies import EWCFRReplay

SCALES = ("trained", "unit")


def train(golden, *metrics, plugins=()):
    """The authors' three tasks; yields (strategy, number of the task just trained)."""
    model = wide_model(golden)
    adam = bool(golden["max_grad_norm"])
    optimizer = (
        torch.optim.Adam(model.parameters(), lr=golden["lr"], eps=golden["adam_eps"])
        if adam
        else torch.optim.SGD(model.parameters(), lr=golden["lr"])
    )
    uses_memory = golden["use_fr"] or golden["use_replay"]
    strategy = EWCFRReplay(
        model=model,
        optimizer=optimizer,
        memory_size=golden["n_memory_per_task"] if uses_memory else 0,
        tau=golden["tau"],
        tau2=golden["tau2"],
        temperature=golden["temp"],
        strength=[golden["lam"], golden["lam2"]] if golden["use_ewc"] else 0.0,
        prior_precision=golden["prior_precision"],
        fisher_outputs="all" if golden["is_code"] else "head",
        max_grad_norm=golden["max_grad_norm"] or None,
        train_mb_size=golden["batch_size"],
        train_epochs=golden["epochs"],
        eval_mb_size=64,
        plugins=[Orders(golden), *plugins],
        evaluator=EvaluationPlugin(*metrics, loggers=[]),
    )
    given_choices(strategy.buffer, golden)
    stream = stream_of(golden["x"], golden["y"], golden["task"])
    for k, experience in enumerate(stream, start=1):
        if k == 1:  # trained by the authors: only what follows an experience is ours
            strategy.optimizer.param_groups[0]["lr"] = 0.0
        strategy.train(experience)
        if k == 1:
            state = {n[3:]: v for n, v in golden.items() if n.startswith("w1.")}
            if not adam:
                ours = flat(dict(model.named_parameters())).detach()
                assert_close(ours, flat(state), rtol=0, atol=0)
            strategy.optimizer.param_groups[0]["lr"] = golden["lr"]
        yield strategy, k


def given_choices(buffer, golden):
    """Let the buffer choose what the authors' random numbers chose."""

    def choose(agent, experience):
        k = len(buffer.positions) + 1
        where = golden[f"mem_idx_task{k}"] if k < 3 else torch.arange(buffer.max_size)
        types = golden[f"mem_type_task{k}"] if k < 3 else torch.ones_like(where)
        buffer.positions.append(where)
        buffer.roles.append(torch.where(types == 2, REPLAY, FUNCTION))
        buffer.data_sizes.append(len(experience.dataset))
        buffer._sources.append(experience.dataset)
        buffer._rebuild()

    buffer.post_adapt = choose


class Orders(SupervisedPlugin):
    """The loader that visits samples in the order the authors recorded."""

    def __init__(self, golden):
        super().__init__()
        self.golden = golden

    def before_training_exp(self, strategy, **kwargs):
        golden, k = self.golden, strategy.clock.train_exp_counter + 1
        if k == 1:
            return
        data = strategy.adapted_dataset
        epochs = [golden[f"order_task{k}_epoch{e}"] for e in (1, 2)]
        mine = torch.nonzero(golden["task"] == k - 1).flatten().tolist()
        # of each sample of the adapted data: its number in the golden file
        numbers = list(mine)
        for j, where in enumerate(strategy.buffer.positions):
            of_task = torch.nonzero(golden["task"] == j).flatten()
            numbers += of_task[where].tolist()
        assert len(numbers) == len(data)
        place = {number: i for i, number in enumerate(numbers)}
        strategy.dataloader = InOrder(
            data, [[place[n] for n in e.tolist()] for e in epochs], strategy
        )


class InOrder:
    def __init__(self, data, epochs, strategy):
        self.data, self.epochs, self.strategy = data, epochs, strategy

    def __iter__(self):
        order = self.epochs[self.strategy.clock.train_exp_epochs]
        size = self.strategy.train_mb_size
        for start in range(0, len(order), size):
            items = [self.data[i] for i in order[start : start + size]]
            yield list(torch.utils.data.default_collate(items))


@pytest.fixture
def run_file(golden, request):
    golden["is_code"] = "_code" in request.node.callspec.id
    return golden


@pytest.mark.golden("ewc_fr_replay", "run_*.npz")
def test_three_tasks_agree_with_the_authors(run_file):
    golden = run_file
    for strategy, k in train(golden):
        if k > 1:
            for ours, name in zip(
                strategy.model.parameters(),
                ["lin.weight", "lin.bias", "upper.weight", "upper.bias"],
            ):
                wanted = golden[f"out_task{k}.{name}"]
                assert_close(ours.data, wanted, rtol=1e-4, atol=1e-5)
        if k == 3:
            break
        prior, ewc = strategy.plugins[1:3]
        if f"H_after_task{k}" in golden:
            assert_close(
                flat(ewc.importance), golden[f"H_after_task{k}"], rtol=1e-4, atol=1e-5
            )
            anchor = golden[f"mean_after_task{k}"]
            assert_close(flat(ewc.anchor), anchor, rtol=1e-4, atol=1e-5)
        begin = 0
        for j in range(1, k + 1):
            wanted = golden.get(f"soft_after_task{k}_of_task{j}")
            if wanted is not None:
                logits = prior.logits[begin : begin + len(wanted)]
                soft = (logits / golden["temp"]).softmax(1)
                assert_close(soft, wanted, rtol=1e-4, atol=1e-5)
                begin += len(wanted)


class Terms(SupervisedPlugin):
    """What the plugins tell of their prior at the end of each epoch."""

    def after_training_epoch(self, strategy, **kwargs):
        if strategy.clock.train_exp_counter == 2:
            self.terms = {scale: {} for scale in SCALES}
            for plugin in strategy.plugins[1:3]:
                for scale, terms in self.terms.items():
                    terms |= plugin.prior_gradients(strategy, scale)


@pytest.mark.golden("ewc_fr_replay", "grad_reconstruction.npz")
@pytest.mark.parametrize(
    "method", ["ewc", "fr", "ewc_fr", "fr_replay", "ewc_fr_replay"]
)
def test_reconstruction_error_is_that_of_its_definition(golden, method, request):
    root = request.config.getoption("--golden-root") / "ewc_fr_replay"
    with np.load(root / f"run_{method}.npz") as arrays:
        run = {
            k: torch.from_numpy(arrays[k]) if arrays[k].ndim else arrays[k].item()
            for k in arrays.files
        }
    run["is_code"] = False
    terms = Terms()
    metrics = [GradientReconstructionError(scale=scale) for scale in SCALES]
    for _ in train(run, *metrics, plugins=[terms]):
        pass
    for scale, metric in zip(SCALES, metrics):
        start, values = f"{method}.{scale}", metric.result()
        for name in ("weight", "function", "replay"):
            wanted = golden[f"{start}.grad_{name}_term"]
            found = flat(terms.terms[scale][name])
            assert_close(found, wanted, rtol=1e-4, atol=1e-4)
            size = float(wanted.norm())
            assert values[name] == pytest.approx(size, rel=1e-4, abs=1e-5)
        for name in ("absolute", "relative", "cosine"):
            wanted = golden[f"{start}.{name[:3]}"]
            assert values[name] == pytest.approx(wanted, rel=1e-4)
        past = float(golden[f"{method}.grad_past"].norm())
        assert values["past"] == pytest.approx(past, rel=1e-4)

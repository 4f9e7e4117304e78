"""AR1* from the first image to the last prediction, against the authors' script."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from avalanche_ext.models import batch_renorms_of
from avalanche_ext.plugins import (
    CWRStarPlugin,
    LatentReplayPlugin,
    SynapticIntelligencePlugin,
)
from avalanche_ext.strategies import AR1Star

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])


def block(inputs, outputs, size, stride=1, groups=1):
    conv = nn.Conv2d(
        inputs, outputs, size, stride, size // 2, groups=groups, bias=False
    )
    named = {"conv": conv, "bn": nn.BatchNorm2d(outputs), "relu": nn.ReLU()}
    return nn.Sequential(OrderedDict(named))


def network(golden):
    """The small network of the goldens, with its weights."""
    a, b = (len(golden[f"init.{n}_features.0.conv.weight"]) for n in ("lat", "end"))
    lower = (block(3, a, 3, 2), block(a, a, 3, groups=a))
    upper = (block(a, b, 1), block(b, b, 3, 2, groups=b), block(b, b, 1))
    model = nn.Sequential(
        OrderedDict(
            lat_features=nn.Sequential(*lower),
            end_features=nn.Sequential(*upper),
            pool=nn.Sequential(nn.AvgPool2d(4), nn.Flatten()),
            output=nn.Linear(b, 50, bias=False),
        )
    )
    start = "init."
    state = {k[len(start) :]: v for k, v in golden.items() if k.startswith(start)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert all(k.endswith("num_batches_tracked") for k in missing) and not unexpected
    return model


def data(images, labels):
    x = ((images / 255 - MEAN) / STD).permute(0, 3, 1, 2).float().contiguous()
    pairs = TensorDataset(x, labels)
    pairs.targets = labels.tolist()
    return as_classification_dataset(pairs)


class Record(SupervisedPlugin):
    """What the script noted on its way."""

    def __init__(self):
        super().__init__()
        self.losses, self.when, self.first = [], [], {}

    def after_forward(self, strategy, **kwargs):
        clock = strategy.clock
        if clock.train_exp_iterations == 0:
            first = strategy.mb_output.detach().clone(), strategy.mb_y.clone()
            self.first[clock.train_exp_counter] = first

    def before_update(self, strategy, **kwargs):
        clock = strategy.clock
        self.losses.append(strategy.loss.item())
        self.when.append([clock.train_exp_counter, clock.train_exp_epochs])


def run_of(golden):
    model = network(golden)
    cfg = {k[4:]: golden[k] for k in golden if k.startswith("cfg_")}
    strength = golden["reg_lambda"]
    strategy = AR1Star(
        model=model,
        optimizer=torch.optim.SGD(
            model.parameters(),
            lr=cfg["init_lr"],
            momentum=cfg["momentum"],
            weight_decay=cfg["l2"],
        ),
        input_shape=(3, 16, 16),
        latent_layer="lat_features.1",
        memory_size=int(cfg["rm_sz"]),
        order="published",
        replacement="published",
        later_lr=cfg["inc_lr"],
        first_epochs=int(cfg["init_train_ep"]),
        momentum=(cfg["init_update_rate"], cfg["inc_update_rate"]),
        r_max=cfg["max_r_max"],
        d_max=cfg["max_d_max"],
        growth=cfg["inc_step"],
        limits="overshoot",
        std="legacy",
        cwr_repeat="once" if golden["unique_classes"] else "per_pattern",
        si="penalty" if strength else "none",
        si_strength=strength or 1.0,
        si_min_importance=None,
        train_epochs=int(cfg["inc_train_ep"]),
        train_mb_size=int(cfg["mb_size"]),
        eval_mb_size=100,
        plugins=[record := Record()],
        evaluator=None,
    )
    n = golden["n_exp"]
    draws = [golden["idxs_cur0"]]
    for i in range(1, n):
        draws += [golden[f"idxs_cur{i}"], golden[f"idxs_2_replace{i}"]]
    orders = [golden[f"perm{i}"] for i in range(n)]
    the(LatentReplayPlugin, strategy)._permutation = lambda n: orders.pop(0)
    strategy.buffer._draw = lambda n, k: draws.pop(0)
    return strategy, record


def the(kind, strategy):
    return next(p for p in strategy.plugins if isinstance(p, kind))


def our_state(golden):
    """The script's final weights under our names."""
    names = {"gamma": "weight", "beta": "bias"}
    names |= {f"running_avg_{s}": f"running_{s}" for s in ("mean", "std")}
    state = {}
    for key, value in golden.items():
        if key.startswith("final."):
            path, last = key[len("final.") :].rsplit(".", 1)
            norm = last in names
            state[f"{path}.{names.get(last, last)}"] = (
                value.flatten() if norm else value
            )
    return state


@pytest.mark.golden("ar1star", "e2e_tiny_*.npz")
def test_the_whole_procedure_agrees_with_the_authors(golden):
    strategy, record = run_of(golden)
    n = golden["n_exp"]
    train = [data(golden[f"x{i}"], golden[f"y{i}"]) for i in range(n)]
    test = data(golden["test_x"], golden["test_y"])
    stream = benchmark_from_datasets(train=train, test=[test]).train_stream
    cwr, x = the(CWRStarPlugin, strategy), torch.stack([x for x, *_ in test])
    upper_norm = next(iter(batch_renorms_of(strategy.model.end_features)))
    for i, experience in enumerate(stream):
        past = cwr.past
        strategy.train(experience)
        where = f"experience {i}"
        logits, labels = record.first[i]
        assert labels.tolist() == golden[f"labels_first{i}"].tolist(), where
        assert_close(logits, golden[f"logits_first{i}"], rtol=1e-3, atol=1e-3)
        assert (cwr.past if past is None else cwr.past - past).tolist() == golden[
            f"cur_j{i}"
        ].tolist(), where
        saved = golden[f"saved_classes{i}"]
        assert (cwr.past > 0).nonzero().flatten().tolist() == saved.tolist(), where
        wanted = golden[f"saved_weights{i}"]
        assert_close(cwr.saved[saved], wanted.to(cwr.saved), rtol=1e-3, atol=1e-3)
        assert strategy.buffer.labels.tolist() == golden[f"rm_labels{i}"].tolist()
        sums = strategy.buffer.latents(slice(None)).flatten(1).sum(1)
        assert_close(sums, golden[f"rm_latent_sum{i}"].to(sums), rtol=1e-3, atol=1e-3)
        for name in ("r_max", "d_max"):
            limit, wanted = getattr(upper_norm, name), golden[f"brn_{name}{i}"]
            assert limit.item() == pytest.approx(wanted, abs=1e-6)
        strategy.model.eval()
        with torch.no_grad():
            logits = strategy.model(x)
        wanted = golden[f"test_logits{i}"]
        assert (logits - wanted).abs().max() < 1e-3 * wanted.abs().max(), where
        correct = (logits.argmax(1) == golden["test_y"]).float().mean()
        assert correct.item() == pytest.approx(golden[f"test_acc{i}"]), where
        if golden["reg_lambda"]:
            assert_importance(strategy, golden[f"importance{i}"])
    assert record.when == golden["loss_index"][:, :2].tolist()
    assert record.losses == pytest.approx(golden["losses"].tolist(), abs=1e-3)
    final = strategy.model.state_dict()
    for name, wanted in our_state(golden).items():
        assert_close(final[name], wanted, rtol=1e-3, atol=1e-3, msg=name)


def assert_importance(strategy, wanted):
    """The authors' vector has zeros for frozen weights, which ours does not track."""
    named = dict(strategy.model.named_parameters())
    names = [n for n in named if n.endswith("conv.weight")]
    found = the(SynapticIntelligencePlugin, strategy).importance
    ours = [found.get(n, torch.zeros_like(named[n])).flatten() for n in names]
    assert_close(torch.cat(ours), wanted, rtol=1e-2, atol=1e-5)

"""The whole method on the toy stream, and its losses term by term by the book."""

from __future__ import annotations

import copy

import torch
from avalanche.core import SupervisedPlugin
from cases import build, task_model
from torch.nn.functional import one_hot
from torch.testing import assert_close

from avalanche_ext.functional.functional_prior import REPLAY
from avalanche_ext.models.past_data import forward, parameters_by_name
from avalanche_ext.strategies import EWCFRReplay


def ours(*, plugins=(), **options):
    """The whole method with weights that tell its terms apart."""
    own = {
        "memory_size": 10,
        "tau": 0.4,
        "tau2": 1.6,
        "temperature": 2.0,
        "strength": [3.0, 7.0],
        "prior_precision": 0.1,
        "model": task_model(),
    }
    return build(EWCFRReplay, plugins=list(plugins), **{**own, **options})


def key(x):
    return tuple(x.flatten()[:3].tolist())


class ByHand(SupervisedPlugin):
    """Compares each gradient with the sum of those of the four terms, by the book."""

    def __init__(self, smoothing=0.0, scaled=False):
        super().__init__()
        self.smoothing, self.scaled, self.norms = smoothing, scaled, {}
        self.known = {}

    def after_training_exp(self, strategy, **kwargs):
        self.start = copy.deepcopy(strategy.model).eval()
        self.known, buffer = {}, strategy.buffer
        for k, (where, roles) in enumerate(zip(buffer.positions, buffer.roles)):
            tau = 1.6 if k else 0.4
            tau *= 48 / len(where) if self.scaled and len(where) else 1
            for i, role in zip(where.tolist(), roles.tolist()):
                x = buffer._sources[k][i][0]
                self.known[key(x)] = (role == REPLAY, tau)

    def after_backward(self, strategy, **kwargs):
        named = parameters_by_name(strategy.model)
        labelled = hasattr(strategy.experience, "task_labels")
        t = strategy.mb_task_id if labelled else None
        logits = forward(strategy.model, strategy.mb_x, t)
        total = {n: torch.zeros_like(p) for n, p in named.items()}
        for name, loss in self.terms(strategy, logits, t).items():
            found = torch.autograd.grad(
                loss, list(named.values()), allow_unused=True, retain_graph=True
            )
            size = 0.0
            for n, g in zip(named, found):
                if g is not None:
                    total[n] += g
                    size += g.norm().item()
            self.norms[name] = max(self.norms.get(name, 0), size)
        for n, p in named.items():
            g = torch.zeros_like(p) if p.grad is None else p.grad
            assert_close(g, total[n], rtol=1e-3, atol=1e-6)

    def terms(self, strategy, logits, t):
        terms = {name: logits.sum() * 0 for name in ("new", "function", "replay")}
        for i, x in enumerate(strategy.mb_x):
            replayed, tau = self.known.get(key(x), (None, 1.0))
            f, target = logits[i], one_hot(strategy.mb_y[i], logits.shape[1]).float()
            if replayed is None:
                name, loss = "new", self.entropy(f, target, f > -1000)
            else:
                with torch.no_grad():
                    some = None if t is None else t[i : i + 1]
                    start = forward(self.start, x[None], some)[0]
                own = start > -1000
                f_own = f[: len(start)]
                soft = torch.zeros_like(start)
                soft[own] = (start[own] / 2.0).softmax(0)
                if not replayed:
                    name, loss = "function", self.entropy(f_own / 2.0, soft, own)
                else:
                    wide = torch.zeros_like(f)
                    wide[: len(soft)] = soft
                    loss = self.entropy(f, wide, f > -1000)
                    name, loss = "replay", loss + (f * (wide - target)).sum()
            terms[name] = terms[name] + tau * loss / len(strategy.mb_x)
        return terms | {"ewc": self.energy(strategy)}

    def entropy(self, f, target, own):
        s = self.smoothing
        target = (1 - s) * target[own] + s / int(own.sum())
        return -(target * f[own].log_softmax(0)).sum()

    def energy(self, strategy):
        ewc, k = strategy.plugins[2], strategy.clock.train_exp_counter
        total = strategy.mb_output.new_zeros(()).requires_grad_()
        for n, p in strategy.model.named_parameters():
            if n in ewc.anchor and k:
                h = ewc.importance.get(n, 0) + ewc.prior_precision
                total = total + (h * (p - ewc.anchor[n]).square()).sum() / 2
        strength = ewc.strengths[min(k, len(ewc.strengths)) - 1] if k else 0
        return strength * total / len(strategy.adapted_dataset)

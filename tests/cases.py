"""The toy stream, and every plugin, buffer and strategy the contract is applied to.

A subject is a function ``(**options) -> strategy`` listed in `SUBJECTS`; adding one
there is all it takes to hold it to the contract (`test_contract.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from avalanche.benchmarks import (
    class_incremental_benchmark,
    nc_benchmark,
    task_incremental_benchmark,
)
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from avalanche.training.supervised import Naive
from torch import nn
from torch.optim import SGD
from torch.utils.data import Dataset

from avalanche_ext.buffers import HerdingBuffer, MemorablePastBuffer
from avalanche_ext.models import (
    CosineClassifier,
    FeatureClassifier,
    TaskClassifier,
    TaskIncrementalClassifier,
)
from avalanche_ext.plugins import (
    BalancedFinetuningPlugin,
    BDRPlugin,
    CwDPlugin,
    CWRStarPlugin,
    ExemplarReplayPlugin,
    FunctionalPriorPlugin,
    ImprintingPlugin,
    LatentReplayPlugin,
    LeftOutEWCPlugin,
    LUCIRPlugin,
    MemoryResidentPlugin,
    SynapticIntelligencePlugin,
)
from avalanche_ext.strategies import BDR, LUCIR, EWCFRReplay

N_CLASSES, N_EXPERIENCES, SIDE = 6, 3, 6

#: The forms in which Avalanche gives the same stream.
APIS = ("old", "old_task_labels", "new", "new_task_labels")


class Images(Dataset):
    """Noisy copies of one pattern a class, as float tensors."""

    def __init__(self, per_class: int, seed: int) -> None:
        patterns = torch.Generator().manual_seed(7)
        rng = torch.Generator().manual_seed(seed)
        means = torch.randn(N_CLASSES, 1, SIDE, SIDE, generator=patterns)
        y = torch.arange(N_CLASSES).repeat(per_class)
        noise = torch.randn(len(y), 1, SIDE, SIDE, generator=rng)
        self.tensors = (means[y] + 0.8 * noise, y)
        self.targets = y.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.tensors[0][i], self.targets[i]


def toy_benchmark(api: str = "old") -> Any:
    """Three experiences of two classes, 24 training images each."""
    train, test = Images(24, seed=1), Images(10, seed=2)
    if api.startswith("old"):
        return nc_benchmark(
            train,
            test,
            n_experiences=N_EXPERIENCES,
            task_labels=api.endswith("task_labels"),
            fixed_class_order=list(range(N_CLASSES)),
        )
    benchmark = class_incremental_benchmark(
        {
            "train": as_classification_dataset(train),
            "test": as_classification_dataset(test),
        },
        class_order=list(range(N_CLASSES)),
        num_experiences=N_EXPERIENCES,
    )
    if api.endswith("task_labels"):
        return task_incremental_benchmark(benchmark)
    return benchmark


def toy_extractor() -> nn.Module:
    """A multilayer perceptron with batch normalisation and eight features."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIDE * SIDE, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 8),
    )


def toy_model(cosine: bool = True) -> FeatureClassifier:
    """The extractor with one classifier for all classes."""
    head = CosineClassifier(8) if cosine else nn.Linear(8, N_CLASSES)
    return FeatureClassifier(toy_extractor(), head)


def task_model(n_outputs: int | None = None) -> TaskIncrementalClassifier:
    """The extractor with a head a task."""
    return TaskIncrementalClassifier(toy_extractor(), TaskClassifier(8, n_outputs))


def build(strategy: Callable[..., Any], **options: Any) -> Any:
    """A strategy on the toy model, with everything a user would leave at a default."""
    model = options.pop("model", None) or toy_model()
    evaluator = EvaluationPlugin(
        accuracy_metrics(epoch=True, stream=True, experience=True),
        forgetting_metrics(stream=True),
        loggers=[],
    )
    return strategy(
        model=model,
        **{
            "optimizer": SGD(
                model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4
            ),
            "train_mb_size": 16,
            "train_epochs": 2,
            "eval_mb_size": 64,
            "evaluator": evaluator,
            **options,
        },
    )


def naive_with(*plugins: Any, **options: Any) -> Any:
    """Avalanche's Naive with the plugins."""
    return build(Naive, plugins=[*plugins, *options.pop("plugins", [])], **options)


def _balanced_finetuning(**options: Any) -> Any:
    buffer = HerdingBuffer(per_class=4)
    tuning = BalancedFinetuningPlugin(buffer, epochs=2, batch_size=8, lr=0.1)
    return naive_with(ExemplarReplayPlugin(buffer), tuning, **options)


def _bdr(**options: Any) -> Any:
    # with the cosine classifier as with any other, here one of fixed width
    memory = ExemplarReplayPlugin(HerdingBuffer(per_class=5))
    return naive_with(memory, BDRPlugin(), model=toy_model(cosine=False), **options)


def _cwr_star(**options: Any) -> Any:
    return naive_with(CWRStarPlugin(), model=toy_model(cosine=False), **options)


def _cwr_star_everything(**options: Any) -> Any:
    # with a memory that joins in the data loader
    replay = ReplayPlugin(12, storage_policy=HerdingBuffer(max_size=12))
    cwr = CWRStarPlugin(
        "train_classifier",
        repeat="per_pattern",
        mask_unseen=True,
        buffer=replay.storage_policy,
    )
    return naive_with(cwr, replay, model=toy_model(cosine=False), **options)


def _synaptic_intelligence(strength: float, **options: Any) -> Any:
    o = {k: options.pop(k) for k in ("mode", "trajectory", "scale") if k in options}
    plugin = SynapticIntelligencePlugin(strength, **o)
    return naive_with(plugin, model=toy_model(cosine=False), **options)


def _functional_prior(**options: Any) -> Any:
    prior = FunctionalPriorPlugin(MemorablePastBuffer(6), temperature=2.0)
    return naive_with(prior, model=toy_model(cosine=False), **options)


def _latent_replay(**options: Any) -> Any:
    own = {"latent_layer", "memory_size", "latent_dtype", "freeze_first", "below"}
    own |= {"cache_current", "order", "replacement", "generator"}
    given = {k: options.pop(k) for k in own & options.keys()}
    model = options.pop("model", None) or toy_model()
    plugin = LatentReplayPlugin(
        model,
        **{
            "latent_layer": "feature_extractor.3",
            "input_shape": (1, SIDE, SIDE),
            "memory_size": 20,
            **given,
        },
    )
    return naive_with(plugin, model=model, **options)


def _memorable_past(**options: Any) -> Any:
    buffer = MemorablePastBuffer(5, selection="lambda")
    return naive_with(ExemplarReplayPlugin(buffer), **options)


SUBJECTS: dict[str, Callable[..., Any]] = {
    "BDR": lambda **o: build(BDR, **{"exemplars_per_class": 5, **o}),
    "BDR-everything": lambda **o: build(
        BDR,
        memory_size=20,
        imprint=True,
        balanced_finetuning_epochs=2,
        cwd_experiences="all",
        cwd_normalization="paper",
        dispersion_weights="last_class",
        normalize_features=True,
        generator=torch.Generator().manual_seed(3),
        **o,
    ),
    "BDRPlugin": _bdr,
    "CwDPlugin": lambda **o: naive_with(CwDPlugin(experiences="all"), **o),
    "CWRStarPlugin": _cwr_star,
    "CWRStarPlugin-everything": _cwr_star_everything,
    "EWCFRReplay": lambda **o: build(
        EWCFRReplay, **{"memory_size": 6, "model": task_model(), **o}
    ),
    "EWCFRReplay-everything": lambda **o: build(
        EWCFRReplay,
        model=task_model(N_CLASSES),
        memory_size=12,
        selection="lambda",
        tau=0.5,
        tau2=1.0,
        scale_tau=True,
        temperature=2.0,
        label_smoothing=0.1,
        replay_correction="centred",
        soft_target_transform="train",
        strength=[2.0, None],
        fisher="ggn",
        fisher_outputs="all",
        max_grad_norm=1.0,
        generator=torch.Generator().manual_seed(3),
        **o,
    ),
    "FunctionalPriorPlugin": _functional_prior,
    "LatentReplayPlugin": _latent_replay,
    "LatentReplayPlugin-uint8": lambda **o: _latent_replay(
        latent_dtype="uint8", freeze_first=False, below="adapt", **o
    ),
    "LatentReplayPlugin-cached": lambda **o: _latent_replay(
        cache_current=True,
        latent_dtype="float16",
        model=task_model(),
        generator=torch.Generator().manual_seed(3),
        **o,
    ),
    "LatentReplayPlugin-published": lambda **o: _latent_replay(
        order="published", replacement="published", **o
    ),
    "LeftOutEWCPlugin": lambda **o: naive_with(LeftOutEWCPlugin(10.0), **o),
    "MemorablePastBuffer-in-ExemplarReplayPlugin": _memorable_past,
    "LUCIR": lambda **o: build(LUCIR, **{"exemplars_per_class": 5, **o}),
    "LUCIR-everything": lambda **o: build(
        LUCIR,
        memory_size=20,
        imprint=True,
        balanced_finetuning_epochs=2,
        generator=torch.Generator().manual_seed(3),
        **o,
    ),
    "LUCIRPlugin": lambda **o: naive_with(LUCIRPlugin(), **o),
    "ImprintingPlugin": lambda **o: naive_with(ImprintingPlugin(), **o),
    "BalancedFinetuningPlugin": _balanced_finetuning,
    "SynapticIntelligencePlugin": lambda **o: _synaptic_intelligence(100.0, **o),
    "SynapticIntelligencePlugin-everything": lambda **o: _synaptic_intelligence(
        0.9, mode="learning_rate", trajectory="update", scale=(2.0, 0.5), **o
    ),
    "MemoryResidentPlugin": lambda **o: naive_with(MemoryResidentPlugin(), **o),
    "ExemplarReplayPlugin": lambda **o: naive_with(
        ExemplarReplayPlugin(HerdingBuffer(per_class=5)), **o
    ),
    "ExemplarReplayPlugin-of-Avalanches-buffer": lambda **o: naive_with(
        ExemplarReplayPlugin(ReservoirSamplingBuffer(max_size=12)), **o
    ),
    "HerdingBuffer-in-ReplayPlugin": lambda **o: naive_with(
        ReplayPlugin(12, storage_policy=HerdingBuffer(max_size=12)), **o
    ),
}

#: Loss plugins with weight 0; each must equal Naive bit for bit.
WEIGHTLESS: dict[str, Callable[..., Any]] = {
    "LUCIRPlugin": lambda **o: naive_with(
        LUCIRPlugin(distillation_weight=0.0, margin_weight=0.0), **o
    ),
    "CwDPlugin": lambda **o: naive_with(CwDPlugin(0.0, experiences="all"), **o),
    "FunctionalPriorPlugin": lambda **o: naive_with(
        FunctionalPriorPlugin(MemorablePastBuffer(6), tau=0.0), **o
    ),
    "FunctionalPriorPlugin-without-memory": lambda **o: naive_with(
        FunctionalPriorPlugin(MemorablePastBuffer(0)), **o
    ),
    "LeftOutEWCPlugin": lambda **o: naive_with(LeftOutEWCPlugin(0.0), **o),
    "SynapticIntelligencePlugin": lambda **o: naive_with(
        SynapticIntelligencePlugin(0.0), **o
    ),
    "SynapticIntelligencePlugin-learning_rate": lambda **o: naive_with(
        SynapticIntelligencePlugin(0.0, mode="learning_rate"), **o
    ),
    "MemoryResidentPlugin-False": lambda **o: naive_with(
        MemoryResidentPlugin(memory_resident=False), **o
    ),
}

"""Every plugin, buffer and strategy the contract is applied to.

A subject is a function ``(**options) -> strategy`` listed in `SUBJECTS`; adding one
there is all it takes to hold it to the contract (`test_contract.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from cases import (
    N_CLASSES,
    SIDE,
    build,
    naive_with,
    task_model,
    toy_model,
    warm_model,
)
from mnemonics_strategy_subjects import MNEMONICS
from mnemonics_subjects import MNEMONICS_SUBJECTS
from rerelrp_subjects import freezing_subject, rerelrp_subject
from transfer_subjects import fixed_width_distillation, weight_transfer

from avalanche_ext.buffers import HerdingBuffer, MemorablePastBuffer
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
    MirrorTestPlugin,
    NearestExemplarMeanPlugin,
    ScoreDistillationPlugin,
    SynapticIntelligencePlugin,
)
from avalanche_ext.strategies import BDR, LUCIR, AR1Star, EWCFRReplay


def _ar1_star(**options: Any) -> Any:
    fixed = {"input_shape": (1, SIDE, SIDE), "memory_size": 20}
    return build(AR1Star, **{**fixed, "model": warm_model(), **options})


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


def _nearest_exemplar_mean(predict: bool, **options: Any) -> Any:
    buffer = HerdingBuffer(per_class=4)
    nearest = NearestExemplarMeanPlugin(buffer, predict=predict)
    return naive_with(ExemplarReplayPlugin(buffer), nearest, **options)


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
    "AR1Star": _ar1_star,
    "AR1Star-everything": lambda **o: _ar1_star(
        latent_layer="feature_extractor.1",
        latent_dtype="uint8",
        cache_current=True,
        later_lr=None,
        head_lr_mult=3.0,
        first_epochs=3,
        momentum=(0.1, 0.01),
        growth=0.005,
        cwr_repeat="per_pattern",
        mask_unseen=True,
        si="learning_rate",
        si_trajectory="update",
        generator=torch.Generator().manual_seed(3),
        **o,
    ),
    "AR1Star-below": lambda **o: _ar1_star(
        freeze_first=False,
        below="adapt",
        later_lr=0.05,
        freeze_depthwise=True,
        order="published",
        replacement="published",
        limits="overshoot",
        si="penalty",
        si_strength=100.0,
        **o,
    ),
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
    **MNEMONICS,
    "ReReLRP": rerelrp_subject,
    "ReReLRP-published": lambda **o: rerelrp_subject(
        reference_transform="train",
        prune_head=True,
        mask_batchnorm=False,
        freeze_dropout=True,
        evaluate_unpruned_first=True,
        table="code",
        recognition_pass="each",
        **o,
    ),
    "ReReLRP-everything": lambda **o: rerelrp_subject(
        reference_selection="random",
        composite="epsilon_alpha2_beta1",
        start="one",
        prune_step=2,
        min_units=2,
        patience=2,
        reinitialize_free=True,
        recognition_layers=["feature_extractor.1", "feature_extractor.4"],
        eval_mode="task_aware",
        generator=torch.Generator().manual_seed(3),
        **o,
    ),
    "RelevanceFreezingPlugin": lambda **o: freezing_subject(False, **o),
    "TaskRecognitionPlugin": lambda **o: freezing_subject(True, **o),
    "SynapticIntelligencePlugin": lambda **o: _synaptic_intelligence(100.0, **o),
    "SynapticIntelligencePlugin-everything": lambda **o: _synaptic_intelligence(
        0.9, mode="learning_rate", trajectory="update", scale=(2.0, 0.5), **o
    ),
    "ScoreDistillationPlugin": lambda **o: naive_with(ScoreDistillationPlugin(), **o),
    "ScoreDistillationPlugin-fixed-width": fixed_width_distillation,
    "WeightTransferPlugin": weight_transfer,
    "WeightTransferPlugin-decay-to-one": partial(weight_transfer, True),
    "MemoryResidentPlugin": lambda **o: naive_with(MemoryResidentPlugin(), **o),
    "MirrorTestPlugin": lambda **o: naive_with(MirrorTestPlugin(), **o),
    "NearestExemplarMeanPlugin": lambda **o: _nearest_exemplar_mean(False, **o),
    "NearestExemplarMeanPlugin-predict": lambda **o: _nearest_exemplar_mean(True, **o),
    "ExemplarReplayPlugin": lambda **o: naive_with(
        ExemplarReplayPlugin(HerdingBuffer(per_class=5)), **o
    ),
    "ExemplarReplayPlugin-of-Avalanches-buffer": lambda **o: naive_with(
        ExemplarReplayPlugin(ReservoirSamplingBuffer(max_size=12)), **o
    ),
    "HerdingBuffer-in-ReplayPlugin": lambda **o: naive_with(
        ReplayPlugin(12, storage_policy=HerdingBuffer(max_size=12)), **o
    ),
    **MNEMONICS_SUBJECTS,
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
    "ScoreDistillationPlugin": lambda **o: naive_with(
        ScoreDistillationPlugin(weight=0.0, freeze_old_prototypes=False), **o
    ),
    "SynapticIntelligencePlugin": lambda **o: naive_with(
        SynapticIntelligencePlugin(0.0), **o
    ),
    "SynapticIntelligencePlugin-learning_rate": lambda **o: naive_with(
        SynapticIntelligencePlugin(0.0, mode="learning_rate"), **o
    ),
    "MirrorTestPlugin": lambda **o: naive_with(MirrorTestPlugin(), **o),
    "MemoryResidentPlugin-False": lambda **o: naive_with(
        MemoryResidentPlugin(memory_resident=False), **o
    ),
}

"""AR1* on CORe50 NICv2: the tables of its papers, a recipe a row."""

from __future__ import annotations

from typing import Any

from benchmarks.recipes.ar1_star import SMOKE, ar1_star_setup
from benchmarks.recipes.recipe import Setup, recipe, row


@recipe(
    smoke=SMOKE,
    stream="core50_nicv2_391",
    network="mobilenet",
    weights="pytorchcv",
    latent_layer="conv5_4.dw",
    memory_size=1500,
    train_epochs=4,
    train_mb_size=128,
    lr=1e-3,
    later_lr=5e-5,
    weight_decay=5e-4,
)
def ar1_star_core50(**options: Any) -> Setup:
    """AR1*-free with latent replay on CORe50 NICv2, with the authors' options.

    `--stream_seed` is the run, 0 to 9. The weights of ImageNet are pytorchcv's, which
    fetches them; `--weights` can be a file of theirs. The options are those of the
    authors' PyTorch code but for its slips.
    """
    return ar1_star_setup(**options)


for _n in (196, 79):
    row(
        ar1_star_core50,
        f"ar1_star_core50_{_n}",
        f"AR1*-free with latent replay on NICv2-{_n}.",
        stream=f"core50_nicv2_{_n}",
    )
row(
    ar1_star_core50,
    "ar1_star_core50_replay_per_pattern",
    "The authors' PyTorch code with its slips, which its figures belong to.",
    cwr_repeat="per_pattern",
    order="published",
    replacement="published",
    limits="overshoot",
    std="legacy",
)

# The papers' figures are of the Caffe code. Not as there: limits of r and d in the first
# experience (3 and 5 there), and weight decay of the normalisation (none there).
_CAFFE: dict[str, Any] = {
    "freeze_first": False,
    "below": "adapt",
    "freeze_depthwise": True,
    "later_lr": 3e-4,
    "head_lr_mult": 10.0,
}
_OFTEN = {"renorm_momentum": (0.01, 1e-4)}  # without latents in memory
_LAYERS = [f"conv5_{_i}.dw" for _i in range(1, 7)] + ["conv6.dw", "pool6"]
for _layer in _LAYERS:
    row(
        ar1_star_core50,
        f"ar1_star_core50_{_layer.replace('.', '_')}",
        f"The paper's table of layers on NICv2-391: latents after {_layer}.",
        **_CAFFE,
        latent_layer=_layer,
    )
row(
    ar1_star_core50,
    "ar1_star_core50_images",
    "The paper's table of layers on NICv2-391: native rehearsal, images in memory.",
    **_CAFFE,
    **_OFTEN,
    latent_layer="images",
)

_REHEARSAL_FREE: dict[str, tuple[str, dict[str, Any]]] = {
    "ar1_star_core50{}_no_replay": (
        "AR1* without rehearsal",
        # the Caffe code lets the first convolution rest
        {"latent_layer": "conv1", "si": "learning_rate", "si_trajectory": "update"},
    ),
    "cwr_star_core50{}": (
        "CWR*: of the network only the head is trained, after the first experience,",
        {"latent_layer": "pool6", "below": "frozen", "head_lr_mult": 1.0},
    ),
}
_REHEARSAL_FREE["ar1_star_core50{}_no_replay_bn"] = (
    "AR1* without rehearsal, with batch normalisation,",
    {**_REHEARSAL_FREE["ar1_star_core50{}_no_replay"][1], "batch_renorm": False},
)
for _name, (_title, _options) in _REHEARSAL_FREE.items():
    for _n in (391, 196, 79):
        row(
            ar1_star_core50,
            _name.format("" if _n == 391 else f"_{_n}"),
            f"{_title} on NICv2-{_n}.",
            **{**_CAFFE, **_OFTEN, "later_lr": 1e-3, "memory_size": 0, **_options},
            stream=f"core50_nicv2_{_n}",
        )

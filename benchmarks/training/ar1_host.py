"""Avalanche's ``AR1`` around a network of ours; it only knows its own, and fetches that.

Imports torch and Avalanche: recipes load it when a strategy is made.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any
from unittest.mock import patch

import torch
from avalanche.training.supervised import ar1
from torch import Tensor, nn

from benchmarks.names import UsageError


class SplitNetwork(nn.Module):
    """Blocks in two parts and a linear head, under the names that ``AR1`` asks for.

    Args:
        blocks: Layers one after the other, from the images to features ``(B, D)``.
            Normalisations must be attributes with names: Avalanche does not see those
            that are numbered, as in a plain ``nn.Sequential(conv, norm)``.
        n_lower: How many of them are below the latent activations, at least 1.
        head: Classifier of all classes of the stream, without bias.

    Raises:
        UsageError: If the cut leaves nothing on one side, the head has a bias, or a
            normalisation is numbered.
    """

    def __init__(self, blocks: nn.Sequential, n_lower: int, head: nn.Linear) -> None:
        super().__init__()
        if not 1 <= n_lower < len(blocks):
            raise UsageError(
                f"n_lower is {n_lower}; wanted an integer in 1-{len(blocks) - 1}"
            )
        if head.bias is not None:
            raise UsageError("the head has a bias; wanted none, as CWR* knows none")
        for name, module in blocks.named_modules():
            numbered = name.rpartition(".")[2].isdigit()
            if isinstance(module, nn.BatchNorm2d) and numbered:
                raise UsageError(
                    f"{name} is a normalisation; wanted it under a name without digits "
                    "only, since Avalanche replaces no others"
                )
        layers = list(blocks)
        self.lat_features = nn.Sequential(*layers[:n_lower])
        self.end_features = nn.Sequential(*layers[n_lower:])
        self.output = head

    @property
    def first_upper_layer(self) -> str:
        """Name of the first layer with weights above the latent activations."""
        named = self.end_features.named_modules(prefix="end_features")
        return next(n for n, m in named if list(m.parameters(recurse=False)))

    def forward(
        self,
        x: Tensor,
        latent_input: Tensor | None = None,
        return_lat_acts: bool = False,
    ) -> Any:
        """Logits of a batch, and of latent activations beside it.

        Args:
            x: Images, shape ``(B, C, H, W)``.
            latent_input: Stored activations ``(R, ...)``; with them the lower part
                gets no gradient.
            return_lat_acts: Whether the activations of the images are wanted too.

        Returns:
            Logits ``(B + R, K)``, or logits and activations ``(B, ...)``.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and latent_input is None):
            latents = self.lat_features(x)
        mixed = [latents] if latent_input is None else [latents, latent_input]
        logits = self.output(self.end_features(torch.cat(mixed)))
        return (logits, latents) if return_lat_acts else logits


def split_mobilenet(extractor: nn.Module, latent_layer: str, head: nn.Linear) -> Any:
    """Cut a `MobileNetV1` after one of its layers.

    Args:
        extractor: The network; its modules are used, not copied.
        latent_layer: Name of the last layer below, ``"conv3_1.sep"`` or
            ``"conv3_1/sep"``.
        head: Classifier without bias.

    Returns:
        The `SplitNetwork`.

    Raises:
        UsageError: If the network has no layer of this name to cut after.
    """
    names = list(getattr(extractor, "layer_names", {}).values())
    wanted = latent_layer.replace("/", ".")
    if wanted not in names[:-1]:
        raise UsageError(
            f"latent_layer is {latent_layer!r}; wanted one of "
            f"{', '.join(names[:-1]) or 'a network with named layers: mobilenet'}"
        )
    layers = [extractor.get_submodule(name) for name in names]
    blocks = nn.Sequential(*layers, nn.Flatten())
    return SplitNetwork(blocks, 1 + names.index(wanted), head)


@torch.no_grad()
def row_bytes(network: SplitNetwork, image_shape: tuple[int, int, int]) -> int:
    """Bytes that ``AR1`` keeps of an image: its activations and its label.

    Args:
        network: In training or evaluation; left as it is.
        image_shape: Channels, height and width of the images.

    Returns:
        Of float32 activations and an int64 label.
    """
    # a copy, so that no running statistics move
    lower = copy.deepcopy(network.lat_features).eval()
    return int(lower(torch.zeros(1, *image_shape)).nbytes + 8)


def make_ar1(network: SplitNetwork, **arguments: Any) -> Any:
    """Avalanche's ``AR1`` with a given network: its algorithm, and no download.

    Args:
        network: Takes the place of Avalanche's pretrained MobileNetV1.
        **arguments: Those of ``AR1``, but for the two that say where to cut.

    Returns:
        The strategy, with the network's batch normalisations replaced.
    """
    with warnings.catch_warnings(), patch.object(ar1, "MobilenetV1", _giving(network)):
        warnings.filterwarnings("ignore", message="The AR1 strategy implementation")
        return ar1.AR1(freeze_below_layer=network.first_upper_layer, **arguments)


def _giving(network: nn.Module) -> Any:
    def make(*, pretrained: bool, latent_layer_num: int) -> nn.Module:
        return network

    return make

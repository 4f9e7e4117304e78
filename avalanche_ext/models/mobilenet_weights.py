"""ImageNet weights of MobileNetV1, from pytorchcv."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ext.models.mobilenet import MobileNetV1

_PYTORCHCV = {1.0: "w1", 0.75: "w3d4", 0.5: "wd2", 0.25: "wd4"}


def load_imagenet_weights(
    model: MobileNetV1, source: Mapping[str, Tensor] | str | Path
) -> MobileNetV1:
    """Copy the weights of one of pytorchcv's ``mobilenet_*`` into a model.

    Its classifier (``output.weight``, ``output.bias``) is left out. Only the source
    ``"pytorchcv"`` downloads, and only if pytorchcv has no copy yet.

    Args:
        model: Of the published channels and strides, with batch normalisation:
            conversion to Batch Renormalization comes after.
        source: A state dict of pytorchcv's, the path of one saved, or
            ``"pytorchcv"``, which takes its pretrained model of the same width.
            torchvision has no MobileNetV1, only v2 and v3.

    Returns:
        The model, filled in place.

    Raises:
        ValueError: If the model or the source is none of these, the source cannot be
            read, or its keys or shapes are not the model's; nothing is copied then.

    Example:
        >>> from pytorchcv.models.mobilenet import mobilenet_wd4
        >>> theirs = mobilenet_wd4(pretrained=False)
        >>> ours = load_imagenet_weights(MobileNetV1(width=0.25), theirs.state_dict())
        >>> torch.equal(ours.conv1.conv.weight, theirs.features.init_block.conv.weight)
        True
    """
    if not isinstance(model, MobileNetV1):
        seen = type(model).__name__
        raise ValueError(f"model is a {seen}; wanted a MobileNetV1")  # noqa: TRY004
    theirs = _state(model, source)
    wanted = {key: _pytorchcv_key(key, model) for key in model.state_dict()}
    problems = _differences(model.state_dict(), wanted, theirs)
    if problems:
        raise ValueError(
            f"source has {'; '.join(problems)}; wanted the state dict of pytorchcv's "
            "MobileNet of the same width, for a model with batch normalisation"
        )
    model.load_state_dict({key: theirs[name] for key, name in wanted.items()})
    return model


def _pytorchcv_key(key: str, model: MobileNetV1) -> str:
    """Pytorchcv's name of an entry of our state dict; stages begin with stride 2."""
    first, _, rest = key.partition(".")
    if first == "conv1":
        return f"features.init_block.{rest}"
    stage, unit = 1, 0
    for name, pair in model.named_children():
        if name == "conv1" or not isinstance(pair, nn.Sequential):
            continue
        stride = pair.get_submodule("dw.conv").stride
        stage, unit = (stage + 1, 1) if stride == (2, 2) else (stage, unit + 1)
        if name == first:
            break
    block, _, rest = rest.partition(".")
    part = {"dw": "dw_conv", "sep": "pw_conv"}[block]
    return f"features.stage{stage}.unit{unit}.{part}.{rest}"


def _differences(
    ours: Mapping[str, Tensor], wanted: Mapping[str, str], theirs: Mapping[str, Tensor]
) -> list[str]:
    missing = [name for name in wanted.values() if name not in theirs]
    known = {*wanted.values(), "output.weight", "output.bias"}
    unexpected = [str(name) for name in theirs if name not in known]
    shapes = [
        f"{name} {tuple(theirs[name].shape)} for {tuple(ours[key].shape)}"
        for key, name in wanted.items()
        if name in theirs and theirs[name].shape != ours[key].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "shapes": shapes}
    return [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
        for kind, names in found.items()
        if names
    ]


def _state(
    model: MobileNetV1, source: Mapping[str, Tensor] | str | Path
) -> Mapping[str, Tensor]:
    if source == "torchvision":
        raise ValueError(
            "source is 'torchvision', which has no MobileNetV1 (only v2 and v3); "
            "wanted 'pytorchcv', a state dict or a path"
        )
    if source == "pytorchcv":
        return _pretrained(model)
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            raise ValueError(
                f"source is {str(source)!r}; wanted 'pytorchcv', a state dict or the "
                "path of a file"
            )
        source = _read(source)
    if not isinstance(source, Mapping):
        seen = type(source).__name__
        raise ValueError(f"source is a {seen}; wanted a state dict")  # noqa: TRY004
    for name, value in source.items():
        if not isinstance(value, Tensor):
            seen = type(value).__name__
            raise ValueError(  # noqa: TRY004
                f"source has a {seen} under {name!r}; wanted tensors only"
            )
    return source


def _read(path: str | Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # junk ends in any kind of them
        raise ValueError(
            f"source is {str(path)!r}, which torch cannot load "
            f"({type(error).__name__}); wanted the file of a state dict"
        ) from error


def _pretrained(model: MobileNetV1) -> Mapping[str, Tensor]:
    width = model.feature_size / 1024
    if width not in _PYTORCHCV:
        raise ValueError(
            f"model has {model.feature_size} features; wanted 1024, 768, 512 or 256: "
            "pytorchcv has no other pretrained MobileNetV1"
        )
    networks = importlib.import_module("pytorchcv.models.mobilenet")
    theirs = getattr(networks, f"mobilenet_{_PYTORCHCV[width]}")(pretrained=True)
    state: Mapping[str, Tensor] = theirs.state_dict()
    return state

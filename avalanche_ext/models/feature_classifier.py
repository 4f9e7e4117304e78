"""What a model must offer for its features to be used, and how to make one."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from avalanche.models import FeatureExtractorModel, avalanche_forward
from torch import Tensor, nn

from avalanche_ext._checks import require_kind
from avalanche_ext.models.cosine_classifier import CosineClassifier


class FeatureClassifier(FeatureExtractorModel):
    """A feature extractor followed by a classifier; keeps the batch's features.

    This is the contract of every plugin here that reads features: after
    ``model(x)``, ``model.features`` holds the classifier's input, shape ``(B, D)``,
    with its graph. Avalanche's own `FeatureExtractorModel` fulfils it as well; this
    one can also be copied and pickled between batches, and checks shapes.

    Args:
        feature_extractor: Maps a batch of inputs to features ``(B, D)``.
        train_classifier: Maps ``(B, D)`` to logits ``(B, K)``.

    Attributes:
        features: Features of the last batch, ``(B, D)``; None before the first.

    Raises:
        ValueError: If a part is no module; at the first forward pass, if the
            features are not ``(B, D)``.

    Example:
        >>> model = FeatureClassifier(nn.Flatten(), CosineClassifier(64, n_classes=2))
        >>> model(torch.randn(5, 1, 8, 8)).shape, model.features.shape
        (torch.Size([5, 2]), torch.Size([5, 64]))
    """

    features: Tensor | None

    def __init__(
        self, feature_extractor: nn.Module, train_classifier: nn.Module
    ) -> None:
        require_kind(
            nn.Module,
            feature_extractor=feature_extractor,
            train_classifier=train_classifier,
        )
        super().__init__(feature_extractor, train_classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch; stores its features.

        Args:
            x: Inputs, first axis B.

        Returns:
            Logits, shape ``(B, K)``.
        """
        features = self.feature_extractor(x)
        if not isinstance(features, Tensor) or features.ndim != 2:
            seen = getattr(features, "shape", type(features).__name__)
            raise ValueError(
                f"the feature extractor returned {seen}; wanted a tensor of shape "
                "(B, D): remove its classifier, or flatten or pool its output"
            )
        self.features = features
        logits: Tensor = self.train_classifier(features)
        return logits

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave the last batch's graph behind."""
        return {**super().__getstate__(), "features": None}


def as_feature_classifier(
    model: nn.Module, train_classifier: nn.Module | None = None
) -> FeatureClassifier:
    """Split a classification network at its last linear layer.

    Works for torchvision's classifiers (ResNet, VGG, DenseNet, MobileNet, ViT, ...)
    and for any network whose last `torch.nn.Linear` gives the logits.

    Args:
        model: The network; a copy of it is used, the original stays as it is.
        train_classifier: What takes the place of the last layer; by default a
            `CosineClassifier` without classes.

    Returns:
        A model whose features are the last linear layer's input.

    Raises:
        ValueError: If the network has no linear layer, or the classifier takes
            another number of features.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 10))
        >>> as_feature_classifier(net).train_classifier.feature_size
        16
    """
    require_kind(nn.Module, model=model)
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not linear or linear[-1] == "":
        raise ValueError(
            f"{type(model).__name__} has no linear layer after other layers; wanted "
            "one to split at: build FeatureClassifier(feature_extractor, classifier)"
        )
    feature_extractor = copy.deepcopy(model)
    last = feature_extractor.get_submodule(linear[-1])
    parent, _, name = linear[-1].rpartition(".")
    setattr(feature_extractor.get_submodule(parent), name, nn.Identity())
    size = int(last.in_features)  # type: ignore[arg-type]
    train_classifier = train_classifier or CosineClassifier(size)
    wanted = getattr(train_classifier, "feature_size", size)
    if wanted != size:
        raise ValueError(
            f"the classifier takes {wanted} features; wanted {size}, as many as the "
            f"last layer of {type(model).__name__}"
        )
    return FeatureClassifier(feature_extractor, train_classifier)


def require_features(model: nn.Module) -> None:
    """Refuse a model that does not expose the features of its last batch.

    Args:
        model: Any model.

    Raises:
        ValueError: If ``model.features`` does not exist or is a layer.
    """
    # torchvision's VGG has a layer of that name.
    exposed = not isinstance(getattr(model, "features", model), nn.Module)
    if not exposed:
        raise ValueError(
            f"{type(model).__name__} does not expose its features; wanted a "
            "FeatureClassifier: as_feature_classifier(model) makes one"
        )


def require_cosine_classifier(model: nn.Module) -> CosineClassifier:
    """The cosine classifier of a feature classifier.

    Args:
        model: A model as in `FeatureClassifier`.

    Returns:
        Its ``train_classifier``.

    Raises:
        ValueError: If the model has no features, or its classifier is not cosine.
    """
    require_features(model)
    head = getattr(model, "train_classifier", None)
    if isinstance(head, CosineClassifier):
        return head
    raise ValueError(
        f"the classifier is a {type(head).__name__}; wanted a CosineClassifier: "
        "FeatureClassifier(feature_extractor, CosineClassifier(feature_size))"
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; every module's own mode is put back.

    Args:
        model: Any module.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def extract_features(
    model: nn.Module, batches: Iterable[list[Tensor]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features and targets of a whole data set, in evaluation mode.

    Args:
        model: A model as in `FeatureClassifier`; found as it was.
        batches: ``[x, y, ...]``, as `avalanche_ext.loaders.make_loader` gives.
        device: Where the model is.

    Returns:
        Features ``(N, D)`` and targets ``(N,)``, on the device.
    """
    features, targets = [], []
    with evaluating(model):
        for batch in batches:
            # the last field is the task label, for models with several heads
            avalanche_forward(model, batch[0].to(device), batch[-1].to(device))
            features.append(model.features)
            targets.append(batch[1].to(device))
    return torch.cat(features), torch.cat(targets)  # type: ignore[arg-type]

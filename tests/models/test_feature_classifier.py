"""Models that expose their features."""

from __future__ import annotations

import copy

import pytest
import torch
from avalanche.models import FeatureExtractorModel
from torch import nn
from torch.testing import assert_close
from torchvision.models import mobilenet_v3_small, resnet18, vgg11

from avalanche_ext.models.cosine_classifier import CosineClassifier
from avalanche_ext.models.feature_classifier import (
    FeatureClassifier,
    as_feature_classifier,
    evaluating,
    extract_features,
    require_cosine_classifier,
    require_features,
)


def small():
    return FeatureClassifier(nn.Flatten(), CosineClassifier(4, n_classes=2))


def test_features_are_what_the_classifier_sees_with_their_graph(rng):
    model = FeatureClassifier(nn.Linear(3, 4), nn.Linear(4, 2))
    out = model(torch.randn(5, 3, generator=rng))
    assert_close(model.train_classifier(model.features), out)
    assert model.features.requires_grad


def test_a_model_can_be_copied_between_forward_and_backward(rng):
    model = FeatureClassifier(nn.Linear(3, 4), nn.Linear(4, 2))
    model(torch.randn(5, 3, generator=rng))
    assert copy.deepcopy(model).features is None and model.features is not None


@pytest.mark.parametrize("extractor", [nn.Identity(), nn.LSTM(8, 4)])
def test_an_extractor_without_flat_features_is_refused(extractor):
    model = FeatureClassifier(extractor, CosineClassifier(4, n_classes=2))
    with pytest.raises(ValueError, match="wanted a tensor of shape"):
        model(torch.ones(2, 3, 8))


@pytest.mark.parametrize(
    ("network", "size"), [(resnet18, 512), (vgg11, 4096), (mobilenet_v3_small, 1024)]
)
def test_torchvision_classifiers_are_split_at_their_last_layer(network, size):
    with torch.device("meta"):
        net = network()
        model = as_feature_classifier(net, nn.Linear(size, 3))
        assert model(torch.empty(2, 3, 64, 64)).shape == (2, 3)
    assert model.features.shape == (2, size)
    assert sum(isinstance(m, nn.Linear) for m in net.modules()) >= 1


def test_parts_that_do_not_fit_are_refused_at_construction():
    with pytest.raises(ValueError, match="train_classifier is None; wanted a Module"):
        FeatureClassifier(nn.Flatten(), None)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="takes 7 features; wanted 4"):
        as_feature_classifier(net, CosineClassifier(7))


def test_splitting_leaves_the_original_network_alone():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    as_feature_classifier(net)
    assert isinstance(net[1], nn.Linear)


@pytest.mark.parametrize("net", [nn.Linear(3, 2), nn.Sequential(nn.ReLU())])
def test_a_network_without_a_last_linear_layer_is_refused(net):
    with pytest.raises(ValueError, match="has no linear layer after"):
        as_feature_classifier(net)


def test_models_without_features_are_refused_with_the_cure():
    require_features(small())
    require_features(FeatureExtractorModel(nn.Flatten(), nn.Linear(4, 2)))
    with torch.device("meta"):
        vgg = vgg11()
    for model in (nn.Linear(4, 2), vgg):
        with pytest.raises(ValueError, match="as_feature_classifier"):
            require_features(model)


def test_a_classifier_that_is_not_cosine_is_refused():
    assert isinstance(require_cosine_classifier(small()), CosineClassifier)
    with pytest.raises(ValueError, match="a Linear; wanted a CosineClassifier"):
        require_cosine_classifier(FeatureClassifier(nn.Flatten(), nn.Linear(4, 2)))


def test_evaluating_puts_every_mode_back_also_after_an_error():
    model = nn.Sequential(nn.BatchNorm1d(2).eval(), nn.Dropout())
    with pytest.raises(RuntimeError, match="stop"), evaluating(model):
        assert not model.training and not torch.is_grad_enabled()
        raise RuntimeError("stop")
    assert [m.training for m in model.modules()] == [True, False, True]
    assert torch.is_grad_enabled()


def test_extracted_features_are_those_of_evaluation_mode(rng):
    model = FeatureClassifier(nn.BatchNorm1d(4), CosineClassifier(4, n_classes=2))
    before = copy.deepcopy(model.state_dict())
    x, y = torch.randn(6, 4, generator=rng), torch.arange(6) % 2
    batches = [[x[:4], y[:4]], [x[4:], y[4:]]]
    features, targets = extract_features(model, batches, torch.device("cpu"))
    assert_close(features, x / (1 + 1e-5) ** 0.5)
    assert torch.equal(targets, y) and not features.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])

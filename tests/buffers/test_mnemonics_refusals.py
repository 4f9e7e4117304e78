"""What the buffer of optimised exemplars refuses, and that it says why."""

from __future__ import annotations

import pytest
import torch
from cases import task_model
from mnemonics_cases import agent, experience, fill, quick, small_model
from torch import nn
from torchvision.transforms import (
    Compose,
    RandomHorizontalFlip,
    RandomRotation,
    ToTensor,
)

from avalanche_ext.buffers import HerdingBuffer, MnemonicsBuffer


def made(**options):
    return MnemonicsBuffer(**{"optimizer": quick(), "per_class": 4, **options})


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"selection": "nearest"}, "selection is 'nearest'"),
        ({"max_size": 4}, "wanted one of the two"),
        ({"per_class": 0}, "per_class is 0"),
        ({"selection": HerdingBuffer()}, "with a buffer as selection"),
        ({"optimizer": "slow"}, "optimizer is 'slow'"),
        ({"optimizer": object()}, "wanted a MnemonicsOptimizer"),
        ({"storage_dtype": "float16"}, "storage_dtype is 'float16'"),
        ({"buffer_transform": ToTensor()}, r"ToTensor\(\) fails on a float tensor"),
        ({"buffer_transform": Compose([lambda i: i.size(2)])}, "makes int"),
        ({"mean": 0.5}, "mean is 0.5"),
        ({"std": [0.0]}, "std is"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"memory_resident": "always"}, "memory_resident is 'always'"),
        ({"generator": 3}, "wanted a Generator"),
        ({"progress": 1}, "progress is 1"),
    ],
)
def test_arguments_are_refused_at_construction(arguments, text):
    with pytest.raises(ValueError, match=text):
        made(**arguments)


@pytest.mark.parametrize(
    "options, data, text",
    [
        ({"mean": [0.5] * 3, "std": [1.0] * 3}, {}, "wanted 1 or 1, one for each"),
        ({"mean": [0.5], "std": [1.0]}, {}, "wanted 0 to 1: give mean and std"),
        ({"buffer_transform": lambda i: i[:, 1:]}, {}, r"makes \(1, 5, 6\)"),
        ({}, {"augment": [RandomRotation(9)]}, "buffer_transform= given"),
    ],
)
def test_data_that_do_not_fit_are_refused_without_a_trace(options, data, text):
    buffer = made(**options)
    with pytest.raises(ValueError, match=text):
        fill(buffer, experience((0, 1), **data))
    assert len(buffer.buffer) == 0 and buffer.images() == {}
    assert buffer.n_experiences == 0


def test_augmentation_is_that_of_the_data_another_or_none():
    exp = experience((0, 1), augment=[RandomHorizontalFlip(0.3)])
    assert "p=0.3" in repr(fill(made(), exp).exemplars.augment)
    assert fill(made(buffer_transform=None), exp).exemplars.augment is None
    own = nn.Dropout()
    assert fill(made(buffer_transform=own), exp).exemplars.augment is own


def test_another_normalisation_in_a_later_experience_is_refused():
    buffer = fill(made(), experience((0, 1), normalize=([0.4], [0.2])))
    with pytest.raises(ValueError, match="wanted the same: give mean and std"):
        fill(buffer, experience((2, 3), normalize=([0.5], [0.2])))


def test_a_head_a_task_is_refused():
    with pytest.raises(ValueError, match="has a head a task; wanted one head"):
        fill(made(), experience((0, 1)), host=agent(task_model()))


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_state_of_another_data_type_is_refused(dtype):
    other = {"float32": "uint8", "uint8": "float32"}[dtype]
    exp = experience((0, 1))
    state = fill(made(storage_dtype=other), exp).state_dict()
    with pytest.raises(ValueError, match=f"saved as {other}; wanted {dtype}"):
        made(storage_dtype=dtype).load_state_dict(state, [exp])


def test_a_state_with_a_generator_is_refused_without_one_and_the_reverse():
    own = {"generator": torch.Generator()}
    for ours, theirs in (({}, own), (own, {})):
        with pytest.raises(ValueError, match="a generator; wanted the same"):
            made(**ours).load_state_dict(made(**theirs).state_dict(), [])


def test_a_state_of_another_kind_of_selection_is_refused():
    kinds = ["random", HerdingBuffer(per_class=4)]
    for ours, theirs in (kinds, kinds[::-1]):
        sizes = [{} if isinstance(k, str) else {"per_class": None} for k in kinds]
        of = dict(zip(map(id, kinds), sizes))
        state = made(selection=theirs, **of[id(theirs)]).state_dict()
        with pytest.raises(ValueError, match="exemplars were selected by .*wanted the"):
            made(selection=ours, **of[id(ours)]).load_state_dict(state, [])


def test_only_a_total_budget_can_be_changed():
    with pytest.raises(ValueError, match="made with max_size"):
        made().resize(None, 10)
    buffer = MnemonicsBuffer(max_size=4)
    for wrong in (0, 2.5, "3", None):
        with pytest.raises(ValueError, match=f"new_size is {wrong!r}"):
            buffer.resize(None, wrong)
    assert buffer.max_size == 4


def test_features_are_asked_of_the_model_only_where_needed():
    host, exp = agent(nn.Sequential(nn.Flatten(), nn.Linear(36, 6))), experience((0, 1))
    assert len(fill(made(), exp, host=host).buffer) == 8
    for options, text in (
        ({"selection": "herding"}, "does not expose its features"),
        ({"optimizer": quick(objective="bilevel_head")}, "train_classifier"),
        ({"optimizer": quick(objective="ncm")}, "no feature_extractor"),
    ):
        with pytest.raises(ValueError, match=text):
            fill(made(**options), exp, host=host)


def test_a_model_that_diverged_leaves_exemplars_as_selected_with_a_warning():
    model = small_model()
    model.train_classifier.bias.data[0] = torch.inf
    buffer = made()
    with pytest.warns(UserWarning, match="not finite"):
        fill(buffer, experience((0, 1)), host=agent(model))
    for label, images in buffer.initial(0).items():
        assert torch.equal(buffer.images()[label], images)


def test_outputs_that_are_nan_are_not_taken_for_one_class():
    model = small_model()
    model.train_classifier.bias.data[:] = torch.nan
    with pytest.warns(UserWarning, match="not finite: did training diverge"):
        fill(made(), experience((0, 1)), host=agent(model))


@pytest.mark.parametrize("shape", [(36,), (6, 6), ()])
def test_inputs_that_are_no_images_are_refused(shape):
    buffer = made()
    with pytest.raises(ValueError, match="wanted images"):
        fill(buffer, experience((0, 1), shape=shape), host=agent(small_model(shape)))
    assert buffer.images() == {}

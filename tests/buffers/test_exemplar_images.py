"""Images of exemplars, kept as tensors of their own."""

from __future__ import annotations

import copy

import pytest
import torch
from mnemonics_cases import CPU, chosen, stored
from torch.utils.data import DataLoader
from torchvision.transforms import RandomVerticalFlip

from avalanche_ext.buffers.exemplar_images import ExemplarImages
from avalanche_ext.buffers.exemplar_steps import Exemplars
from avalanche_ext.loaders import make_loader

dtypes = pytest.mark.parametrize("dtype", ["float32", "uint8"])


def stack(data):
    return torch.stack([item[0] for item in data])


@dtypes
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 6, 6)])
def test_evaluation_items_are_the_inputs_that_are_optimised(dtype, shape):
    kept = stored(dtype, shape=shape, mean=(0.4, 0.5, 0.6)[: shape[0]])
    inputs, data = kept.inputs([7, 3], CPU), kept.dataset()
    assert torch.equal(stack(data.eval()), inputs.x)
    assert list(data.targets) == inputs.y.tolist() == [7, 7, 7, 3, 3]
    for x, y in DataLoader(data.eval(), batch_size=5):
        assert torch.equal(x, inputs.x) and torch.equal(y, inputs.y)


@dtypes
def test_images_in_memory_are_the_same_ones(dtype):
    kept = stored(dtype)
    kept.augment = RandomVerticalFlip(1.0)
    for data in (kept.dataset().eval(), kept.dataset().train()):
        loader = make_loader(
            *(data,), batch_size=5, shuffle=False, device=CPU, memory_resident=True
        )
        [(x, y)] = loader
        assert torch.equal(x, stack(data)) and y.tolist() == list(data.targets)


@dtypes
def test_augmentation_is_that_of_training_only_and_acts_on_pixels(dtype):
    kept = stored(dtype)
    kept.augment = lambda image: 1 - image  # on inputs it would be another thing
    x = kept.inputs([7, 3], CPU).x
    space = kept.space
    negative = space.normalized(1 - space.unnormalized(x), CPU)
    data = kept.dataset()
    assert torch.allclose(stack(data), negative, atol=1e-5)  # as a stream's data
    assert torch.equal(stack(data.eval()), x)


def test_task_labels_are_kept_where_there_are_some():
    kept = stored(sizes=())
    for label, task in ((7, 2), (3, 5)):
        x = kept.space.normalized(torch.rand(2, 3, 4, 4), CPU)
        kept.put(label, chosen(x, task_labels=torch.tensor([task] * 2)), 0)
    kept.shrink(lambda label: 1)
    assert [item[1:] for item in kept.dataset()] == [[7, 2], [3, 5]]
    again = chosen(kept.inputs([7], CPU).x, stored=torch.tensor([0]))
    kept.put(7, again, 1)
    assert [item[1:] for item in kept.dataset()] == [[7, 2], [3, 5]]


def test_classes_that_fit_are_left_alone_when_others_shrink():
    kept = stored()
    before = dict(kept.pixels), dict(kept.rows)
    kept.shrink({7: 1, 3: 2}.__getitem__)
    for now, then in zip((kept.pixels, kept.rows), before):
        assert now[3] is then[3] and torch.equal(now[7], then[7][:1])


def test_images_are_replaced_in_any_order_of_classes():
    kept = stored("uint8")
    before, old = kept.inputs([7, 3], CPU), copy.deepcopy(kept.pixels)
    order = torch.tensor([3, 0, 1, 4, 2])
    x = before.x.clone()
    x[0] = kept.space.normalized(torch.ones_like(x[:1]), CPU)[0]
    kept.replace(Exemplars(x[order], before.y[order]))
    assert (kept.pixels[7][0] == 255).all()
    assert torch.equal(kept.pixels[7][1:], old[7][1:])
    assert torch.equal(kept.pixels[3], old[3])


def test_rows_say_where_each_exemplar_came_from_also_when_chosen_again():
    kept = stored(sizes=(3,))
    assert kept.rows[7].tolist() == [[0, 0], [0, 1], [0, 2]]
    new = chosen(kept.inputs([7], CPU).x)
    new = new._replace(
        stored=torch.tensor([2, -1, 0]), position=torch.tensor([-1, 9, -1])
    )
    kept.put(7, new, 4)
    assert kept.rows[7].tolist() == [[0, 2], [4, 9], [0, 0]]


def test_shrinking_keeps_the_beginning_of_each_class():
    kept = stored()
    before, rows = dict(kept.pixels), dict(kept.rows)
    kept.shrink(lambda label: {7: 2, 3: 0}[label])
    assert torch.equal(kept.pixels[7], before[7][:2])
    assert torch.equal(kept.rows[7], rows[7][:2])
    assert len(kept.pixels[3]) == 0
    assert list(kept.dataset().targets) == [7, 7]
    assert kept.inputs([3], CPU) is None
    kept.shrink(lambda label: -1)
    assert len(kept.dataset()) == 0


@dtypes
def test_only_images_that_changed_are_replaced(dtype):
    kept = stored(dtype)
    if dtype == "float32":  # of which some would move by rounding
        kept.pixels = {c: torch.rand(p.shape) for c, p in kept.pixels.items()}
        inputs = kept.inputs([7, 3], CPU)
        assert not torch.equal(kept.space.pixels(inputs.x)[:3], kept.pixels[7])
    before = copy.deepcopy(kept.pixels)
    inputs = kept.inputs([7, 3], CPU)
    kept.replace(inputs)
    assert all(torch.equal(kept.pixels[c], before[c]) for c in before)
    moved = inputs.x.clone()
    moved[3:] = kept.space.normalized(torch.full((2, 3, 4, 5), 0.2), CPU)
    kept.replace(Exemplars(moved, inputs.y))
    assert torch.equal(kept.pixels[7], before[7])
    wanted = torch.full_like(before[3], 51 if dtype == "uint8" else 0.2)
    torch.testing.assert_close(kept.pixels[3], wanted)


@dtypes
def test_bytes_are_counted_and_in_memory_once(dtype):
    kept = stored(dtype)
    pixels = 5 * 3 * 4 * 5
    assert kept.nbytes() == {"float32": 4 * pixels, "uint8": pixels}
    data = kept.dataset()
    [leaf] = data._flat_data._datasets
    storages = {p.untyped_storage().data_ptr() for p in kept.pixels.values()}
    assert storages == {leaf[0][0].untyped_storage().data_ptr()}
    assert kept.floats(7).untyped_storage().data_ptr() not in storages


@dtypes
def test_state_restores_everything_bit_for_bit(dtype):
    kept, other = stored(dtype), ExemplarImages(dtype)
    kept.shrink(lambda label: 2)
    other.load_state_dict(kept.state_dict())
    assert list(other.pixels) == list(kept.pixels)
    for name in ("pixels", "rows"):
        for label, wanted in getattr(kept, name).items():
            assert torch.equal(getattr(other, name)[label], wanted)
    assert torch.equal(other.inputs([3, 7], CPU).x, kept.inputs([3, 7], CPU).x)
    assert torch.equal(stack(other.dataset().eval()), stack(kept.dataset().eval()))


@dtypes
def test_images_of_another_data_type_are_refused(dtype):
    other = ExemplarImages({"float32": "uint8", "uint8": "float32"}[dtype])
    with pytest.raises(ValueError, match=f"saved as {dtype}; wanted {other.dtype}"):
        other.load_state_dict(stored(dtype).state_dict())


def test_nothing_stored_is_an_empty_data_set():
    kept = ExemplarImages("uint8")
    assert len(kept.dataset()) == 0
    assert kept.inputs([1], CPU) is None
    assert kept.nbytes() == {"float32": 0, "uint8": 0}
    other = ExemplarImages("uint8")
    other.load_state_dict(kept.state_dict())
    assert other.space is None and other.pixels == {}

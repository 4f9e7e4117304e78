"""Batches from memory are those of the normal loader, or equally distributed."""

from __future__ import annotations

import gc
import random
import weakref
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tvf
from avalanche.benchmarks import (
    benchmark_from_datasets,
    class_incremental_benchmark,
    nc_benchmark,
    ni_benchmark,
    task_incremental_benchmark,
)
from avalanche.benchmarks.classic.cmnist import PixelsPermutation
from avalanche.benchmarks.datasets.external_datasets.mnist import TensorMNIST
from avalanche.benchmarks.utils import (
    AvalancheDataset,
    DataAttribute,
    DefaultTransformGroups,
    TransformGroups,
    as_classification_dataset,
    make_avalanche_dataset,
)
from avalanche.benchmarks.utils.classification_dataset import (
    _make_taskaware_classification_dataset,
    _make_taskaware_tensor_classification_dataset,
    _taskaware_classification_subset,
    lookup,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision import transforms as T
from torchvision.datasets import CIFAR100, FashionMNIST, ImageFolder
from torchvision.transforms import v2

from avalanche_ext.loaders import ResidentLoader, image_bytes, make_loader, store

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
PLAIN = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)])
RANDOM = T.Compose([T.RandomCrop(8, 2), T.RandomHorizontalFlip(), PLAIN])


class Colour(CIFAR100):
    """CIFAR-100's class over random images of 8x8."""

    def __init__(self, n=60, n_classes=6, seed=0, transform=None):
        pixels = np.random.RandomState(seed).randint(0, 256, (n, 3, 8, 8), np.uint8)
        self.data = pixels.transpose(0, 2, 3, 1)  # lies in memory as the real one does
        self.targets = [i % n_classes for i in range(n)]
        self.transform, self.target_transform = transform, None


def _grey(cls, n=60):
    data = cls.__new__(cls)
    data.data = torch.randint(0, 256, (n, 9, 9), dtype=torch.uint8)
    data.targets = torch.arange(n) % 6
    data.transform = data.target_transform = None
    return data


class Own(Dataset):
    """A class of the user's own."""

    def __init__(self, items):
        self.items = items
        self.targets = [y for _, y, *_ in items]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def with_transforms(*transforms, leaf=None):
    """Avalanche data whose only transforms are these."""
    groups = TransformGroups({"train": (T.Compose(transforms), None)})
    return as_classification_dataset(leaf or Colour(), groups)


def epoch(loader):
    return [list(batch) for batch in loader]


def assert_same_epoch(dataset, batch_size=7, **kwargs):
    """The resident loader gives, bit for bit, what Avalanche's data give by torch's."""
    kwargs = {"shuffle": False, "device": "cpu", "memory_resident": True, **kwargs}
    ours = make_loader(dataset, batch_size=batch_size, **kwargs)
    assert isinstance(ours, ResidentLoader)
    theirs = DataLoader(dataset, batch_size=batch_size)
    assert len(ours) == len(theirs)
    for mine, other in zip(epoch(ours), epoch(theirs), strict=True):
        assert len(mine) == len(other)
        for a, b in zip(mine, other, strict=True):
            assert a.dtype == b.dtype and a.is_contiguous()
            assert torch.equal(a, b)


def _streams(kind):
    """A benchmark of one of the kinds Avalanche knows, deterministic when evaluating."""
    groups = {"train": (RANDOM, None), "eval": (PLAIN, None)}
    old = {
        "n_experiences": 3,
        "seed": 1,
        "train_transform": RANDOM,
        "eval_transform": PLAIN,
        "class_ids_from_zero_from_first_exp": True,
    }
    new = {
        part: as_classification_dataset(Colour(seed=i), TransformGroups(groups))
        for i, part in enumerate(("train", "test"))
    }
    if kind.startswith("nc"):
        labels = kind == "nc, task labels"
        return nc_benchmark(Colour(), Colour(seed=1), task_labels=labels, **old)
    if kind == "nc, own ids":
        old["class_ids_from_zero_from_first_exp"] = False
        return nc_benchmark(Colour(), Colour(seed=1), task_labels=True, **old)
    if kind == "ni":
        del old["class_ids_from_zero_from_first_exp"]
        return ni_benchmark(Colour(), Colour(seed=1), **old)
    if kind == "class incremental":
        return class_incremental_benchmark(new, num_experiences=3, seed=1)
    if kind == "class incremental, raw":
        raw = {p: Colour(transform=PLAIN) for p in ("train", "test")}
        return class_incremental_benchmark(raw, num_experiences=3, seed=1)
    if kind == "task incremental":
        return task_incremental_benchmark(
            class_incremental_benchmark(new, num_experiences=3, seed=1)
        )
    return benchmark_from_datasets(train=[new["train"]], test=[new["test"]])


# Avalanche warns of the groups that nodes below the top are in; they do not matter
@pytest.mark.filterwarnings("ignore:Concatenated datasets have different")
@pytest.mark.parametrize(
    "kind",
    [
        "nc",
        "nc, task labels",
        "nc, own ids",
        "ni",
        "class incremental",
        "class incremental, raw",
        "task incremental",
        "from datasets",
    ],
)
def test_batches_equal_avalanches_on_every_kind_of_benchmark(kind):
    benchmark = _streams(kind)
    for stream in (benchmark.train_stream, benchmark.test_stream):
        for experience in stream:
            assert_same_epoch(experience.dataset.eval())
    last = [*benchmark.train_stream][-1].dataset
    first = benchmark.test_stream[0].dataset
    assert_same_epoch(last.eval().concat(first.eval().subset([1, 3])))


def test_task_labels_are_in_a_batch_exactly_when_avalanche_puts_them_there():
    lengths = {
        kind: len(
            next(iter(make_loader(data, batch_size=4, shuffle=True, device="cpu")))
        )
        for kind in ("nc", "class incremental", "class incremental, raw")
        for data in [_streams(kind).train_stream[1].dataset]
    }
    assert lengths == {"nc": 3, "class incremental": 2, "class incremental, raw": 3}


@pytest.mark.parametrize(
    "make", [lambda: _grey(TensorMNIST), lambda: _grey(FashionMNIST)]
)
def test_batches_equal_avalanches_on_mnist_and_its_relatives(make):
    own = () if make().__class__ is TensorMNIST else (T.ToTensor(),)
    transform = T.Compose([*own, T.Normalize((0.1307,), (0.3081,))])
    benchmark = nc_benchmark(
        make(), make(), 2, False, seed=0, train_transform=transform
    )
    assert_same_epoch(benchmark.train_stream[1].dataset)


@pytest.mark.parametrize(
    "frozen",
    [PixelsPermutation(torch.randperm(81)), T.RandomRotation((33, 33))],
    ids=["permuted", "rotated"],
)
def test_batches_equal_avalanches_on_permuted_and_rotated_mnist(frozen):
    frozen_group = DefaultTransformGroups((frozen, None))
    data = make_avalanche_dataset(
        _make_taskaware_classification_dataset(_grey(TensorMNIST)),
        frozen_transform_groups=frozen_group,
    )
    benchmark = nc_benchmark(
        [data], [data], 1, True, one_dataset_per_exp=True, shuffle=False,
        train_transform=T.Normalize((0.1307,), (0.3081,)),
    )  # fmt: skip
    state = torch.get_rng_state()
    loader = make_loader(
        benchmark.train_stream[0].dataset, batch_size=9, shuffle=False, device="cpu"
    )
    epoch(loader)
    assert torch.equal(state, torch.get_rng_state())
    assert_same_epoch(benchmark.train_stream[0].dataset)


DETERMINISTIC = {
    "v1": PLAIN,
    "v2": v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    ),
    "bytes": T.PILToTensor(),
    "bytes to float": T.Compose([T.PILToTensor(), T.ConvertImageDtype(torch.float32)]),
    "pad and centre crop": T.Compose([T.Pad((1, 2), 9), T.CenterCrop(7), T.ToTensor()]),
    "resize": T.Compose([T.Resize(5), T.CenterCrop(4), T.ToTensor()]),
    "resize tensors": T.Compose([T.ToTensor(), T.Resize(5, antialias=True)]),
    "grey": T.Compose([T.Grayscale(), T.ToTensor(), T.Normalize(0.5, 0.5)]),
    "certain flips": T.Compose(
        [T.RandomHorizontalFlip(1.0), T.RandomVerticalFlip(1.0), T.ToTensor()]
    ),
    "no flip": T.Compose([T.ToTensor(), T.RandomHorizontalFlip(0.0)]),
    "crop of full size": T.Compose([T.RandomCrop(8), T.ToTensor()]),
}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_transforms_give_the_same_bits(name):
    transform = DETERMINISTIC[name]
    assert_same_epoch(with_transforms(transform, leaf=Colour(20)))
    assert_same_epoch(as_classification_dataset(Colour(20, transform=transform)))


@pytest.mark.parametrize("task", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_batches_equal_avalanches_on_tensors(task, dtype):
    x, y = torch.randint(0, 9, (20, 2, 3)).to(dtype), torch.arange(20) % 4
    z = torch.randn(20, 5)
    assert_same_epoch(TensorDataset(x))
    assert_same_epoch(make_avalanche_dataset(TensorDataset(x, y.int(), z)))
    data = _make_taskaware_tensor_classification_dataset(x, y, z, task_labels=task)
    assert_same_epoch(data.subset([4, 4, 1]))
    vectors = DataAttribute(list(z), "vectors", use_in_getitem=True)
    assert_same_epoch(make_avalanche_dataset(data, data_attributes=[vectors]))


def test_batches_equal_avalanches_on_image_files(tmp_path):
    for i in range(12):
        folder = tmp_path / str(i % 3)
        folder.mkdir(exist_ok=True)
        size = (10 + i, 12)  # one size only after resizing
        pixels = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
        tvf.to_pil_image(pixels).save(folder / f"{i}.png")
    resized = T.Compose([T.Resize((8, 8)), RANDOM.transforms[0], T.ToTensor()])
    files = ImageFolder(tmp_path)
    benchmark = nc_benchmark(
        files, files, 3, False, seed=0, train_transform=resized,
        eval_transform=T.Compose([T.Resize((8, 8)), PLAIN]),
    )  # fmt: skip
    exp = benchmark.train_stream[1]
    assert_same_epoch(exp.dataset.eval(), memory_resident="auto")
    with pytest.raises(ValueError, match="ImageFolder differ in shape"):
        assert_same_epoch(
            as_classification_dataset(ImageFolder(tmp_path, T.ToTensor()))
        )


def test_class_mappings_of_both_layers_are_applied_in_order():
    benchmark = nc_benchmark(
        Colour(), Colour(), 2, True, fixed_class_order=[5, 3, 0, 1, 2, 4],
        class_ids_from_zero_in_each_exp=True, eval_transform=PLAIN,
    )  # fmt: skip
    for experience in benchmark.test_stream:
        assert_same_epoch(experience.dataset)
        ys = torch.cat([b[1] for b in ResidentLoader(experience.dataset, batch_size=9)])
        assert ys.tolist() == list(experience.dataset.targets)


def test_label_mappings_are_applied_from_the_leaf_outwards():
    leaf = Colour()
    leaf.target_transform = partial(lookup, [1, 2, 3, 4, 5, 0])
    inner = _make_taskaware_classification_dataset(leaf, transform=PLAIN)
    for mapping in ([3, 3, 4, 0, 0, 1], [2, 5, 1, 0, 4, 3]):
        inner = _taskaware_classification_subset(inner, class_mapping=mapping)
    assert_same_epoch(inner)


def test_parts_with_different_transforms_are_honoured_in_place(rng):
    new = with_transforms(PLAIN, leaf=Colour(seed=1))
    old = with_transforms(T.ToTensor(), leaf=Colour(seed=2))
    mixed = new.concat(old.subset([3, 9, 27])).subset(
        torch.randperm(63, generator=rng).tolist()
    )
    assert_same_epoch(mixed)
    loader = ResidentLoader(mixed, batch_size=8, shuffle=True, generator=rng)
    assert len(loader._content.groups) == 2
    seen = [
        (x.numpy().tobytes(), int(y)) for b in loader for x, y in zip(*b, strict=True)
    ]
    assert sorted(seen) == sorted((x.numpy().tobytes(), y) for x, y in mixed)
    short = ResidentLoader(mixed, batch_size=8, shuffle=True, drop_last=True)
    assert [len(y) for _, y in short] == [8] * 7


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("subset"), st.lists(st.integers(0, 999), min_size=1, max_size=9)
        ),
        st.tuples(st.just("concat"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["train", "eval", "freeze", "wrap"]), st.none()),
    ),
    max_size=6,
)


@pytest.mark.filterwarnings("ignore:Concatenated datasets have different")
@given(OPERATIONS)
def test_batches_equal_avalanches_after_any_operations_on_datasets(operations):
    pixel_marks = T.Compose([T.ToTensor(), T.Normalize(0.1, 0.5)])
    base = as_classification_dataset(
        Colour(12, seed=3),
        TransformGroups({"train": (PLAIN, None), "eval": (pixel_marks, None)}),
    )
    data = base
    for name, argument in operations:
        if name == "subset":
            data = data.subset([i % len(data) for i in argument])
        elif name == "concat":
            group = data._flat_data._transform_groups.current_group
            data = data.concat(base.subset(range(argument)).with_transforms(group))
        elif name == "freeze":
            data = data.freeze_transforms()
        elif name == "wrap":
            flip = TransformGroups({"train": (T.RandomVerticalFlip(1.0), None)})
            flip.current_group = data._flat_data._transform_groups.current_group
            data = make_avalanche_dataset(data, transform_groups=flip)
        else:
            data = data.with_transforms(name)
    assert_same_epoch(data)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("library", [T, v2])
@pytest.mark.parametrize("late", [False, True], ids=["on bytes", "on floats"])
def test_augmented_images_are_those_of_single_images_and_equally_frequent(
    mode, library, late, rng
):
    image = torch.randint(0, 256, (3, 6, 6), generator=rng, dtype=torch.uint8)
    crop = library.RandomCrop(
        6, padding=(1, 1, 1, 1), fill=7 - 7 * late, padding_mode=mode
    )
    flip = library.RandomHorizontalFlip()
    parts = [T.ToTensor(), crop, flip] if late else [crop, flip, T.ToTensor()]
    copies, n = Colour(3600), 3600
    copies.data = image.permute(1, 2, 0).expand(n, 6, 6, 3).numpy().copy()
    normalise = T.Normalize(MEAN, STD)
    data = with_transforms(*parts, normalise, leaf=copies)
    loader = ResidentLoader(data, batch_size=512, generator=rng)
    padded = tvf.pad(tvf.to_pil_image(image), 1, 7 - 7 * late, mode)
    outcomes = {}
    for top in range(3):
        for left in range(3):
            window = tvf.crop(padded, top, left, 6, 6)
            for mirrored in (False, True):
                one = tvf.hflip(window) if mirrored else window
                result = normalise(tvf.to_tensor(one))
                outcomes[result.numpy().tobytes()] = (top, left, mirrored)
    assert len(outcomes) == 18
    counts = Counter(outcomes[x.numpy().tobytes()] for b in loader for x in b[0])
    # 200 expected each, a standard deviation of 13.7
    assert len(counts) == 18
    assert all(abs(count - n / 18) < 70 for count in counts.values())


@pytest.mark.parametrize("library", [T, v2])
def test_uneven_padding_and_oblong_crops_agree_with_single_images(library, rng):
    leaf, padding = Colour(40), (3, 0, 1, 2)
    crop = library.RandomCrop((5, 11), padding=padding, fill=200)
    data = with_transforms(crop, T.PILToTensor(), leaf=leaf)
    ((x, _),) = ResidentLoader(data, batch_size=40, generator=rng)
    for i in range(40):
        image = torch.from_numpy(leaf.data[i].transpose(2, 0, 1).copy())
        padded = tvf.pad(image, padding, 200)
        windows = [padded[:, t : t + 5, u : u + 11] for t in range(6) for u in range(2)]
        assert any(torch.equal(x[i], window) for window in windows)


def _random_data(n=20):
    return with_transforms(RANDOM, leaf=Colour(n))


def test_order_and_augmentation_are_fixed_by_the_generator_alone(rng):
    def run(seed=None, batch_size=6):
        g = None if seed is None else torch.Generator().manual_seed(seed)
        loader = make_loader(
            _random_data(),
            batch_size=batch_size,
            shuffle=True,
            device="cpu",
            generator=g,
        )
        twice = [*epoch(loader), *epoch(loader)]
        return torch.cat([x for x, _ in twice])

    before = torch.get_rng_state()
    assert torch.equal(run(5), run(5))
    assert torch.equal(run(5), run(5, batch_size=7))
    assert not torch.equal(run(5), run(6))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(3)
    first = run()
    torch.manual_seed(3)
    assert torch.equal(first, run())


def test_an_epoch_holds_each_sample_once_and_epochs_differ(rng):
    data = TensorDataset(torch.arange(50))
    loader = ResidentLoader(data, batch_size=8, shuffle=True, generator=rng)
    epochs = [torch.cat([x for (x,) in loader]).tolist() for _ in range(2)]
    assert all(sorted(each) == list(range(50)) for each in epochs)
    assert epochs[0] != epochs[1] != list(range(50))
    assert [len(x) for (x,) in loader] == [8] * 6 + [2] and len(loader) == 7
    short = ResidentLoader(data, batch_size=8, shuffle=True, drop_last=True)
    assert [len(x) for (x,) in short] == [8] * 6 and len(short) == 6
    assert len(ResidentLoader(data, batch_size=51, drop_last=True)) == 0


def test_two_iterators_of_one_loader_do_not_disturb_each_other():
    loader = ResidentLoader(TensorDataset(torch.arange(9)), batch_size=2)
    both = [(a.tolist(), b.tolist()) for (a,), (b,) in zip(loader, loader, strict=True)]
    assert both == [(a, a) for a, _ in both] and len(both) == 5


@pytest.mark.parametrize("memory_resident", [True, False])
def test_a_fixed_order_draws_from_no_generator(memory_resident, rng):
    data = with_transforms(PLAIN, leaf=Colour(9))
    loader = make_loader(
        data, batch_size=4, shuffle=False, device="cpu",
        memory_resident=memory_resident, generator=rng,
    )  # fmt: skip
    states = [torch.get_rng_state(), rng.get_state(), random.getstate()]
    epoch(loader)
    assert torch.equal(states[0], torch.get_rng_state())
    assert torch.equal(states[1], rng.get_state())
    assert states[2] == random.getstate()


def test_batches_can_be_overwritten_without_harm():
    data = TensorDataset(torch.ones(4, 3), torch.ones(4, 2))
    loader = ResidentLoader(data, batch_size=2)
    for batch in loader:
        for tensor in batch:
            tensor.zero_()
    assert all(t.eq(1).all() for batch in loader for t in batch)


def test_experiences_and_buffers_share_one_image_tensor():
    leaf = Colour()
    benchmark = nc_benchmark(leaf, leaf, 3, False, seed=0, train_transform=RANDOM)
    first, second, _ = (e.dataset for e in benchmark.train_stream)
    together = second.train().concat(first.train().subset([1, 3]))
    for data in (first, second, together, first.eval().train().subset([2])):
        (group,) = ResidentLoader(data, batch_size=2)._content.groups
        assert group.images.data_ptr() == leaf.data.ctypes.data


def test_images_of_another_order_are_in_memory_once_and_items_stay():
    leaf = Colour()
    leaf.data = np.ascontiguousarray(leaf.data)  # height, width, channels: to be copied
    items = [(np.asarray(image), label) for image, label in leaf]

    data = with_transforms(PLAIN, leaf=leaf)
    first, second = (ResidentLoader(data.subset([i]), batch_size=1) for i in (3, 5))
    for loader in (first, second):
        (group,) = loader._content.groups
        assert group.images.data_ptr() == leaf.data.ctypes.data
    for (image, label), (before, known) in zip(leaf, items, strict=True):
        assert np.array_equal(image, before) and label == known
    for number in (1, 2, 3):  # another array, perhaps at the same address
        leaf.data = np.full((60, 8, 8, 3), number, np.uint8)
        assert_same_epoch(data)
    assert leaf not in store._kept


def test_images_copied_once_are_shared_and_vanish_with_their_dataset():
    leaf = TensorDataset(torch.rand(6, 4, 4, 3).permute(0, 3, 1, 2), torch.arange(6))
    first, second = (ResidentLoader(Subset(leaf, [i]), batch_size=1) for i in (3, 5))
    pixels = [loader._content.groups[0].images for loader in (first, second)]
    assert pixels[0].data_ptr() == pixels[1].data_ptr() != leaf.tensors[0].data_ptr()
    for number in (1, 2, 3):  # another tensor, perhaps at the same address
        x = torch.full((6, 4, 4, 3), float(number)).permute(0, 3, 1, 2)
        leaf.tensors = (x, leaf.tensors[1])
        loader = ResidentLoader(leaf, batch_size=6)
        assert all(bool((batch[0] == number).all()) for batch in loader)
    # of this dataset: others may vanish from the table at any moment
    [(_, _, copied)] = store._kept[leaf].values()
    left = [weakref.ref(leaf), weakref.ref(copied)]
    del leaf, first, second, loader, copied
    gc.collect()
    assert [each() for each in left] == [None, None]


def test_each_item_of_an_own_class_is_read_once():
    class Counting(Own):
        deterministic_items = True
        reads = 0

        def __getitem__(self, index):
            type(self).reads += 1
            return super().__getitem__(index)

    images = [
        (tvf.to_pil_image(torch.full((1, 4, 4), i / 9)), i % 2) for i in range(10)
    ]
    leaf = Counting(images)
    benchmark = nc_benchmark(leaf, leaf, 2, False, seed=0, train_transform=T.ToTensor())
    for experience in [*benchmark.train_stream] * 3:
        epoch(make_loader(experience.dataset, batch_size=3, shuffle=True, device="cpu"))
    assert Counting.reads <= 11  # one is read twice, to know the shape


def _noisy():
    leaf = Colour()
    leaf.target_transform = abs
    return leaf


REFUSED = {
    "lambda": (lambda: with_transforms(T.Lambda(lambda x: x)), "Lambda"),
    "random resized crop": (lambda: with_transforms(T.RandomResizedCrop(8), PLAIN), "RandomResizedCrop"),
    "pad if needed": (lambda: with_transforms(T.RandomCrop(9, pad_if_needed=True), PLAIN), "RandomCrop"),
    "colour jitter": (lambda: with_transforms(T.ColorJitter(0.1), PLAIN), "ColorJitter"),
    "random rotation": (lambda: with_transforms(PLAIN, T.RandomRotation(9)), "RandomRotation"),
    "subclass": (lambda: with_transforms(type("Mine", (T.ToTensor,), {})()), "Mine"),
    "crop too large": (lambda: with_transforms(T.RandomCrop(9), PLAIN), "too small"),
    "label noise": (
        lambda: as_classification_dataset(
            Colour(), TransformGroups({"train": (PLAIN, lambda y: y)})
        ),
        "of the labels",
    ),
    "label noise of the leaf": (
        lambda: with_transforms(PLAIN, leaf=_noisy()),
        "of the labels",
    ),
    "collate": (
        lambda: make_avalanche_dataset(Colour(transform=PLAIN), collate_fn=list),
        "collate",
    ),
    "empty": (lambda: AvalancheDataset([]), "empty"),
    "shapes": (
        lambda: with_transforms(PLAIN).concat(as_classification_dataset(_grey(TensorMNIST))),
        "differ in shape",
    ),
    "gradients": (lambda: TensorDataset(torch.ones(3, requires_grad=True)), "gradients"),
    "own transform": (
        lambda: type("Mine", (Own,), {"transform": "random"})([(torch.ones(1), 0)]),
        "Mine has a transform of its own",
    ),
    "texts": (lambda: Own([(torch.ones(1), "a")]), "Own are not images and numbers"),
    "item shapes": (
        lambda: Own([(torch.ones(1), 0), (torch.ones(2), 0)]),
        "Own differ in shape",
    ),
    "avalanche inside torch": (
        lambda: Subset(with_transforms(PLAIN), [0]),
        "AvalancheDataset",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_held_goes_to_torchs_loader_and_the_reason_is_named(name):
    make, reason = REFUSED[name]
    with pytest.raises(ValueError, match=f"memory_resident=True.*{reason}"):
        make_loader(
            make(), batch_size=2, shuffle=False, device="cpu", memory_resident=True
        )
    loader = make_loader(make(), batch_size=2, shuffle=False, device="cpu")
    assert type(loader) is DataLoader


def test_own_classes_are_held_when_insisted_or_when_they_declare_it():
    data = Own([(torch.full((2,), float(i)), i, 0.5) for i in range(5)])
    assert (
        type(make_loader(data, batch_size=2, shuffle=True, device="cpu")) is DataLoader
    )
    with pytest.raises(ValueError, match="Own is not known.*deterministic_items"):
        ResidentLoader(data, batch_size=2)
    assert_same_epoch(data)
    assert_same_epoch(ConcatDataset([data, Subset(data, [3, 1])]))
    data.deterministic_items = True
    assert_same_epoch(data, memory_resident="auto")
    assert_same_epoch(Subset(Own(data.items), [4, 0, 0, 2]))
    images = torch.randint(0, 256, (3, 1, 9, 9), dtype=torch.uint8)
    tensors = Own([(image, 0) for image in images])
    assert_same_epoch(with_transforms(T.CenterCrop(5), T.Pad(1), leaf=tensors))


def test_data_beyond_the_budget_are_not_copied(monkeypatch):
    leaf = Colour()
    leaf.data = np.ascontiguousarray(leaf.data)
    data = with_transforms(PLAIN, leaf=leaf)
    monkeypatch.setattr(store, "CPU_BUDGET", 192 * 10)
    assert_same_epoch(data.subset(range(5, 15)))  # only what is needed is held
    with pytest.raises(ValueError, match="Colour take 0 MiB, 0 MiB may be used"):
        ResidentLoader(data.subset(range(11)), batch_size=2)
    own = Own([(torch.zeros(192, dtype=torch.uint8), 0) for _ in range(20)])
    assert_same_epoch(Subset(own, [17, 3, 3]))
    with pytest.raises(ValueError, match="Own take"):
        ResidentLoader(Subset(own, range(11)), batch_size=2, trusted=True)


def test_arguments_about_workers_matter_to_torchs_loader_only():
    data = TensorDataset(torch.arange(6))
    arguments = {"num_workers": 0, "pin_memory": False, "persistent_workers": False}
    wanted = {"batch_size": 4, "shuffle": True, "device": "cpu", **arguments}
    assert isinstance(make_loader(data, **wanted), ResidentLoader)
    plain = make_loader(data, memory_resident=False, drop_last=True, **wanted)
    assert type(plain) is DataLoader and len(plain) == 1
    sampler = make_loader(
        data, batch_size=1, shuffle=False, device="cpu", sampler=[4, 2]
    )
    assert [x.item() for (x,) in sampler] == [4, 2]
    with pytest.raises(ValueError, match="'sampler'"):
        make_loader(
            data, batch_size=1, shuffle=False, device="cpu", sampler=[4],
            memory_resident=True,
        )  # fmt: skip
    with pytest.raises(TypeError, match="no_such"):
        make_loader(data, batch_size=1, shuffle=False, device="cpu", no_such=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, wanted at least 1"),
        ({"memory_resident": "always"}, "memory_resident is 'always', wanted 'auto'"),
    ],
)
def test_bad_arguments_are_named_with_the_value_wanted(arguments, message):
    wanted = {"batch_size": 2, "shuffle": True, "device": "cpu", **arguments}
    with pytest.raises(ValueError, match=message):
        make_loader(TensorDataset(torch.arange(6)), **wanted)


def test_bytes_of_images_count_raw_pixels(tmp_path):
    colour = with_transforms(PLAIN)
    assert image_bytes(colour.subset([1, 2, 5])) == 3 * 192
    assert image_bytes(_grey(TensorMNIST)) == 60 * 81
    assert image_bytes(TensorDataset(torch.zeros(5, 7, dtype=torch.float16))) == 70
    assert image_bytes(AvalancheDataset([])) == 0
    (tmp_path / "a").mkdir()
    Image.new("RGB", (5, 4)).save(tmp_path / "a" / "0.png")
    assert image_bytes(ImageFolder(tmp_path, T.Resize(50))) == 60
    assert image_bytes(Own([(Image.new("L", (3, 3)), 0), (torch.zeros(2), 0)])) == 17
    with pytest.raises(ValueError, match="holds str, wanted an image or tensor"):
        image_bytes(Own([("text", 0)]))


@pytest.mark.parametrize(
    ("device", "given", "pinned"),
    [("cuda", {}, True), ("cpu", {}, False), ("cuda", {"pin_memory": False}, False)],
)
def test_batches_for_a_gpu_come_from_pinned_memory(device, given, pinned):
    data = torch.utils.data.TensorDataset(torch.zeros(3, 1, 2, 2))
    held = {"memory_resident": False, "device": device, **given}
    loader = make_loader(data, batch_size=2, shuffle=False, **held)
    assert loader.pin_memory is pinned

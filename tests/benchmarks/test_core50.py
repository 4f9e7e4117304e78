"""CORe50 from the lists of files to results, on a made folder."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from core50_folder import (
    N_CLASSES,
    experience_classes,
    lay_core50,
    test_lines,
    train_lines,
)
from PIL import Image
from torchvision.transforms.functional import to_tensor

from benchmarks.__main__ import main
from benchmarks.runs.results import read_matrix
from benchmarks.streams import make_stream
from benchmarks.streams.core50_lists import image_path
from benchmarks.streams.info import STREAMS

pytestmark = pytest.mark.usefixtures("fake_files")  # which refuse every download
MINI = "core50_mini_nicv2_391"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A made CORe50 with images of both sizes, run 2 of NICv2-391."""
    folder = tmp_path_factory.mktemp("core50")
    lay_core50(folder, "nicv2_391", run=2, size=32)
    mini = folder / "core50_32x32"
    for path in mini.rglob("*.png"):
        big = folder / "core50_128x128" / path.relative_to(mini)
        big.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((128, 128), Image.Resampling.NEAREST).save(big)
    return folder


def as_trained(path):
    """An image as the paper's network gets it, written slowly."""
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    image = to_tensor(Image.open(path).convert("RGB"))
    return (image - mean[:, None, None]) / std[:, None, None]


@pytest.mark.parametrize("name", ["core50_nicv2_391", MINI])
def test_images_and_labels_are_those_of_the_file_lists(name, root):
    benchmark = make_stream(name, seed=2, n_experiences=3, dataset_root=root)
    size = STREAMS[name].image_shape[-1]
    tree = root / f"core50_{size}x{size}"
    for i, experience in enumerate(benchmark.train_stream):
        wanted = list(train_lines(i))
        assert len(experience.dataset) == len(wanted)
        for (image, label, task), (path, c) in zip(experience.dataset, wanted):
            assert (label, task) == (c, 0)
            # without augmentation: the same at each look
            torch.testing.assert_close(image, as_trained(tree / path))
        assert sorted(experience.classes_in_this_experience) == experience_classes(i)


def test_every_twentieth_image_is_tested_and_all_classes_are(root):
    benchmark = make_stream(MINI, seed=2, n_experiences=1, dataset_root=root)
    [test] = benchmark.test_stream
    wanted = list(itertools.islice(test_lines(), 0, None, 20))
    assert [label for _, label, _ in test.dataset] == [label for _, label in wanted]
    assert set(test.dataset.targets) == set(range(N_CLASSES))
    tree = root / "core50_32x32"
    torch.testing.assert_close(test.dataset[7][0], as_trained(tree / wanted[7][0]))


def test_whole_stream_has_all_experiences_whose_classes_come_back(root):
    benchmark = make_stream(MINI, seed=2, dataset_root=root)
    classes = [sorted(e.classes_in_this_experience) for e in benchmark.train_stream]
    assert len(classes) == 391 and classes[51] == classes[1]
    assert set(itertools.chain(*classes)) == set(range(N_CLASSES))


def test_other_scenarios_test_on_the_whole_list(tmp_path):
    lay_core50(tmp_path, "ni", run=0)
    benchmark = make_stream("core50_ni", n_experiences=1, dataset_root=tmp_path)
    assert len(benchmark.test_stream[0].dataset) == len(list(test_lines()))


def test_run_that_is_missing_is_named(root):
    with pytest.raises(FileNotFoundError, match="run3"):
        make_stream(MINI, seed=3, dataset_root=root)


def test_missing_image_is_named_when_it_is_read(tmp_path):
    lay_core50(tmp_path, "nicv2_79", size=32)
    (tmp_path / "core50_32x32" / image_path(1, 0, 1)).unlink()
    stream = make_stream("core50_mini_nicv2_79", dataset_root=tmp_path).train_stream
    with pytest.raises(FileNotFoundError, match=r"C_01_01_001.png"):
        list(stream[0].dataset)


def test_command_goes_from_file_lists_to_results(root, tmp_path, capsys):
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert main(_command(root, tmp_path, "--eval-every", "2")) == 0
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    folder = tmp_path / "naive" / "0"
    matrix = read_matrix(folder / "accuracy.csv")
    assert [len(row) for row in matrix] == [1] * 5
    assert [row[0] is None for row in matrix] == [True, False, True, False, False]
    record = json.loads((folder / "run.json").read_text())
    assert record["finished"] and record["test_images"] == [N_CLASSES]
    metrics = record["metrics"]
    assert metrics["final_accuracy"] == matrix[-1][0]
    values = [row[0] for row in matrix if row[0] is not None]
    assert metrics["average_incremental_accuracy"] == pytest.approx(sum(values) / 3)
    assert metrics["forgetting"] is None
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        f"experience {i} of 5" for i in (2, 4, 5)
    ]


def test_rare_evaluation_changes_neither_training_nor_what_it_measures(root, tmp_path):
    rows = {}
    for every in ("1", "3"):
        out = tmp_path / every
        assert main(_command(root, out, "--eval-every", every)) == 0
        rows[every] = read_matrix(out / "naive" / "0" / "accuracy.csv")
    assert rows["3"] == [[None], [None], rows["1"][2], [None], rows["1"][4]]
    assert None not in itertools.chain(*rows["1"])


def _command(root, out, *more):
    """Naive, a tiny network, five experiences of run 2."""
    words = (
        "run naive --network small_cnn --feature_size 8 --train_epochs 1 --threads 1"
    )
    stream = ["--stream", MINI, "--stream_seed", "2", "--n_experiences", "5"]
    places = ["--dataset-root", str(root), "--out", str(out)]
    return [*words.split(), *stream, *places, "--device", "cpu", *more]


@pytest.mark.parametrize(
    ("stream", "more"),
    [
        (MINI, ("--network", "mobilenet_cifar", "--latent_layer", "conv3_1.sep")),
        ("core50_nicv2_391", ()),  # the paper's network, images and layer
    ],
)
@pytest.mark.filterwarnings("ignore:.*untrained")
def test_latent_replay_goes_from_file_lists_to_results(stream, more, tmp_path):
    size = 32 if "mini" in stream else 128
    lay_core50(tmp_path / "data", "nicv2_391", run=2, size=size)
    words = (
        "run ar1_star_core50 --train_epochs 1 --train_mb_size 8 --memory_size 12 "
        "--n_experiences 3 --stream_seed 2 --eval-every 3 --threads 1 --device cpu "
        "--weights null"
    )
    places = ["--dataset-root", str(tmp_path / "data"), "--out", str(tmp_path)]
    assert main([*words.split(), "--stream", stream, *more, *places]) == 0
    folder = tmp_path / "ar1_star_core50" / "0"
    record = json.loads((folder / "run.json").read_text())
    assert record["finished"] and record["metrics"]["final_accuracy"] is not None
    values = 128 * 16 * 16 if size == 32 else 512 * 8 * 8  # of a latent
    kept = record["memory_bytes"]["latents"]
    assert 4 * 12 * values < kept < 4.1 * 12 * values

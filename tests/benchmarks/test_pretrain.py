"""Weights to start from: written by one command, read by the recipes."""

from __future__ import annotations

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.names import UsageError
from benchmarks.recipes.frame import Frame
from benchmarks.training.weights import load_weights

COMMAND = ["pretrain", "--stream", "split_digits", "--device", "cpu"]
COMMAND += ["--network", "mobilenet_cifar", "--train_epochs", "2"]
FRAME = Frame(stream="split_digits", network="mobilenet_cifar")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Weights after two epochs of some digits."""
    path = tmp_path_factory.mktemp("weights") / "m.pt"
    assert main([*COMMAND, "--images-per-class", "20", str(path)]) == 0
    return path


def test_weights_are_a_state_dict_of_the_network_alone(file):
    state = torch.load(file, weights_only=True)
    assert state.keys() == FRAME.make_feature_extractor().state_dict().keys()
    assert state["conv1.bn.num_batches_tracked"] == 2 * 4  # batches of 64 of 200 images


def test_same_seed_writes_the_same_weights(file, tmp_path):
    other = tmp_path / "other.pt"
    torch.rand(3)
    assert main([*COMMAND, "--images-per-class", "20", str(other)]) == 0
    one, two = (torch.load(f, weights_only=True) for f in (file, other))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.pt"]


def test_recipes_start_from_the_weights(file):
    state = torch.load(file, weights_only=True)
    frame = Frame(stream="split_digits", network="mobilenet_cifar", weights=str(file))
    extractor = frame.make_linear_model()[0]
    assert all(torch.equal(v, state[k]) for k, v in extractor.state_dict().items())
    assert "pretrained" in frame.setup(None, memory="").setting


def test_run_takes_weights_and_says_where_they_should_be(file, tmp_path, capsys):
    run = ["run", "naive", "--smoke", "--network", "mobilenet_cifar", "--device", "cpu"]
    out = ["--out", str(tmp_path / "out"), "--n_experiences", "1"]
    assert main([*run, *out, "--weights", str(file)]) == 0
    capsys.readouterr()
    lost = str(tmp_path / "lost.pt")
    assert main([*run, "--out", str(tmp_path / "no"), "--weights", lost]) == 2
    err = capsys.readouterr().err
    assert f"no file {lost}; make it with: python -m benchmarks pretrain" in err


def test_weights_of_another_network_or_no_weights_are_refused(file, tmp_path):
    other = Frame(stream="split_digits", network="small_cnn").make_feature_extractor()
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(UsageError, match="does not fit SmallCNN"):
        load_weights(other, file)
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UsageError, match="does not fit SmallCNN"):
        load_weights(other, tmp_path / "text.pt")


def test_imagenet_weights_are_for_one_network_and_a_missing_download_is_named(
    monkeypatch, tmp_path, capsys
):
    run = ["run", "naive", "--smoke", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*run, "--weights", "pytorchcv"]) == 2
    err = capsys.readouterr().err
    assert err == "error: network is small_cnn; --weights pytorchcv is for mobilenet\n"

    def offline(pretrained):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr("pytorchcv.models.mobilenet.mobilenet_w1", offline)
    frame = Frame(stream="split_cifar10", network="mobilenet", weights="pytorchcv")
    with pytest.raises(UsageError, match="pytorchcv .ConnectionError: no network.; w"):
        frame.make_feature_extractor()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: file"),
        (["x.pt", "--lrr", "1"], "unknown option --lrr; did you mean --lr?"),
        (["x.pt", "--lr", "0"], "--lr is 0; wanted a number > 0"),
        (["x.pt", "--stream", "split_digit"], "did you mean split_digits?"),
        (["nowhere/x.pt"], "nowhere; wanted it to exist"),
        (["."], "file is ., a folder; wanted the name of a file"),
        *[
            (["x.pt", "--stream", name], f"{name}; wanted a stream of new classes")
            for name in ("mnist_nic", "core50_nicv2_391", "permuted_mnist")
        ],
        (["x.pt", "--dataset-root", "nowhere"], "pretrain x.pt --dataset-root nowhere"),
    ],
)
def test_wrong_command_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())

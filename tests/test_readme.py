"""The Python of the README runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import avalanche.benchmarks
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from torch.utils.data import TensorDataset

TEXT = (Path(__file__).parents[1] / "README.md").read_text()


def small_mnist(n_experiences, return_task_id=False, **options):
    """Images of MNIST's shape, without a download."""
    data = TensorDataset(torch.rand(200, 1, 28, 28), torch.arange(200) % 10)
    data.targets = data.tensors[1].tolist()
    return nc_benchmark(
        data, data, n_experiences, task_labels=return_task_id, **options
    )


@pytest.mark.filterwarnings("ignore:.*have fewer")
@pytest.mark.filterwarnings("ignore:.*validation samples? is")
def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(avalanche.benchmarks, "SplitMNIST", small_mnist)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 8
    names = {}
    for block in blocks:
        exec(block, names)  # noqa: S102
        if "strategy = Naive" in block:
            names["strategy"].train(names["benchmark"].train_stream[:2])
    assert names["done"] == 0 and (tmp_path / "lucir.pt").exists()

    resumed = {}
    exec(blocks[0], resumed)  # noqa: S102
    assert resumed["done"] == 5

    plugin = names["PullToFirstModel"]()
    strategy = names["Naive"](
        model=names["model"],
        optimizer=names["optimizer"],
        train_mb_size=64,
        plugins=[plugin],
        evaluator=None,
    )
    strategy.train(names["benchmark"].train_stream[:2])
    assert plugin.memory_bytes()["frozen_copies"] > 0

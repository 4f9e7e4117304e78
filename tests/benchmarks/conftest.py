"""Fake data for the streams."""

from __future__ import annotations

import urllib.request

import pytest
from fake_data import lay
from torchvision.datasets import cifar, omniglot, svhn

from benchmarks.streams.info import STREAMS


@pytest.fixture
def fake_files(monkeypatch):
    """Fake files pass for the real ones; whatever opens a URL fails the test."""
    for module in (cifar, omniglot, svhn):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: True)

    def fail(*_, **__):
        pytest.fail("something was to be downloaded")

    monkeypatch.setattr(urllib.request, "urlopen", fail)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A function from a stream's name to the folder of its fake data."""
    roots = {}

    def root(name):
        # CORe50's lists of files differ from stream to stream
        key = name if name.startswith("core50") else STREAMS[name].files
        if key not in roots:
            roots[key] = tmp_path_factory.mktemp(name)
            lay(name, roots[key])
        return roots[key]

    return root

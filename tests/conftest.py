"""Fixtures, and the accounting of the golden files.

A golden test names the files it is for, and is run once for each of them::

    @pytest.mark.golden("bdr_cwd", "herding_*.npz")
    def test_herding_agrees_with_the_authors(golden): ...

``golden`` is the file's content. ``pytest -m golden --golden-root=DIR`` takes the files
from another folder of the same layout, ``DIR/<method>/<file>``. (With a space instead
of ``=`` pytest takes DIR for a folder of tests, unless another is named before it.)
"""

from __future__ import annotations

import json
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")
torch.set_num_threads(1)  # the networks are tiny: threads would only wait

HERE = Path(__file__).parent

#: Files no test uses, by method and pattern, each with the reason; printed at the end
#: of a run.
UNUSED: dict[tuple[str, str], str] = {}


def pytest_addoption(parser):
    parser.addoption(
        "--golden-root", type=Path, default=HERE / "golden", help="golden files"
    )


def pytest_configure(config):
    root = config.getoption("--golden-root")
    if not root.is_dir():
        raise pytest.UsageError(f"--golden-root {root} is no folder")
    config.golden = SimpleNamespace(collected=set(), passed=set(), failed=set())


def golden_files(root: Path) -> list[tuple[str, Path]]:
    """(method, file) of every golden file below the root."""
    found = sorted(p for p in root.glob("*/*") if p.suffix in (".npz", ".json"))
    return [(path.parent.name, path) for path in found]


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is None:
        return
    method, pattern = marker.args
    files = [
        path
        for name, path in golden_files(metafunc.config.getoption("--golden-root"))
        if name == method and fnmatch(path.name, pattern)
    ]
    metafunc.config.golden.collected.update(files)
    metafunc.parametrize(
        "golden", files, ids=[f"{method}-{path.name}" for path in files], indirect=True
    )


@pytest.fixture
def golden(request):
    """Content of a golden file: arrays as tensors, names and scalars as such, or JSON."""
    path = request.param
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with np.load(path, allow_pickle=False) as arrays:
        return {
            name: torch.from_numpy(value)
            if value.ndim and value.dtype.kind != "U"
            else value.tolist()
            for name, value in arrays.items()
        }


def pytest_runtest_makereport(item, call):
    if call.when == "call" and item.get_closest_marker("golden"):
        record = (
            item.config.golden.failed if call.excinfo else item.config.golden.passed
        )
        record.add(item.callspec.params["golden"])


def unused_reason(method: str, name: str) -> str | None:
    """Why no test uses a file, or None."""
    for (of_method, pattern), reason in UNUSED.items():
        if of_method == method and fnmatch(name, pattern):
            return reason
    return None


def pytest_sessionfinish(session, exitstatus):
    """A golden file without a test and without a reason fails a complete run."""
    config = session.config
    root = config.getoption("--golden-root")
    given = [Path(arg.split("::")[0]).resolve() for arg in config.args]
    complete = any(path == HERE or path in HERE.parents for path in given)
    config.golden.orphans = [
        f"{method}/{path.name}"
        for method, path in golden_files(root)
        if complete
        and path not in config.golden.collected
        and not unused_reason(method, path.name)
    ]
    if config.golden.orphans and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    used = config.golden.passed - config.golden.failed
    by_method: dict[str, list[Path]] = {}
    for method, path in golden_files(config.getoption("--golden-root")):
        by_method.setdefault(method, []).append(path)
    if not config.golden.passed | config.golden.failed:
        return
    for method, files in by_method.items():
        n_used = len(used & set(files))
        terminalreporter.line(f"golden: {method} used {n_used} of {len(files)} files")
        reasons: dict[str, int] = {}
        for path in files:
            if path not in config.golden.collected:
                reason = unused_reason(method, path.name) or "no reason given"
                reasons[reason] = reasons.get(reason, 0) + 1
        for reason, number in reasons.items():
            terminalreporter.line(f"golden:   {number} unused: {reason}")
    for orphan in config.golden.orphans:
        terminalreporter.line(f"golden: FAILED, {orphan} has no test", red=True)


@pytest.fixture
def rng():
    """A seeded generator; the global one is left alone."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded():
    """Tests do not depend on the order they run in."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def graphs(monkeypatch):
    """What torch's compiler made; its code generator takes half a minute."""
    made: list[Any] = []

    def keep(graph, inputs):
        made.append(graph)
        return graph

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    return made

"""The lists and tables of CORe50's folder, which say where each image belongs.

Imports Avalanche.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from avalanche.benchmarks.classic.core50 import nbatch, scen2dirs

Line = tuple[str, int]


def image_path(session: int, label: int, frame: int) -> str:
    """Where an image lies below the tree of images.

    Args:
        session: Number of the video session, 1 to 11.
        label: Label of the object, 0 to 49.
        frame: Number of the image in it, >= 0.

    Returns:
        The path.

    Example:
        >>> image_path(1, 4, 7)
        's1/o5/C_01_05_007.png'
    """
    name = f"C_{session:02d}_{label + 1:02d}_{frame:03d}.png"
    return f"s{session}/o{label + 1}/{name}"


def write_core50_lists(
    root: Path,
    scenario: str,
    run: int,
    train: Sequence[Sequence[Line]],
    test: Sequence[Line],
) -> None:
    """Write what Avalanche's ``CORe50`` reads besides the images.

    Args:
        root: Folder of the data.
        scenario: ``"nc"``, ``"nicv2_391"``...
        run: Number of the run, 0 to 9.
        train: Path and label of each image, for each experience.
        test: The same of the test images.
    """
    for name in scen2dirs.values():
        (root / name).mkdir(parents=True, exist_ok=True)
    # else Avalanche writes many lists of categories, and leaves files open
    (root / "NIC_v2_79_cat").mkdir(exist_ok=True)
    folder = root / scen2dirs[scenario] / f"run{run}"
    folder.mkdir()
    lists = {f"train_batch_{i:02d}": lines for i, lines in enumerate(train)}
    for name, lines in {**lists, "test": test}.items():
        _write_list(folder / f"{name}_filelist.txt", lines)
    _write_tables(root, list(chain(*train)), test)


def _write_list(path: Path, lines: Iterable[Line]) -> None:
    path.write_text("".join(f"{image} {label}\n" for image, label in lines))


def _write_tables(root: Path, train: Sequence[Line], test: Sequence[Line]) -> None:
    """The pickles of all paths, and of labels and indices of the scenario ``ni``."""
    lines = [*train, *test]
    indices, labels = list(range(len(lines))), [label for _, label in lines]
    n = len(train)
    parts = [slice(0, n), *([slice(0, 0)] * (nbatch["ni"] - 1)), slice(n, None)]
    tables = {
        "paths.pkl": [path for path, _ in lines],
        "LUP.pkl": {"ni": [[indices[p] for p in parts]]},
        "labels.pkl": {"ni": [[labels[p] for p in parts]]},
        "labels2names.pkl": {},
    }
    for name, content in tables.items():
        (root / name).write_bytes(pickle.dumps(content))

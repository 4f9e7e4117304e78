"""Write generated images in the number, size and files of CIFAR-10, CIFAR-100 or CORe50.

    python scripts/stand_in.py DIR [--data cifar10 cifar100 core50] [--n N]

Where the real ones are not at hand, runs on these take as long; their accuracies are not
those of the data set. DIR is new; it says in STAND_IN.txt what it holds, and a run that
reads it wants a `--note` that says so too. `--n` writes fewer images of each class, for a
try. CORe50 is its scenario nicv2_391, run 0: 122,000 files, 3 GB, some minutes.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.streams.stand_in import MARK, class_images, is_stand_in

TRAIN_SESSIONS, TEST_SESSIONS = (1, 2, 4, 5, 6, 8, 9, 11), (3, 7, 10)  # of CORe50
N_OBJECTS, N_FIRST, FRAMES = 50, 10, 300
TEST_STEP = 20  # of the test images, the protocol of NICv2 takes every twentieth


def cifar10(root: Path, n: int | None) -> None:
    """Five training batches and one for testing, of 1,000 images a class each."""
    each = 1000 if n is None else -(-n // 5)
    folder = root / "cifar-10-batches-py"
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        _pickle(folder / name, _batch("labels", range(10), each, seed=i))
    _pickle(folder / "batches.meta", {"label_names": [str(c) for c in range(10)]})


def cifar100(root: Path, n: int | None) -> None:
    """500 training images and 100 for testing of each class."""
    folder = root / "cifar-100-python"
    for seed, (name, most) in enumerate({"train": 500, "test": 100}.items()):
        each = min(n or most, most)
        _pickle(
            folder / name,
            _batch("fine_labels", range(100), each, seed=10 + seed, apart=10),
        )
    _pickle(folder / "meta", {"fine_label_names": [str(c) for c in range(100)]})


def _batch(
    name: str, classes: range, each: int, *, seed: int, apart: int = 0
) -> dict[str, object]:
    """Images row by row, one channel after the other, their classes mixed.

    Class 0 is drawn as the one numbered ``apart``, to differ from another data set's.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(classes, each)).tolist()
    images = class_images([apart + c for c in labels], 32, rng).transpose(0, 3, 1, 2)
    return {"data": images.reshape(len(labels), -1), name: labels}


def _pickle(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


def core50(root: Path, n: int | None) -> None:
    """Images of 50 objects in 8 sessions for training: each pair once in the stream.

    The first experience brings ten objects, each later one one object of one session.
    The tested images are every twentieth of three further sessions.
    """
    from benchmarks.streams.core50_lists import image_path, write_core50_lists

    frames = min(n or FRAMES, FRAMES)
    first = [(TRAIN_SESSIONS[0], o) for o in range(0, N_OBJECTS, N_OBJECTS // N_FIRST)]
    pairs = [(s, o) for s in TRAIN_SESSIONS for o in range(N_OBJECTS)]
    later = [pair for pair in pairs if pair not in first]
    np.random.default_rng(0).shuffle(later)
    every = [first, *([pair] for pair in later)]
    train = [
        [(image_path(s, o, f), o) for s, o in its for f in range(frames)]
        for its in every
    ]
    # one file stands for the twenty of which one is tested
    rows = range(0, frames, TEST_STEP)
    test = [
        (image_path(s, o, f), o)
        for s in TEST_SESSIONS
        for o in range(N_OBJECTS)
        for f in rows
        for _ in range(TEST_STEP)
    ]
    write_core50_lists(root, "nicv2_391", 0, train, test)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [(s, o, range(frames)) for s, o in pairs]
        jobs += [(s, o, rows) for s in TEST_SESSIONS for o in range(N_OBJECTS)]
        list(pool.map(lambda job: _session(root / "core50_128x128", *job), jobs))


def _session(tree: Path, session: int, label: int, frames: range) -> None:
    """The images of an object in a session."""
    from benchmarks.streams.core50_lists import image_path

    rng = np.random.default_rng([session, label])
    (tree / image_path(session, label, 0)).parent.mkdir(parents=True)
    images = class_images([label] * len(frames), 128, rng)
    for frame, image in zip(frames, images, strict=True):
        path = tree / image_path(session, label, frame)
        Image.fromarray(image).save(path, compress_level=1)


WRITERS = {"cifar10": cifar10, "cifar100": cifar100, "core50": core50}


def _empty(folder: Path, text: str) -> None:
    """Make a folder, or empty one that a kill left; it is marked before all else.

    Raises:
        FileExistsError: If it holds what is not generated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not is_stand_in(folder) and any(folder.iterdir()):
        raise FileExistsError(0, "it holds something else; wanted a new folder")
    (folder / MARK).write_text(text)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()


def main() -> None:
    """Write what is asked for; a finished folder stays as it is."""
    parser = argparse.ArgumentParser(description="Write stand-in images.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", nargs="+", choices=WRITERS, default=list(WRITERS))
    parser.add_argument(
        "--n", type=int, help="images of a class; none: as many as real"
    )
    given = parser.parse_args()
    root: Path = given.folder
    if given.n is not None and given.n < 1:
        parser.error(f"--n is {given.n}; wanted an integer >= 1")
    size = "as many as real ones" if given.n is None else f"{given.n} a class"
    text = f"Generated images, none of the data set: {', '.join(given.data)}; {size}\n"
    if is_stand_in(root) and (root / MARK).read_text() == text:
        return
    if root.exists():
        parser.error(f"{root} exists and holds something else; wanted a new folder")
    partial = root.with_name(f"{root.name}.partial")
    try:
        _empty(partial, text)
    except OSError as error:
        parser.error(f"{partial} cannot be made anew: {error.strerror}")
    for name in given.data:
        WRITERS[name](partial, given.n)
    partial.rename(root)


if __name__ == "__main__":
    main()

"""Options of detectors are checked, and kept as plain numbers."""

from __future__ import annotations

import numpy as np
import pytest

from avalanche_ext.models.experience_detectors import ExperienceDetectors


def test_numbers_of_numpy_count_as_python_s():
    names = ("features", "num_trees", "max_depth", "min_samples_leaf", "seed")
    ours = ExperienceDetectors(**{name: np.int64(7) for name in names})
    kept = [ours.features, ours.min_samples_leaf, ours.seed, *ours.forest.values()]
    assert {type(value) for value in kept} == {int, type(None)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features is 0; wanted a whole number, at least 1"),
        ({"num_trees": 1.5}, "num_trees is 1.5; wanted a whole number, at least 1"),
        ({"max_depth": 0}, "max_depth is 0; wanted"),
        ({"min_samples_leaf": 0}, "min_samples_leaf is 0; wanted"),
        ({"seed": -1}, "seed is -1; wanted a whole number, at least 0"),
        ({"seed": 2**32}, r"seed is 4294967296; wanted .* below 2\*\*32"),
        ({"make_detector": 3}, "make_detector is 3; wanted a function"),
        ({"class_weight": "even"}, "class_weight is 'even'; wanted one of None, 'bal"),
        ({"table": "even"}, "table is 'even'; wanted one of 'balanced', 'code'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExperienceDetectors(**options)

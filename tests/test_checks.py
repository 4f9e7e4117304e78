"""Checks of arguments."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from avalanche_ext._checks import (
    require_choice,
    require_fraction,
    require_kind,
    require_real,
    require_whole,
)


def test_values_in_range_pass():
    require_whole(1, a=1, b=np.int64(3))
    require_real(0, a=0, b=1.5, c=np.float32(2))
    require_fraction(a=0, b=1, c=np.float32(0.5))
    require_choice((True, False), a=True, b=False)
    require_choice(("x", None), a="x", b=None)
    require_kind(nn.Module, a=nn.ReLU())


@pytest.mark.parametrize("value", [0, 1.0, True, "1", None])
def test_what_is_not_a_whole_number_is_named(value):
    with pytest.raises(ValueError, match=f"size is {value!r}; wanted a whole number"):
        require_whole(1, size=value)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", None, True])
def test_what_is_not_a_number_in_range_is_named(value):
    with pytest.raises(ValueError, match=f"rate is {value!r}; wanted a number"):
        require_real(0, rate=value)


@pytest.mark.parametrize("value", [1, 0, "True", None])
def test_what_is_no_choice_is_named(value):
    with pytest.raises(ValueError, match=f"flag is {value!r}; wanted one of True, F"):
        require_choice((True, False), flag=value)


def test_what_is_no_object_of_the_class_is_named():
    with pytest.raises(ValueError, match="model is .*ReLU'>; wanted a Module"):
        require_kind(nn.Module, model=nn.ReLU)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "1", None, True])
def test_what_is_no_fraction_is_named(value):
    with pytest.raises(ValueError, match=f"share is {value!r}; wanted a number from 0"):
        require_fraction(share=value)

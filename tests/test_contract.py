"""Every plugin, buffer and strategy is held to the same contract."""

from __future__ import annotations

import contract
import pytest
from cases import APIS, naive_with
from subjects import SUBJECTS, WEIGHTLESS

from avalanche_ext.plugins import MemoryResidentPlugin

subjects = pytest.mark.parametrize("subject", SUBJECTS)
apis = pytest.mark.parametrize("api", APIS)


@apis
@pytest.mark.parametrize("subject", WEIGHTLESS)
def test_weight_zero_equals_naive_bit_for_bit(subject, api):
    contract.assert_equals_naive(WEIGHTLESS[subject], naive_with, api)


@apis
@subjects
def test_same_seed_gives_the_same_result(subject, api):
    contract.assert_seed_fixes_the_result(SUBJECTS[subject], api)


@apis
@subjects
def test_model_is_left_as_found(subject, api):
    contract.assert_model_left_as_found(SUBJECTS[subject], api)


@apis
@subjects
def test_evaluation_changes_nothing(subject, api):
    # Naive alone draws random numbers to evaluate; with this plugin it does not
    def make(**options):
        return SUBJECTS[subject](plugins=[MemoryResidentPlugin()], **options)

    contract.assert_evaluation_changes_nothing(make, api)


@apis
@subjects
def test_resuming_equals_never_stopping(subject, api, tmp_path):
    contract.assert_resume_equals_never_stopping(SUBJECTS[subject], api, tmp_path)

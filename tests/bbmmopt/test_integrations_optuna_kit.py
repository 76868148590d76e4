"""BBMMSampler passes the tests that Optuna has for samplers: all 126 of them."""

import math
from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from bbmmopt.integrations.optuna import BBMMSampler


class TestOptunasOwnKit(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # The model from the third trial on: the start would pass these tests without it.
        return lambda: BBMMSampler(seed=0, n_startup_trials=2)


def cases(test: Callable[..., None]) -> int:
    """How many tests a parametrized function is."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    return math.prod(len(list(mark.args[1])) for mark in marks)


def test_the_kit_has_126_tests_and_all_of_them_are_run():
    kit = TestOptunasOwnKit
    tests = [getattr(kit, name) for name in dir(kit) if name.startswith("test_")]
    assert sum(map(cases, tests)) == 126
    assert "sampler" in vars(kit)  # the one thing that is not Optuna's
    assert not [name for name in vars(kit) if name.startswith("test_")]

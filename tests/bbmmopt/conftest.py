"""Fixtures that several test files of `bbmmopt` share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from oracles import uniform

from bbmmopt import Optimizer
from bbmmopt.search import budget
from surrogate import Posterior
from tests.bbmmopt.acquisitions import gp
from tests.bbmmopt.clocks import Clock
from tests.bbmmopt.shell import SVM, create, line, lines


@pytest.fixture
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the command line works on files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BBMMOPT_DEBUG", raising=False)


@pytest.fixture
def a_run(in_an_empty_directory: None) -> str:
    """Two complete trials, one failed, one running."""
    create(SVM)
    lines("ask", "study.db", "-n", 4)
    line("tell", "study.db", 0, 0.5)
    line("tell", "study.db", 1, 0.25, "--se", 0.125)
    line("tell", "study.db", 2, "--failed", "Traceback\n  in f\nZeroDivisionError: [red]")
    return "study.db"


@pytest.fixture
def posterior() -> Posterior:
    """Nine observations in three columns."""
    return gp(0)


@pytest.fixture
def candidates() -> torch.Tensor:
    """Six rows of three columns."""
    return uniform(torch.Generator().manual_seed(1), 6, 3)


@pytest.fixture
def canvas() -> Iterator[None]:
    """Draw without a window; leave nothing behind, neither figures nor settings."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    before = mpl.rcParams.copy()
    assert plt.get_fignums() == []
    yield
    assert dict(mpl.rcParams) == dict(before)
    plt.close("all")


@pytest.fixture(scope="session")
def smooth() -> Optimizer:
    """Two parameters, one of them log; complete, failed, running and waiting trials."""
    from tests.bbmmopt.pictures import smooth_run

    return smooth_run()


@pytest.fixture(scope="session")
def mixed() -> Optimizer:
    """A conditional space with every kind of parameter."""
    from tests.bbmmopt.pictures import mixed_run

    return mixed_run()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that limits on the time of an ask go by."""
    clock = Clock()
    monkeypatch.setattr(budget, "now", clock)
    return clock

"""Fixtures that several test files of `bbmmopt` share."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import uniform

from bbmmopt import Optimizer
from bbmmopt.search import budget
from bbmmopt.storage import Storage, open_storage
from benchmarks.postgres import PostgresServer
from surrogate import Posterior
from tests.bbmmopt.acquisitions import gp
from tests.bbmmopt.clocks import Clock
from tests.bbmmopt.shell import SVM, create, line, lines
from tests.bbmmopt.storages import RECORD


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell that runs the tests in its background has SIGINT ignored, and runs leave it so."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the command line works on files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BBMMOPT_DEBUG", raising=False)
    monkeypatch.delenv("BBMMOPT_STORAGE", raising=False)


@pytest.fixture
def a_run(in_an_empty_directory: None) -> str:
    """Two complete trials, one failed, one running."""
    create(SVM)
    lines("ask", "study.db", "-n", 4)
    line("tell", "study.db", 0, 0.5)
    line("tell", "study.db", 1, 0.25, "--se", 0.125)
    line("tell", "study.db", 2, "--failed", "Traceback\n  in f\nZeroDivisionError: [red]")
    return "study.db"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """An open storage with an empty study, of each kind."""
    where = None
    if request.param == "sqlite":
        where = tmp_path / "study.db"
    elif request.param == "postgres":
        where = request.getfixturevalue("postgres_url")
    with open_storage(where) as storage:
        storage.create_study(RECORD)
        yield storage


@pytest.fixture
def client(storage: Storage) -> Iterator[Any]:
    """Of a dashboard of the storage."""
    from tests.bbmmopt.dashboards import client_of  # a web server: for those that want one

    with client_of(storage) as client:
        yield client


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server. It trusts the system to write to the disk in time: that is not what is tested."""
    with PostgresServer(fsync=False) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an empty database there."""
    url = postgres.url("test")
    others = "FROM pg_stat_activity WHERE datname = 'test' AND pid <> pg_backend_pid()"
    postgres.execute(f"SELECT pg_terminate_backend(pid) {others}")  # left by the test before
    postgres.execute("DROP SCHEMA public CASCADE", "test")
    postgres.execute("CREATE SCHEMA public", "test")
    return url


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

"""Dashboards to test: their studies, and a client that has the token."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from bbmmopt import Categorical, Integer, Optimizer, Real, Space
from bbmmopt.dashboard import DashboardServer, application
from bbmmopt.dashboard.hub import Hub
from bbmmopt.storage import Storage, open_storage

TOKEN = "the token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
NASTY = "<script>alert(1)</script>"
TRACEBACK = "Traceback (most recent call last):\n  in f\nZeroDivisionError: <b>zero</b>"

CONDITIONAL = Space(
    {
        "C": Real(1e-3, 1e3, log=True),
        "kernel": Categorical(["rbf", "poly"]),
        "degree": Integer(2, 5, when={"kernel": "poly"}),
        "huge": Integer(0, 2**60),
    }
)


def get(client: "Client", name: str, **query: object) -> dict:
    """What the dashboard answers, which must be no error."""
    answer = client.get(f"/api/{name}", params={"study": "svm"} | query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def conditional_study(where: str | Path | Storage, study: str = "svm") -> Optimizer:
    """Seven complete trials, one failed, one running, one waiting."""
    optimizer = Optimizer(
        CONDITIONAL, minimize="loss", storage=where, study=study, seed=0, n_start=9
    )
    for number in range(8):
        trial = optimizer.ask(worker=f"node{number % 2}")
        if number == 3:
            optimizer.tell(trial, failed=TRACEBACK)
        else:
            optimizer.tell(trial, abs(number - 4.25))
    optimizer.ask(worker="node0")
    optimizer.enqueue({"C": 1.0, "kernel": "poly", "degree": 3, "huge": 2**60 - 1})
    return optimizer


def smooth_study(where: str | Path | Storage, study: str, trials: int = 7) -> Optimizer:
    """Three real parameters."""
    optimizer = Optimizer(
        {"a": Real(0, 1), "b": Real(0, 1), "c": Real(1, 100, log=True)},
        minimize="loss",
        noise="none",
        storage=where,
        study=study,
        seed=0,
        n_start=trials,
    )
    for _ in range(trials):
        trial = optimizer.ask(worker="node0")
        p = trial.params
        optimizer.tell(trial, (p["a"] - 0.3) ** 2 + p["b"] + p["c"] / 100)
    return optimizer


class Client:
    """Asks an application in this process; from several threads, if need be.

    Args:
        client: How.
        portal: To the event loop that it runs in.
    """

    def __init__(self, client: httpx.AsyncClient, portal: BlockingPortal) -> None:
        self._client, self._portal = client, portal

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer."""
        return self._portal.call(lambda: self._client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        """The answer to a GET."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """The answer to a POST."""
        return self.request("POST", path, **options)


@contextmanager
def client_of(storage: Storage, *, read_only: bool = False) -> Iterator[Client]:
    """A client of a dashboard in this process, which brings the token along."""
    hub = Hub(storage, name="study.db", read_only=read_only)
    transport = httpx.ASGITransport(application(hub, token=TOKEN))
    client = httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:8765", headers=HEADERS
    )
    with start_blocking_portal() as portal:
        yield Client(client, portal)
        portal.call(hub.close)
        portal.call(client.aclose)


@contextmanager
def serving(where: str | Path, **options: Any) -> Iterator[DashboardServer]:
    """A dashboard on a port of its own."""
    with open_storage(where) as storage:
        server = DashboardServer(Hub(storage, name="study.db"), token=TOKEN, **options)
        thread = Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join(20)
            assert not thread.is_alive()

"""Facts about who may talk to the dashboard."""

from collections.abc import Iterator

import pytest

from bbmmopt.dashboard.guard import is_loopback, is_ours
from bbmmopt.storage import MemoryStorage, Storage
from tests.bbmmopt.dashboards import HEADERS, Client, client_of, conditional_study

OURS = "http://127.0.0.1:8765"
STOP = {"study": "svm", "reason": "enough"}


@pytest.fixture(scope="module")
def storage() -> Storage:
    """A study that is only looked at, or stopped."""
    storage = MemoryStorage()
    conditional_study(storage)
    return storage


@pytest.fixture(scope="module")
def client(storage: Storage) -> Iterator[Client]:
    """Of a dashboard of it."""
    with client_of(storage) as client:
        yield client


@pytest.mark.parametrize(
    "given", ["", "Bearer ", "Bearer the toke", "Bearer the token ", "the token", "Basic é"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_the_token_nothing_is_answered(client, storage, given, method):
    before = storage.stop_asked("svm", None)[1]
    path = "/api/studies" if method == "GET" else "/api/stop"
    headers = {"Authorization": given.encode()}
    answer = client.request(method, path, json=STOP, headers=headers)
    assert answer.status_code == 401
    assert "which ends in #token=" in answer.json()["error"]
    assert answer.headers["www-authenticate"] == "Bearer"
    assert storage.stop_asked("svm", None)[1] == before


def test_every_address_of_the_api_needs_the_token(client):
    app = client._client._transport.app  # type: ignore[attr-defined]
    paths = [route.path for route in app.routes if route.path.startswith("/api/")]
    assert len(paths) == 9
    for path in paths:
        assert client.get(path, headers={"Authorization": "no"}).status_code == 401, path


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example"])
@pytest.mark.parametrize("path", ["/", "/api/studies", "/static/main.js"])
def test_another_name_that_leads_here_is_refused(client, host, path):
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 403
    assert f"does not go by the name '{host}'" in answer.json()["error"]


@pytest.mark.parametrize(
    ("header", "bound", "ours"),
    [
        ("127.0.0.1:8765", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("localhost:9000", "127.0.0.1", True),  # the other end of a tunnel
        ("LOCALHOST:9000", "127.0.0.1", True),
        ("[::1]:8765", "127.0.0.1", True),
        ("::1", "127.0.0.1", False),
        ("192.168.1.5:8765", "127.0.0.1", False),
        ("192.168.1.5:8765", "0.0.0.0", True),
        ("[fe80::1]:8765", "::", True),
        ("lab.example:8765", "lab.example", True),
        ("evil.example:8765", "0.0.0.0", False),
        ("evil@127.0.0.1", "127.0.0.1", False),
        ("evil.example:x", "127.0.0.1", False),
        ("[::1", "127.0.0.1", False),
        ("", "127.0.0.1", False),
    ],
)
def test_which_names_are_ours(header, bound, ours):
    assert is_ours(header, bound) == ours


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "10.0.0.1", "lab.example", "")),
    ],
)
def test_which_hosts_only_this_machine_reaches(host, answer):
    assert is_loopback(host) == answer


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:8766"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": OURS, "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_pages_change_nothing_even_with_the_token(client, storage, headers):
    before = storage.stop_asked("svm", None)[1]
    answer = client.post("/api/stop", json=STOP, headers=HEADERS | headers)
    assert (answer.status_code, answer.json()["error"]) == (
        403,
        "changes are taken from the dashboard's own page only.",
    )
    assert storage.stop_asked("svm", None)[1] == before


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": OURS}, {"Origin": OURS, "Sec-Fetch-Site": "same-origin"}]
)
def test_our_page_and_programs_with_the_token_may_change(client, headers):
    assert client.post("/api/stop", json=STOP, headers=HEADERS | headers).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/static/main.js", "/plotly.min.js", "/api/studies", "/api/nothing", "/nothing"]
)
def test_every_answer_has_the_headers_that_keep_strangers_out(client, path):
    headers = client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert "script-src" not in policy  # nothing but our own files, and no eval
    assert policy["frame-ancestors"] == policy["object-src"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("no-store" if path.startswith("/api/") else "no-cache")
    assert "access-control-allow-origin" not in headers


def test_the_page_itself_needs_no_token_and_holds_none(client):
    answer = client.get("/", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert "token" not in answer.text

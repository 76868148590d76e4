"""Facts about `bbmmopt dashboard` as a program, and about what it tells a page as time goes by."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import pytest

from bbmmopt import Real
from bbmmopt import dashboard as package
from bbmmopt.cli import main
from bbmmopt.dashboard.hub import Hub
from bbmmopt.dashboard.live import Live
from bbmmopt.storage import open_storage
from bbmmopt.study import Study
from tests.bbmmopt.dashboards import HEADERS, NASTY, serving
from tests.bbmmopt.programs import started
from tests.bbmmopt.shell import create, line, ok, refused, run

pytestmark = [pytest.mark.usefixtures("in_an_empty_directory")]

STATIC = Path(package.__file__).parent / "static"
ROOT = Path(__file__).resolve().parents[2]


# --------------------------------------------------------------------------------------
# The command
# --------------------------------------------------------------------------------------


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program, and the address that it prints."""
    command = ("-m", "bbmmopt", "dashboard", "study.db", "--no-browser", "--port", "0", *options)
    with started(*command, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "Dashboard of study.db, until Ctrl-C:\n"
        yield process, process.stdout.readline().strip()


@pytest.mark.alone
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_with_a_page_open(signal_number):
    create()
    with running("--read-only") as (process, url):
        origin, token = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/#token=(\S{32})", url).groups()
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.stream(
            "GET", f"{origin}/api/notes", params={"study": "default"}, headers=headers
        ) as stream:
            notes = stream.iter_lines()
            assert json.loads(next(notes).removeprefix("data: "))["total"] == 0
            process.send_signal(signal_number)
            assert list(notes) == [""]  # the stream ends, and is not torn
        _, errors = process.communicate(timeout=20)
    assert process.returncode == (0 if signal_number == signal.SIGINT else -signal.SIGTERM)
    assert errors == ""


@pytest.mark.alone
def test_ctrl_c_does_not_wait_for_a_model():
    create()
    code = """
import torch
from bbmmopt import plots
from bbmmopt.cli import main

def compute(*_, **__):
    print("computing", flush=True)
    while True:  # in and out of torch, as a fit is
        torch.linalg.cholesky(torch.eye(300, dtype=torch.float64)).sum().item()

plots.history_data = compute
main(["dashboard", "study.db", "--no-browser", "--port", "0"])
"""
    with started("-c", code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        origin, token = process.stdout.readline().strip().split("/#token=")
        answers: list[httpx.Response] = []
        ask = threading.Thread(
            target=lambda: answers.append(
                httpx.get(
                    f"{origin}/api/picture",
                    params={"study": "default", "kind": "history"},
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=30,
                )
            )
        )
        ask.start()
        assert process.stdout.readline() == "computing\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        ask.join(20)
    assert (process.returncode, errors) == (0, "")
    assert (answers[0].status_code, answers[0].json()["error"]) == (
        503,
        "the dashboard is ending.",
    )


def test_a_port_that_is_taken_is_told():
    create()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refused(2, "dashboard", "study.db", "--no-browser", "--port", port)
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "give another --port" in said


def test_a_host_that_is_not_this_machine_is_told():
    create()
    said = refused(2, "dashboard", "study.db", "--no-browser", "--host", "192.0.2.1")
    assert "cannot listen on 192.0.2.1:8765" in said


def test_a_storage_or_study_that_is_not_there_is_exit_code_3():
    assert "there is no file study.db" in refused(3, "dashboard", "study.db", "--no-browser")
    create()
    said = refused(3, "dashboard", "study.db", "--study", "other", "--no-browser")
    assert "there is no study 'other' in study.db; it holds: default" in said


def test_without_its_libraries_the_command_says_what_to_install(monkeypatch):
    create()
    for name in [name for name in sys.modules if name.startswith("bbmmopt.dashboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    said = refused(2, "dashboard", "study.db", "--no-browser")
    assert "bbmmopt.dashboard needs" in said
    assert "uvicorn" in said
    assert "pip install 'bbmmopt[dashboard]'" in said


@pytest.mark.parametrize("screen", [True, False])
def test_a_browser_is_opened_where_there_is_a_screen(monkeypatch, screen):
    create()
    opened: list[tuple[str, int, str]] = []

    def look(address: str) -> None:
        file = Path(unquote(urlsplit(address).path))
        opened.append((address, file.parent.stat().st_mode & 0o777, file.read_text()))

    monkeypatch.setattr("webbrowser.open", look)
    monkeypatch.setattr("bbmmopt.dashboard.DashboardServer.run", lambda server: server.close())
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0") if screen else monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    url = ok("dashboard", "study.db", "--port", 0).split()[-1]
    assert len(opened) == screen
    for address, mode, text in opened:
        # What a program was started with, all users of a machine can see.
        assert "token" not in address
        assert mode == 0o700
        assert f'content="0; url={url}"' in text
        assert not Path(unquote(urlsplit(address).path)).exists()


def test_another_host_is_warned_of(monkeypatch):
    create()
    monkeypatch.setattr("bbmmopt.dashboard.DashboardServer.run", lambda server: server.close())
    result = run("dashboard", "study.db", "--no-browser", "--port", 0, "--host", "0.0.0.0")
    assert result.exit_code == 0
    assert "not encrypted" in result.stderr
    assert "http://localhost:" in result.stdout
    assert run("dashboard", "study.db", "--no-browser", "--port", 0).stderr == ""


def test_tokens_are_random():
    create()
    with open_storage("study.db") as storage:
        hub = Hub(storage, name="study.db")
        urls = [package.DashboardServer(hub) for _ in range(3)]
        assert len({server.url.split("=")[1] for server in urls}) == 3
        for server in urls:
            server.close()


def test_the_command_is_in_the_help_of_all():
    assert "  dashboard  " in ok("--help")
    assert main.commands["dashboard"].help


@pytest.mark.alone
def test_a_stranger_who_wants_a_websocket_is_refused_and_writes_nothing_in_the_terminal(caplog):
    create()
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with serving("study.db") as server:
        answer = httpx.get(f"{server.origin}/api/notes?study=default", headers=upgrade)
        assert answer.status_code == 401
        host, port = server.origin.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as wild:
            wild.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
            assert b" 400 " in wild.recv(100)
    assert [said for said in caplog.records if said.name.startswith("uvicorn")] == []


# --------------------------------------------------------------------------------------
# The stream of notes
# --------------------------------------------------------------------------------------


def notes(stream: httpx.Response) -> Iterator[dict]:
    for text in stream.iter_lines():
        if text.startswith("data: "):
            yield json.loads(text.removeprefix("data: "))


@pytest.mark.alone
def test_a_page_is_told_whatever_changes():
    create()
    with serving("study.db") as server:
        query = {"study": "default"}
        address = f"{server.origin}/api/notes"
        with httpx.stream("GET", address, params=query, headers=HEADERS, timeout=20) as stream:
            heard = notes(stream)
            assert next(heard)["total"] == 0
            line("enqueue", "study.db", "--param", "x=1")
            note = next(heard)
            assert (note["total"], note["counts"]["waiting"]) == (1, 1)
            told = note["stamp"]["told"]
            line("tell", "study.db", 0, 0.5)
            note = next(heard)
            assert note["best"] == {"number": 0, "values": {"loss": 0.5}, "params": {"x": 1.0}}
            assert note["stamp"]["everything"] == note["stamp"]["told"] > told
            with Study.open("study.db") as study:
                Study({"x": Real(0, 1)}, minimize="a", storage=study.storage, study=NASTY)
            assert next(heard)["studies"] == ["default", NASTY]


@pytest.mark.alone
def test_a_storage_that_goes_away_is_told_and_comes_back():
    create()
    with serving("study.db") as server:
        query = {"study": "default"}
        address = f"{server.origin}/api/notes"
        with httpx.stream("GET", address, params=query, headers=HEADERS, timeout=20) as stream:
            heard = notes(stream)
            assert next(heard)["trouble"] is None
            Path("study.db").rename("elsewhere.db")
            assert "study.db" in next(heard)["trouble"]
            Path("elsewhere.db").rename("study.db")
            note = next(heard)
            while note["trouble"]:
                note = next(heard)
            assert note["total"] == 0


@pytest.mark.alone
def test_an_error_that_nobody_expects_is_told_and_shown_once_where_the_dashboard_runs(
    monkeypatch, capsys
):
    create()
    looks = []

    def breaks(live):
        looks.append(live)
        raise LookupError("in the dashboard itself")

    with serving("study.db") as server, monkeypatch.context() as broken:
        broken.setattr(Live, "summary", breaks)
        address, query = f"{server.origin}/api/notes", {"study": "default"}
        with httpx.stream("GET", address, params=query, headers=HEADERS, timeout=20) as stream:
            heard = notes(stream)
            said = next(heard)["trouble"]
            assert said.startswith("unexpected LookupError: in the dashboard itself")
            while len(looks) < 3:
                time.sleep(0.01)
            broken.undo()
            assert next(heard)["trouble"] is None
    shown = capsys.readouterr().err
    assert shown.count("Traceback") == shown.count("LookupError: in the dashboard itself") == 1


# --------------------------------------------------------------------------------------
# What is shipped
# --------------------------------------------------------------------------------------


def test_every_file_of_the_page_is_in_the_wheel():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = data["tool"]["setuptools"]["package-data"]["bbmmopt"]
    files = [path.relative_to(STATIC.parents[1]).as_posix() for path in STATIC.rglob("*.*")]
    assert len(files) > 10
    assert [f for f in files if not any(fnmatch(f, pattern) for pattern in patterns)] == []


def test_every_file_that_the_page_names_is_there():
    named = set(re.findall(r'(?:src|href)="/static/([^"]+)"', (STATIC / "index.html").read_text()))
    for script in STATIC.glob("*.js"):
        named |= set(re.findall(r'from "\./([^"]+)"', script.read_text()))
    assert named | {"index.html"} == {path.name for path in STATIC.iterdir()}


def test_nothing_of_the_page_makes_html_of_text_or_comes_from_elsewhere():
    words = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(")
    for path in STATIC.iterdir():
        text = path.read_text()
        assert [word for word in words if word in text] == [], path.name
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)[\w.]+", text) == [], path.name

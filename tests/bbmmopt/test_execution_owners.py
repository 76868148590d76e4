"""Names of workers, which tell whether their runs are gone."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from bbmmopt.execution import owners as owners_module
from bbmmopt.execution.owners import is_gone, own_name


def renamed(name: str, **fields: str) -> str:
    return str(replace(owners_module._Owner(*name.split(":")), **fields))


def test_a_run_is_gone_when_its_process_has_ended_or_it_has_returned() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with own_name() as name, own_name() as other:
        assert name != other
        assert not is_gone(name)
        assert is_gone(renamed(name, pid=str(ended.pid)))
        assert is_gone(renamed(name, start="1"))  # the process id was used again
    assert is_gone(name)


def test_a_killed_process_that_nobody_waited_for_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with own_name() as name:
            start = owners_module._start(process.pid)[1]
            theirs = renamed(name, pid=str(process.pid), start=start)
            assert not is_gone(theirs)
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still listed
            assert is_gone(theirs)
    finally:
        process.communicate()


@pytest.mark.parametrize(
    ("fields", "gone"),
    [
        ({"host": "elsewhere"}, False),
        ({"machine": "00000000"}, False),
        ({"namespace": "1"}, False),
        ({"boot": "00000000"}, True),
        ({"machine": "", "boot": "00000000"}, False),
    ],
)
def test_other_machines_and_containers_are_told_apart_and_reboots_noticed(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], gone: bool
) -> None:
    here = owners_module._Owner("host", "1", "2", "m", "b", "4", "0")
    if fields.get("machine") == "":
        here = replace(here, machine="")
    monkeypatch.setattr(owners_module, "_here", lambda run: here)
    assert is_gone(str(replace(here, **fields))) is gone


@pytest.mark.parametrize("name", [None, "", "alice", "lab:7", "a:b:c:d:e:f:g", "::::::"])
def test_names_that_people_give_are_never_gone(name: str | None) -> None:
    assert not is_gone(name)

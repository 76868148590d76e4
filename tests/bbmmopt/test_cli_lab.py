"""Facts about examples/lab_loop.sh: a robot's loop in bash, killed and started again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bbmmopt.shell import line, lines

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("in_an_empty_directory")]

LOOP = Path(__file__).resolve().parents[2] / "examples" / "lab_loop.sh"


def started(*arguments: str) -> subprocess.Popen[str]:
    """The loop, in a process group of its own; its bbmmopt is that of this Python."""
    program = Path("bin/bbmmopt")
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bbmmopt "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent.absolute()}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", str(LOOP), *arguments],
        env=os.environ | {"PATH": path, "PYTHONPATH": str(LOOP.parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_robot_that_is_killed_goes_on_where_it_was():
    robot = started("lab.db", "2")
    assert robot.stdout is not None
    for text in robot.stdout:
        if "cycle 1" in text:
            break
    os.killpg(robot.pid, signal.SIGKILL)
    robot.wait(60)
    robot.stdout.close()
    (before,) = lines("trials", "lab.db", "--json")
    assert (before["state"], before["worker"]) == ("running", "robot-1")
    bubble = {"temperature": 90, "flow": 0.2, "solvent": "water"}
    line("enqueue", "lab.db", "--params", json.dumps(bubble))

    said, _ = started("lab.db", "2").communicate(timeout=600)
    first, second = lines("trials", "lab.db", "--json")
    assert first["params"] == before["params"]
    assert (first["state"], first["worker"]) == ("complete", "robot-1")
    assert (second["state"], second["reason"]) == ("failed", "a bubble in the cell")
    assert second["params"] == bubble
    kinds = [event["kind"] for event in lines("events", "lab.db", "--json", "--trial", 0)]
    assert kinds[0] == "asked"
    assert kinds[-1] == "told"
    assert said.splitlines()[-1] == "all 2 trials are in lab.csv", said
    best = next(json.loads(text) for text in said.splitlines() if '"state"' in text)
    assert best["number"] == 0
    assert Path("lab.csv").read_text().count("\n") == 3

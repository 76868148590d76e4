"""What a run shows."""

import io
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from objectives import (
    Nth,
    bowl,
    quiet,
    raises_above_zero,
)
from rich.console import Console

from bbmmopt.execution.progress import Live, Status
from bbmmopt.storage import open_storage


def test_progress_in_a_log_shows_the_best_value_and_failures(
    capfd: pytest.CaptureFixture[str],
) -> None:
    result = quiet(objective=raises_above_zero, n_trials=10, name="loss", progress=True)
    output, errors = capfd.readouterr()
    last = errors.splitlines()[-1]
    assert last.startswith("10/10  ")
    assert f"best loss {result.best.value:.6g} (trial {result.best.number})" in last
    assert f"{result.n_failed} failed" in last
    assert len(errors.splitlines()) == 10
    assert "\x1b" not in errors
    assert output == ""


@pytest.mark.parametrize("progress", [False, None])
def test_nothing_is_printed_unless_it_is_wanted_or_there_is_a_terminal(
    capfd: pytest.CaptureFixture[str], progress: bool | None
) -> None:
    quiet(progress=progress)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("progress", [False, None, True])
def test_an_interrupted_run_says_how_to_resume_unless_it_must_be_silent(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, progress: bool | None
) -> None:
    ctrl_c = Nth(1, lambda: signal.raise_signal(signal.SIGINT) or 1.0)
    quiet(objective=ctrl_c, progress=progress)
    errors = capfd.readouterr().err
    assert ("in memory only" in errors) is (progress is not False)
    ctrl_c.calls = 0
    with open_storage(tmp_path / "study.db") as storage:
        quiet(objective=ctrl_c, progress=progress, storage=storage)
    errors = capfd.readouterr().err
    assert ("n_trials=4 completes this run" in errors) is (progress is not False)
    assert errors == "" or progress is not False


def test_the_live_bar_shows_what_there_is() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=150, color_system=None)
    now = time.monotonic()
    with Live(40, console) as bar:
        bar.show(Status(8, 40, 3, 2, "loss[a] 0.5 (trial 7)", began=now - 60, latest=now))
        bar.say("[bold] is not markup")
    text = screen.getvalue()
    for part in ("8/40", "best loss[a] 0.5 (trial 7)", "3 failed", "2 running", "left"):
        assert part in text
    assert "[bold] is not markup" in text


def test_a_remark_is_read_whole_on_a_narrow_terminal() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    now = time.monotonic()
    remark = "finishing trials under way; Ctrl-C again abandons"
    with Live(40, console) as bar:
        bar.show(Status(18, 40, 3, 2, "loss 0.5 (trial 7)", began=now - 60, latest=now))
        bar.note(remark)
    assert remark in screen.getvalue()


def test_the_time_left_goes_by_the_pace_so_far_and_the_timeout() -> None:
    status = Status(done=4, total=10, failed=0, running=1, best="", began=100.0, latest=140.0)
    assert status.left(145.0) == 60.0 - 5.0  # ten seconds each, six to go, the clock runs
    assert replace(status, until=170.0).left(145.0) == 25.0
    assert status.left(1000.0) == 0.0
    assert replace(status, done=0).left(110.0) is None
    assert replace(status, done=10).words(150.0) == "1 running"
    assert replace(status, total=5004).words(140.0) == "1 running · 13:53:20 left"


def test_a_terminal_gets_a_bar_and_the_objectives_output_stays_where_it_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    def talks(x: float, y: float) -> float:
        print("to stdout")
        return bowl(x, y)

    result = quiet(objective=talks, progress=None)
    output, errors = capsys.readouterr()
    assert output == "to stdout\n" * 6
    assert "6/6" in errors
    assert f"(trial {result.best.number})" in errors

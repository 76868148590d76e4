"""What a notebook shows of a run while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from bbmmopt.execution import progress
from bbmmopt.execution.progress import InNotebook, Status, make_display
from tests.bbmmopt.pages import HOSTILE, Page


class Screen:
    """Takes what would be displayed."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bool]] = []
        self.identities: set[str] = set()

    def __call__(self, content: Any, *, display_id: str, update: bool) -> None:
        self.calls.append((repr(content), content._repr_html_(), update))
        self.identities.add(display_id)

    def wait_for(self, seen: Callable[[str], bool]) -> None:
        """Until something was displayed, five seconds at most."""
        end = time.monotonic() + 5
        while not any(seen(text) for text, _, _ in self.calls):
            assert time.monotonic() < end
            time.sleep(0.01)


def status(done: int, **options: Any) -> Status:
    now = time.monotonic()
    fields = {"failed": 0, "running": 1, "best": "loss 0.5 (trial 7)", "began": now, "latest": now}
    return Status(done, **{"total": 2000} | fields | options)


@pytest.mark.alone
def test_thousands_of_trials_replace_one_output_a_few_times() -> None:
    screen = Screen()
    began = time.monotonic()
    with InNotebook(screen) as bar:
        for done in range(2000):
            bar.show(status(done))
        screen.wait_for(lambda text: text.startswith("1999/2000"))
        bar.show(status(2000, running=0))
    took = time.monotonic() - began
    assert [update for _, _, update in screen.calls] == [False] + [True] * (len(screen.calls) - 1)
    assert len(screen.identities) == 1
    assert 3 <= len(screen.calls) <= 3 + took / 0.2
    text, html, _ = screen.calls[-1]
    assert text == "2000/2000  best loss 0.5 (trial 7)"
    assert Page(html).text.strip() == text
    assert '<progress value="2000" max="2000">' in html


@pytest.mark.alone
def test_a_remark_is_displayed_and_gone_in_the_end() -> None:
    screen = Screen()
    with InNotebook(screen) as bar:
        bar.show(status(3))
        bar.note("finishing trials under way")
        screen.wait_for(lambda text: "finishing trials under way" in text)
    assert screen.calls[-1][0].startswith("3/2000  best loss")


@pytest.mark.alone
def test_nothing_is_sent_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.01)
    screen = Screen()
    with InNotebook(screen) as bar:
        bar.show(status(2000))
        time.sleep(0.1)
    assert len(screen.calls) == 1


def test_an_open_number_of_trials_has_no_bar_and_names_are_text() -> None:
    screen = Screen()
    with InNotebook(screen) as bar:
        bar.show(status(3, total=float("inf"), best=HOSTILE))
    text, html, _ = screen.calls[0]
    assert text.startswith("3  best <script>")
    assert Page(html).text == text and "<progress" not in html


def test_outside_a_notebook_nothing_is_displayed() -> None:
    assert not isinstance(make_display(True, 3), InNotebook)


CELL = """
from bbmmopt import Real, minimize
def loss(x):
    time.sleep(0.01)
    return x * x
_ = minimize(loss, {"x": Real(-1, 1)}, n_trials=60, n_start=60, seed=0, OPTIONS)
"""


@pytest.mark.alone
def test_in_a_real_notebook_each_run_has_one_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    options = ["progress=None", "progress=True, workers=2", "progress=False", "catch=()"]
    cells = ["import time" + CELL.replace("OPTIONS", each) for each in options]
    cells[-1] = cells[-1].replace("return x * x", "return 1 / 0")
    sheet = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    kinds: list[str] = []

    class Client(nbclient.NotebookClient):
        def process_message(self, msg: dict, cell: Any, cell_index: int) -> Any:
            kinds.append(f"{cell_index} {msg['msg_type']}")
            return super().process_message(msg, cell, cell_index)

    Client(sheet, timeout=60, kernel_name="python3", allow_errors=True).execute()
    first, second, silent, failing = (cell.outputs for cell in sheet.cells)
    for outputs in (first, second):
        (output,) = outputs
        assert output.output_type == "display_data"
        assert output.data["text/plain"].startswith("60/60  best value ")
        assert '<progress value="60" max="60">' in output.data["text/html"]
        assert "\x1b" not in output.data["text/plain"]
    assert silent == []
    assert [output.output_type for output in failing] == ["display_data", "error"]
    assert "1 failed" in failing[0].data["text/plain"]
    # Updates belong to the cell whose run they are of; the run took 0.6 s and a little.
    assert 1 <= kinds.count("0 update_display_data") <= 12

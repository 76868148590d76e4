"""Worker processes on one thread each, and the description of the machine they run on."""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
LIBRARIES = ("ours", "botorch", "optuna")

_ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    )
}


class WorkerFailed(RuntimeError):
    """A library raised, or its process ended."""


class Process:
    """A worker of one library; call `ask` with the name of a request and its fields."""

    def __init__(
        self, library: str, python: str, log: Path | None = None, script: str = "worker.py"
    ) -> None:
        self.library = library
        self._log = log.open("a") if log else None
        self._child = subprocess.Popen(
            [python, str(HERE / script), library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log or subprocess.DEVNULL,
            env=os.environ | _ONE_THREAD,
            text=True,
        )

    def ask(self, do: str, **fields: object) -> dict:
        assert self._child.stdin and self._child.stdout
        try:
            self._child.stdin.write(json.dumps({"do": do, **fields}) + "\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerFailed(f"{self.library}: the process ended ({self._child.wait()}) in {do}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(f"{self.library}, {do}: {answer['error']}")
        return answer

    def close(self) -> None:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait()
        if self._log:
            self._log.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peer-python",
        default=os.environ.get("PEER_PYTHON", sys.executable),
        help="interpreter that has botorch and optuna (default: $PEER_PYTHON, else this one)",
    )
    parser.add_argument("--log", type=Path, help="append what the libraries print to this file")


def start(library: str, options: argparse.Namespace) -> Process:
    """A worker for a library, in the interpreter that has it."""
    python = sys.executable if library == "ours" else options.peer_python
    return Process(library, python, options.log)


def run_to_limit(command: list[str], threads: int, limit: float) -> tuple[list[dict], str]:
    """Run a script that prints lines of JSON; those it printed, and how it ended."""
    limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
        env=os.environ | limits,
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit)
            outcome = _ended(process.returncode, errors)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            outcome = f"stopped after {limit:g} s"
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")], outcome


def _ended(code: int, errors: str) -> str:
    if code == 0:
        return "done"
    lines = errors.strip().splitlines()
    if lines:
        return lines[-1]
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def without_folders(text: str) -> str:
    """An error's text as results hold it: they name no folders of a machine."""
    return re.sub(r"(/[^/\s]+)+/", "", text).strip()


def machine() -> str:
    """The processor and the system, in words that name nobody's computer."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return (
        f"{model}, {os.cpu_count()} logical cores, "
        f"{platform.system()}, Python {platform.python_version()}"
    )


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def revision() -> str:
    """The commit of this checkout, with a mark if files other than results were changed since."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(HERE.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return (git("describe", "--always") or "unknown") + ("-dirty" if changed else "")

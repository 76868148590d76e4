"""Clocks and memory of a device, and processes that print what they measure as lines of JSON."""

import gc
import json
import os
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks.processes import without_folders

Row = dict[str, Any]

_LONGEST = 300  # characters of an error's text
# glibc gives tensors of a few MiB back to the system at once, and takes them page by page again,
# until a process has freed a larger one, of 32 MiB at most. Without that GPyTorch took 1.8 s for
# its first products at n = 10⁴ and 0.4 s for the same ones later: nobody's merit or fault.
_LARGE = 31 * 2**20
_WARM_RUNS, _WARM_SECONDS, _QUICKER = 6, 8.0, 0.9
_SEVERAL = 3


class Clock:
    """How much of some seconds is left."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.perf_counter() + seconds

    def left(self) -> float:
        """Negative once they are over."""
        return self._end - time.perf_counter()


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """What one run takes: by the device's own clock where it has one."""
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        run()
        end.record()
        end.synchronize()
    return start.elapsed_time(end) / 1000  # from milliseconds


def timed(
    run: Callable[[], object], device: torch.device, clock: Clock, runs: int, most: float
) -> Row:
    """Median, least and most seconds of several runs, after some that are not counted.

    These go on until one is hardly quicker than the one before. The first compiles what is to be
    compiled, and is "first"; where there is no time for another, it is all there is, and "runs" is
    0.

    Args:
        run: What is timed.
        device: Where it runs.
        clock: No run begins that would end after it, going by the last one.
        runs: No more than these.
        most: After a few runs, no further one begins once so many seconds are over.
    """
    reset_peak(device)
    began = time.perf_counter()
    run()
    wait(device)
    first = last = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(_WARM_RUNS):
        if last > clock.left() or time.perf_counter() - began > _WARM_SECONDS:
            break
        before, last = last, seconds_of(run, device)
        if last > _QUICKER * before:
            break
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < runs and last < clock.left():
        times.append(seconds_of(run, device))
        last = times[-1]
        if len(times) >= _SEVERAL and time.perf_counter() - began > most:
            break
    return {
        "seconds": statistics.median(times or [first]),
        "least": min(times or [first]),
        "most": max(times or [first]),
        "runs": len(times),
        "first": first,
        "peak_mib": peak_mib(device),
    }


def reset_peak(device: torch.device) -> None:
    """From here on the most memory is counted anew, on a GPU; on the CPU it is of the process."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: torch.device) -> float:
    """The most memory of tensors on a GPU at once, or of the process on the CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (2**20 if sys.platform == "darwin" else 2**10), 1)


def guarded(row: Row, measure: Callable[[], Row]) -> Row:
    """A row with what was measured, or with the text of the error in its place.

    After some errors a process can do nothing more on its GPU: "fatal" says so.
    """
    try:
        return row | measure()
    except Exception as error:
        traceback.print_exc()
        found = row | {"error": told(error)}
    # Out here nothing holds the tensors of the attempt any longer.
    gc.collect()
    return found if _answers() else found | {"fatal": True}


def _answers() -> bool:
    """Whether the GPU that this process uses still computes, if it uses one."""
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.empty_cache()
        return float(torch.ones(1, device="cuda").add(1)) == 2
    except RuntimeError:
        return False


def told(error: BaseException) -> str:
    """Type and first line of an error, without folders of this machine."""
    text = f"{type(error).__name__}: {without_folders(str(error))}"
    return text.splitlines()[0][:_LONGEST]


def described(device: torch.device) -> Row:
    """The device in words, and the versions of what computes there."""
    packages = ("torch", "triton", "numpy", "bbmmopt", "gpytorch", "linear_operator", "botorch")
    found: Row = {"device": "cpu", "cuda": torch.version.cuda}
    found["versions"] = {
        name: _version(name) for name in (*packages, "pykeops") if _version(name) is not None
    }
    found["versions"] = {"python": sys.version.split()[0], **found["versions"]}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
        }
    found["threads"] = torch.get_num_threads()
    return found


def _version(name: str) -> str | None:
    if find_spec(name) is None:
        return None
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout on the path
        return "not installed"


def serve(parts: dict[str, Callable[..., Iterator[Row]]]) -> None:
    """Be the process of one part: see `gpu.run_part` for what it is told.

    Prints each row as it is there. An error that a part does not guard itself against is its last
    row, and so is one after which the device cannot be used.
    """
    from benchmarks.gpu_plan import Plan

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to stderr
    task = json.loads(sys.argv[1])

    def answer(row: Row) -> None:
        answers.write(json.dumps(row) + "\n")

    clock = Clock(task["seconds"])
    try:
        device = usable(task["device"])
        answer({"about": described(device)})
        plan = Plan.from_fields(task["plan"])
        torch.zeros(_LARGE, dtype=torch.uint8)
        for row in parts[task["part"]](plan, device, clock, **task.get("options", {})):
            answer(row)
            if row.get("fatal"):
                break
    except Exception as error:
        traceback.print_exc()
        answer({"error": told(error)})


def usable(name: str) -> torch.device:
    """The device of that name, with its index; current from here on, if it is a GPU.

    Raises:
        RuntimeError, AssertionError: Where torch cannot use it.
    """
    device = torch.zeros(1, device=name).device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device

"""Who runs a trial: a name for each run, and whether the run of a name is gone.

A process that was killed leaves its trials running. The next run on the same machine takes them
over, and so goes on exactly where the dead one was. A trial of a living run is never taken, nor
one of whose runner we cannot be sure: on another machine, in another container, of a person.
"""

import hashlib
import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Owner:
    """A run of a process of a machine, as its name tells it. Parts that are unknown are empty."""

    host: str
    pid: str
    start: str  # of the process, in clock ticks since boot: process ids are used again
    machine: str  # does not change when it boots: tells machines of one host name apart
    boot: str
    namespace: str  # of process ids: containers have their own
    run: str

    def __str__(self) -> str:
        return ":".join(vars(self).values())


_serials = itertools.count()
_living: set[str] = set()  # the runs of this process


@contextmanager
def own_name() -> Iterator[str]:
    """A worker name for one run, unlike any other; gone at the end of the block."""
    name = str(_here(str(next(_serials))))
    _living.add(name)
    try:
        yield name
    finally:
        _living.discard(name)


def is_gone(worker: str | None) -> bool:
    """Whether this is the name of a run on this machine that has certainly ended."""
    fields = (worker or "").split(":")
    if len(fields) != len(_Owner.__dataclass_fields__) or not fields[1].isdigit():
        return False  # somebody else's way to name workers
    theirs, here = _Owner(*fields), _here("")
    if (theirs.host, theirs.machine) != (here.host, here.machine):
        return False
    if theirs.boot != here.boot:
        # Started anew since. Without a machine id it may be another one of that name.
        return bool(here.machine and theirs.boot and here.boot)
    if theirs.namespace != here.namespace:
        return False
    if (theirs.pid, theirs.start) == (here.pid, here.start):
        return worker not in _living
    return not _lives(int(theirs.pid), theirs.start)


def is_here(worker: str | None) -> bool:
    """Whether this is the name of a run on this machine, whose end we would notice."""
    fields = (worker or "").split(":")
    if len(fields) != len(_Owner.__dataclass_fields__):
        return False
    theirs, here = _Owner(*fields), _here("")
    return all(
        getattr(theirs, part) == getattr(here, part)
        for part in ("host", "machine", "boot", "namespace")
    )


def _here(run: str) -> _Owner:
    return _Owner(
        host=socket.gethostname().replace(":", "_"),
        pid=str(os.getpid()),
        start=_start(os.getpid())[1],
        machine=_digest("/etc/machine-id"),
        boot=_digest("/proc/sys/kernel/random/boot_id"),
        namespace=_namespace(),
        run=run,
    )


def _digest(path: str) -> str:
    """A few letters for what is in a file: enough to compare, and telling nobody what it is."""
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return ""
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest() if text else ""


def _namespace() -> str:
    try:
        return "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))
    except OSError:
        return ""


def _start(pid: int) -> tuple[str, str]:
    """State and start time of a process by Linux' /proc; empty where there is none.

    Source: proc_pid_stat(5), fields 3 and 22. The name before them may hold anything.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return "", ""
    return fields[0], fields[19]


def _lives(pid: int, start: str) -> bool:
    if os.name != "posix":
        return True  # os.kill would end it there; so we cannot tell
    state, found = _start(pid)
    if found:
        return found == start and state not in "ZX"  # a zombie runs nothing
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

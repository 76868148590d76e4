"""Files that cannot be used, for faults.py: each is to be refused and left as it is. Ours only."""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults_cases import Stores
from benchmarks.faults_children import ChildFailed, as_nobody, call
from benchmarks.faults_places import Files, Place, Server
from benchmarks.faults_stores import Ours, value_of


def bad_files(stores: Stores, place: Place) -> dict[str, Any]:
    """Open and ask where there is something wrong with the file; what the errors say.

    `refused` by a StorageError that says what to do; `changed` are files that are not, byte for
    byte, what they were.
    """
    assert isinstance(place, Files)
    base = place.fresh()
    call(lambda: _begin(base))
    said: dict[str, str] = {}
    changed, unclear = [], []
    for name, spoil in _SPOILED.items():
        folder = place.folder / name.replace(" ", "_")
        folder.mkdir()
        path = folder / "study.db"
        url = f"sqlite:///{path}"
        shutil.copyfile(place.path(base), path)
        spoil(path)
        before = _hash(path)
        try:
            call(lambda url=url, name=name: _use(url, nobody="read-only" in name))
            said[name] = "used without a word"
        except ChildFailed as error:
            said[name] = str(error)
        if not said[name].startswith("StorageError") or not _advises(said[name]):
            unclear.append(name)
        if _hash(path) != before:
            changed.append(name)
    return {
        "files": len(said),
        "refused": len(said) - len(unclear),
        "unclear": unclear,
        "changed": changed,
        "because": [f"{name}: {text}" for name, text in said.items()],
    }


def newer_server(stores: Stores, place: Place) -> dict[str, Any]:
    """A database on a server, written by a newer version."""
    assert isinstance(place, Server)
    url = place.fresh()
    call(lambda: _begin(url))
    place.execute("UPDATE bbmmopt_schema SET version = 99", url)
    try:
        call(lambda: _use(url, nobody=False))
        said = "used without a word"
    except ChildFailed as error:
        said = str(error)
    place.drop(url)
    refused = said.startswith("StorageError") and _advises(said)
    return {"files": 1, "refused": int(refused), "because": [said]}


def _begin(url: str) -> None:
    """A study with some trials, closed."""
    store = Ours(url)
    for _ in range(200):  # enough for a file of many pages
        store.optimizer.add_trial(dict.fromkeys(store.optimizer.space.names, 0.5), 0.0)
    store.close()


def _use(url: str, nobody: bool) -> None:
    if nobody:
        as_nobody()
    store = Ours(url, busy_timeout=1.0)
    number = store.ask()
    store.tell(number)
    assert value_of(number) in [trial.value for trial in store.trials()]


def _advises(text: str) -> bool:
    """Whether an error says what to do: its second sentence is in the imperative."""
    verbs = ("Give", "Make", "Upgrade", "Free", "Check", "go back", "Use", "use", "Restore")
    return any(verb in text for verb in verbs)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_only_file(path: Path) -> None:
    path.parent.chmod(0o777)
    path.chmod(0o444)


def _read_only_folder(path: Path) -> None:
    path.chmod(0o444)
    path.parent.chmod(0o555)


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE bbmmopt_schema SET version = 99")
    connection.close()


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])


def _overwritten(path: Path) -> None:
    path.write_bytes(b"\0" * 4096 + path.read_bytes()[4096:])


def _of_another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()


def _text(path: Path) -> None:
    path.write_text("name,value\n" * 500)


_SPOILED: dict[str, Callable[[Path], object]] = {
    "read-only file": _read_only_file,
    "read-only folder": _read_only_folder,
    "newer schema": _newer,
    "torn in the middle": _torn,
    "header overwritten": _overwritten,
    "of another program": _of_another_program,
    "not a database": _text,
}

"""What benchmarks/faults.py does at length, in small: processes that die, disks that are full.

Each case counts in processes of its own; see there for what its numbers mean.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import Library, places
from benchmarks.postgres import PostgresServer

pytestmark = pytest.mark.alone

NOTHING_LOST: dict[str, Any] = {"lost": 0, "run_twice": 0, "stuck": 0, "damage": []}
WHOLE: dict[str, Any] = {"lost": 0, "half_done": 0, "stuck": 0, "because": [], "damage": []}


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    with Library("ours") as library:
        yield library


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a case keeps its studies."""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        yield server.url("faults")
    else:
        with places("sqlite") as folder:
            yield folder


@pytest.fixture
def folder() -> Iterator[str]:
    with places("sqlite") as folder:
        yield folder


def shown(counted: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Of what was counted, what is expected to be something."""
    return {name: counted.get(name) for name in expected}


def test_what_was_acknowledged_survives_kills_at_random_moments(
    library: Library, place: str
) -> None:
    counted = library.run("kills", place, kills=12, longest=0.1)
    assert shown(counted, NOTHING_LOST) == NOTHING_LOST
    # Each start tells a trial, and most kills come after some more were told.
    assert counted["acknowledged"] >= 12


def test_a_database_whose_maker_is_killed_is_usable(library: Library, folder: str) -> None:
    counted = library.run("early kills", folder, kills=10)
    expected = NOTHING_LOST | {"because": []}
    assert shown(counted, expected) == expected
    assert counted["acknowledged"] >= 10


def test_an_exit_at_any_statement_of_ask_and_tell_leaves_all_of_it_or_nothing(
    library: Library, folder: str
) -> None:
    counted = library.run("exits", folder, steps=["ask", "tell"])
    assert shown(counted, WHOLE) == WHOLE
    assert counted["exits"] == counted["points"] > 10


def test_an_exit_at_some_statement_of_anything_leaves_all_of_it_or_nothing(
    library: Library, place: str
) -> None:
    counted = library.run("exits", place, most=12)
    assert shown(counted, WHOLE) == WHOLE
    assert counted["exits"] > 6


def test_a_file_that_may_not_grow_says_so_and_goes_on_when_it_may(
    library: Library, folder: str
) -> None:
    counted = library.run("size limit", folder)
    expected = NOTHING_LOST | {
        "names_the_cause": True,
        "retries_refused": 3,
        "goes_on": 5,
        "starts_again": 5,
    }
    assert shown(counted, expected) == expected
    assert counted["acknowledged"] > 10


def test_writers_at_once_get_each_waiting_trial_once(library: Library, place: str) -> None:
    counted = library.run("writers", place, writers=4, claims=20, waiting=40)
    expected = NOTHING_LOST | {
        "claimed_once": 40,
        "told_that_none_waits": 40,
        "because": [],
        "acknowledged": 40,
        "failed": 0,
    }
    assert shown(counted, expected) == expected


def test_a_process_killed_with_the_write_lock_blocks_nobody(library: Library, place: str) -> None:
    counted = library.run("held locks", place, rounds=2, busy_timeout=5.0)
    expected = {"acknowledged": 2, "lost": 0, "half_done": 0, "failed": 0, "damage": []}
    assert shown(counted, expected) == expected


def test_of_a_stopped_worker_and_its_successor_one_result_is_kept_and_the_other_is_told(
    library: Library, place: str
) -> None:
    counted = library.run("stopped worker", place, rounds=2, lease=0.2)
    expected = {
        "taken_over_early": 0,
        "first_result_kept": 2,
        "second_told_clearly": 2,
        "second_in_the_log": 2,
        "same_again_accepted": 2,
        "stuck": 0,
        "damage": [],
    }
    assert shown(counted, expected) == expected


def test_a_clock_that_jumps_a_day_ends_no_lease_early_or_never(
    library: Library, place: str
) -> None:
    counted = library.run("clock jumps", place, rounds=1, lease=0.1)
    expected = {"taken_over_early": 0, "never_taken_over": 0, "stuck": 0, "damage": []}
    assert shown(counted, expected) == expected
    assert counted["jumps"] == 8


def test_files_that_cannot_be_used_are_refused_and_left_as_they_are(
    library: Library, folder: str
) -> None:
    counted = library.run("bad files", folder)
    assert counted["changed"] == [] and counted["unclear"] == []
    assert counted["refused"] == counted["files"] == 7


def test_every_trial_ends_once_where_a_worker_of_dask_is_killed(
    library: Library, folder: str
) -> None:
    counted = library.run("Dask worker", folder, folder=str(Path(folder, "log")), trials=8, kills=1)
    expected = {"complete": 8, "kills": 1, "ended_more_than_once": 0, "lost": 0, "stuck": 0}
    assert shown(counted, expected) == expected

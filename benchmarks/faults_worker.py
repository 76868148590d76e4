"""One library in one process, which forks others and breaks them: requests and answers in JSON.

Started by faults.py with the interpreter that has the library.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import (
    faults_cases,
    faults_dask,
    faults_disk,
    faults_exits,
    faults_files,
    faults_leases,
)
from benchmarks.faults_places import place
from benchmarks.faults_stores import STORES

CASES = {
    "kills": faults_cases.kills,
    "early kills": faults_cases.early_kills,
    "exits": faults_exits.exits,
    "writers": faults_cases.writers,
    "held locks": faults_cases.held_locks,
    "size limit": faults_disk.size_limit,
    "small disk": faults_disk.small_disk,
    "stopped worker": faults_leases.stopped_worker,
    "clock jumps": faults_leases.clock_jumps,
    "bad files": faults_files.bad_files,
    "newer schema": faults_files.newer_server,
    "Dask worker": faults_dask.dask_worker,
}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints goes to stderr
    stores = STORES[sys.argv[1]]
    versions = stores.prepare()
    for line in sys.stdin:
        request = json.loads(line)
        case, where = request.pop("do"), place(request.pop("place"))
        began = time.perf_counter()
        try:
            answer = CASES[case](stores, where, **request)
            answer |= {"took": round(time.perf_counter() - began, 1), "versions": versions}
        except Exception as error:  # told to the parent, which counts or raises it
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()

"""Products with K that never store it, fits and suggestions on a GPU: exact first, then how quick.

    python benchmarks/gpu.py --device cuda --peer PATH
    python benchmarks/gpu.py --device cpu --quick --peer PATH
    python benchmarks/gpu.py --parts million --minutes 15       one part alone, with more time
    python benchmarks/gpu.py --tune                             how to launch the fused kernels
    python benchmarks/gpu.py --table results/gpu_cpu.json       what a file holds; nothing is run

One call takes --minutes at most. Its parts (gpu_plan.py) are processes of their own, what matters
most first; each knows what time is left, says what it left out, and is ended when its time is over.
Every line is in the results as soon as it is there, so that a machine that goes away leaves what it
had. What fails is in the results, with the text of its error.

Results: results/gpu_DEVICE.json, and a picture of it beside it. Parts that are run again replace
those that are there, if the device is the same.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.gpu_plan import ALWAYS, OURS, PARTS, PLANS, Part, Plan
from benchmarks.gpu_table import judged, print_row, print_verdicts
from benchmarks.processes import HERE, RESULTS, machine, revision, today, without_folders

_GRACE = 10.0  # seconds, beyond its share, in which a part may end by itself
_START = 3.0  # what a process takes to import torch
_LAST_WORDS = 3  # lines of what a process said before it died


class Book:
    """The results of one device in a file of JSON, written anew at each change.

    Args:
        path: The file; None for results/gpu_DEVICE.json, once the device is known.
        about: What is true of all parts.
        fresh: Whether to begin anew where the file is there already.
    """

    def __init__(self, path: Path | None, about: dict, *, fresh: bool) -> None:
        self.path, self._about, self._fresh = path, about, fresh
        self.content: dict = {"device": None, "parts": {}}

    def know(self, described: dict) -> None:
        """Take the description of the device that a part's process gave."""
        if self.content["device"] is not None:
            return
        name = described["device"]
        if self.path is None:
            words = "".join(c if c.isalnum() else " " for c in name.lower()).split()
            self.path = RESULTS / f"gpu_{'_'.join(words)}.json"
        kept = {}
        if self.path.exists() and not self._fresh:
            before = json.loads(self.path.read_text())
            kept = before["parts"] if before["device"] == name else {}
        parts = {**kept, **self.content["parts"]}
        self.content = {**described, "parts": parts}
        self.save()

    def begin(self, name: str, seconds: float) -> dict:
        """Room for a part, in place of an earlier one."""
        part = {"date": today(), "revision": revision(), "seconds_given": round(seconds, 1)}
        part |= self._about
        self.content["parts"].pop(name, None)
        self.content["parts"][name] = part | {"outcome": "begun", "rows": []}
        self.save()
        return self.content["parts"][name]

    def rows(self, *names: str) -> Iterator[dict]:
        """Those of some parts, one after another."""
        return (
            row for name in names for row in self.content["parts"].get(name, {"rows": []})["rows"]
        )

    def save(self) -> None:
        """Whole or not at all, once it is known which device it is of."""
        if self.path is None or self.content["device"] is None:
            return
        self.content["judged"] = judged(self.content)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".tmp")
        scratch.write_text(json.dumps(_shortened(self.content), indent=1) + "\n")
        os.replace(scratch, self.path)


def _shortened(value):
    """Seven digits are enough of any number that is kept, but for one and its two bounds."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, dict):
        return {k: _shortened(v) for k, v in value.items()}
    return [_shortened(v) for v in value] if isinstance(value, list) else value


def run_part(name: str, part: Part, task: dict, python: str, book: Book) -> None:
    """Be told each row that a process prints, until it ends or its time is over."""
    entry = book.begin(name, task["seconds"])
    print(f"\n{name}: {part.title} (up to {task['seconds']:.0f} s)", flush=True)
    environment = os.environ | ({"TRITON_INTERPRET": "1"} if name == "interpreter" else {})
    began = time.monotonic()
    end = began + task["seconds"] + _GRACE
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [python, str(HERE / part.script), json.dumps(task)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        lines, reader = _lines(child)
        try:
            entry["outcome"] = _told(lines, end, entry, book)
            if entry["outcome"] == "done":
                child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            entry["outcome"] = "said all, but did not end"
        finally:
            child.kill()
            code = child.wait()
            reader.join()
            assert child.stdout is not None
            child.stdout.close()
        if code != 0 and entry["outcome"] == "done":
            errors.seek(0)
            last = [line.strip() for line in errors.read().splitlines() if line.strip()]
            entry["outcome"] = f"its process ended with {code}"
            entry["last_words"] = [without_folders(line)[:300] for line in last[-_LAST_WORDS:]]
    entry["seconds"] = round(time.monotonic() - began, 1)
    if entry["outcome"] != "done":
        print(f"  {entry['outcome']}", flush=True)
    book.save()


def _lines(child: subprocess.Popen[str]) -> tuple["queue.Queue[str | None]", threading.Thread]:
    """What it prints, None at the end; and the thread that reads it, so that waiting can end."""
    lines: queue.Queue[str | None] = queue.Queue()
    assert child.stdout is not None
    stream = child.stdout

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return lines, reader


def _told(lines: "queue.Queue[str | None]", end: float, entry: dict, book: Book) -> str:
    """Take rows until there are no more or the time comes, and say which."""
    while True:
        try:
            line = lines.get(timeout=max(end - time.monotonic(), 0.0))
        except queue.Empty:
            return f"ended after its {entry['seconds_given']:g} s, and {_GRACE:g} more"
        if line is None:
            return "done"
        if not line.endswith("\n"):  # it was cut in the middle
            continue
        row = json.loads(line)
        if "about" in row:
            entry["versions"] = row["about"].pop("versions")
            book.know(row["about"])
            continue
        entry["rows"].append(row)
        print_row(row)
        book.save()


def run(names: list[str], plan: Plan, options: argparse.Namespace, book: Book) -> None:
    """One part after the other, each until the time of it and of all before it has gone at most.

    Raises:
        SystemExit: If the device cannot be used.
    """
    began, total = time.monotonic(), 60 * options.minutes - _GRACE
    whole, done = sum(PARTS[name].share for name in names), 0.0
    for name in names:
        part = PARTS[name]
        done += part.share
        task: dict = {"part": name, "plan": plan.fields(), "device": options.device}
        if name == "judge":
            task["options"] = {"found": _to_judge(plan, book)}
            if not task["options"]["found"]:
                continue
        seconds = done / whole * total - (time.monotonic() - began) - _START
        if seconds < 0:
            book.begin(name, 0.0)["outcome"] = "left out: no time"
            print(f"\n{name}: left out, for want of time", flush=True)
            book.save()
            continue
        python = sys.executable if part.script == OURS else options.peer
        run_part(name, part, task | {"seconds": seconds}, python, book)
        if book.content["device"] is None:
            book.save()
            raise SystemExit(f"{options.device!r} cannot be used; nothing was measured.")


def _to_judge(plan: Plan, book: Book) -> list[dict]:
    rows = [r for r in book.rows("gpytorch", "botorch") if "parameters" in r]
    large = [r for r in rows if r["n"] > plan.exact_up_to]
    return [{k: r[k] for k in ("library", "n", "parameters")} for r in large]


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help='"cuda" (default), "cuda:1", or "cpu"')
    parser.add_argument("--quick", action="store_true", help="smaller: a minute or two")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--peer",
        default=os.environ.get("PEER_PYTHON"),
        help="interpreter that has gpytorch, botorch, pykeops, or some (default: $PEER_PYTHON)",
    )
    parser.add_argument("--minutes", type=float, help="for all parts (default: 10; quick: 3)")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="only these")
    parser.add_argument("--tune", action="store_true", help="only launches of the fused kernels")
    parser.add_argument("--out", type=Path, help="default: results/gpu_DEVICE.json")
    parser.add_argument("--no-plot", action="store_true", help="no picture")
    parser.add_argument("--table", type=Path, help="print and draw what a file has, run nothing")
    options = parser.parse_args(arguments)
    if options.minutes is None:
        options.minutes = 3.0 if options.quick else 10.0
    if not 0 < options.minutes < 24 * 60:
        parser.error(f"--minutes must be a number above 0; got {options.minutes}")
    kind = options.device.partition(":")[0]
    if kind not in ("cuda", "cpu"):
        parser.error(f'--device must be "cuda", "cuda:0" …, or "cpu"; got {options.device!r}')
    return options


def main() -> None:
    options = parsed()
    if options.table:
        content = json.loads(options.table.read_text())
        for name, part in content["parts"].items():
            print(f"\n{name}: {PARTS[name].title} ({part['outcome']}, {part['date']})")
            for row in part["rows"]:
                print_row(row)
        path = options.table
    else:
        kind = options.device.partition(":")[0]
        size = "tiny" if options.tiny else "quick" if options.quick else "full"
        plan = PLANS.get((kind, size)) or PLANS[kind, "full"]
        names = options.parts or (["tune"] if options.tune else ALWAYS)
        names = [name for name in PARTS if name in names and PARTS[name].only in (None, kind)]
        theirs = [name for name in names if PARTS[name].script != OURS]
        if options.peer is None:
            names = [name for name in names if name not in theirs]
        if not names:
            raise SystemExit("nothing to do: these parts need --peer, or another device.")
        about = {"size": size, "minutes": options.minutes, "machine": machine(), "date": today()}
        book = Book(options.out, about, fresh=options.parts is None and not options.tune)
        run(names, plan, options, book)
        if options.peer is None and theirs:
            print("\nNo peers: pass --peer PATH, the Python that has them.")
        content, path = book.content, book.path
    print_verdicts(judged(content))
    if path is not None and not options.no_plot:
        from benchmarks.gpu_plot import draw

        figure = path.with_suffix(".png")
        draw(content, figure)
        print(f"\nwrote {path.name} and {figure.name}")


if __name__ == "__main__":
    main()

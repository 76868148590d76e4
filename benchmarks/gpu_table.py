"""Rows of benchmarks/gpu.py in words, and what they say of the targets."""

import math
import statistics
from collections.abc import Callable, Iterator

_ON = "H100"  # what the targets of speed are about
_SINGLE, _DOUBLE = 5e-6, 1e-12
_PICOSECONDS, _TIMES_GPYTORCH = 1.2, 5.0
_FITS = {100_000: 10.0, 1_000_000: 600.0}  # seconds
_ASK = (100_000, 1.0)
_REFERENCE = {"n": 100_000, "d": 10, "t": 16}
_ERRORS = ("product", "some rows", "cross", "pullback", "off")
_FUSED = "fused float32"

MET, MISSED, OPEN = "met", "not met", "not measured"


def print_row(row: dict) -> None:
    """One line."""
    sizes = ", ".join(f"{k} = {row[k]:,}" for k in ("n", "d", "t") if k in row)
    words = [str(row.get("what", "")), str(row.get("library", "")), sizes, *_details(row)]
    print("  " + "  ".join(word for word in words if word), flush=True)


def _details(row: dict) -> Iterator[str]:
    if "rows" in row and row["rows"] != row.get("n") and "columns" not in row:
        yield f"(rows: {row['rows']:,})"
    if row.get("what") == "errors":
        if row.get("spread", 1.0) != 1.0 or "kernel" in row:
            yield row.get("kernel", f"spread {row.get('spread')}")
        yield ", ".join(f"{key} {row[key]:.1e}" for key in _ERRORS[:-1] if key in row)
        if "against" in row:
            yield f"against {row['against']}"
        if row.get("same bits") is False:
            yield "NOT THE SAME BITS TWICE"
    if "columns" in row:
        yield f"{row['rows']} × {row['columns']}, {row['warps']} warps, {row['stages']} stages"
    if "exact" in row:
        yield f"{row['exact']:.6f} between {row['lower']:.6f} and {row['upper']:.6f}: {row['held']}"
    if "count" in row:
        yield f"ask {row['count']}"
    if "ps_per_pair" in row:
        yield f"{row['ps_per_pair']:.4g} ps a pair"
    if "seconds" in row:
        yield f"{row['seconds']:.4g} s"
    if "log_likelihood" in row:
        width = f" ± {row['half_width']:.2g}" if "half_width" in row else ""
        yield f"log p(y) / n = {row['log_likelihood']:.5f}{width}"
    if "evaluations" in row:
        ended = "" if row.get("converged", True) else ", not converged"
        yield f"{row['evaluations']} evaluations{ended}"
    if "rmse" in row:
        yield f"RMSE {row['rmse']:.4f}"
    if "off" in row:
        yield f"off by {row['off']:.0e}"
    for key in ("cut", "remark", "error"):
        if key in row:
            yield f"{key.upper()}: {row[key]}" if key == "error" else str(row[key])


def rows_of(content: dict, **fields: object) -> list[dict]:
    """Those of all parts in which fields have these values."""
    rows = (row for part in content["parts"].values() for row in part["rows"])
    return [row for row in rows if all(row.get(k) == v for k, v in fields.items())]


def judged(content: dict) -> list[dict]:
    """Each target, its verdict, and what was found."""
    verdicts = [
        _exact("float32, fused", content, _SINGLE, _is_single),
        _exact(
            "float64, fused and by torch",
            content,
            _DOUBLE,
            lambda row: _is_double(row) and not _is_far(row),
        ),
        _exact(
            "float64, points 20 to 500 times as many lengthscales apart",
            content,
            _DOUBLE,
            lambda row: _is_double(row) and _is_far(row),
        ),
        _repeated(content),
        _held(content),
        _product(content),
        _beside_gpytorch(content),
        *(_fit(content, n, most) for n, most in _FITS.items()),
        _asked(content),
    ]
    return [dict(zip(("target", "verdict", "found"), one, strict=True)) for one in verdicts]


def _is_single(row: dict) -> bool:
    return row["library"] == _FUSED


def _is_double(row: dict) -> bool:
    return row["library"] in ("fused float64", "torch tiles")


def _is_far(row: dict) -> bool:
    return row.get("spread", 1.0) != 1.0


Verdict = tuple[str, str, str]


def _exact(name: str, content: dict, most: float, wanted: Callable[[dict], bool]) -> Verdict:
    target = f"exact to {most:g} ({name})"
    rows = [row for row in rows_of(content, what="errors") if wanted(row)]
    large = rows_of(content, what="product")  # a few rows of each were compared
    rows += [row for row in large if "off" in row and wanted(row)]
    failed = [row for row in rows if "error" in row]
    cases = [row for row in rows if any(key in row for key in _ERRORS)]
    if failed:
        return target, MISSED, f"{len(failed)} of {len(rows)} cases failed: {failed[0]['error']}"
    if not cases:
        return target, OPEN, "no such kernels on this device"
    worst, what, row = max(
        ((row[key], key, row) for row in cases for key in _ERRORS if key in row),
        key=lambda one: math.inf if math.isnan(one[0]) else one[0],
    )
    found = f"{worst:.1e} at most, of {len(cases)} cases ({what}, {row['arithmetic']})"
    if any("cut" in row for row in rows):
        found += "; others left out"
    if content["device"] == "cpu" and worst <= most and all(_is_single(row) for row in cases):
        return target, OPEN, f"{found}; interpreted, not on a GPU"
    return target, MET if worst <= most else MISSED, found


def _repeated(content: dict) -> Verdict:
    target, rows = "the same bits twice", rows_of(content, what="errors")
    told = [row["same bits"] for row in rows if "same bits" in row]
    if not told:
        return target, OPEN, "-"
    return target, MET if all(told) else MISSED, f"{sum(told)} of {len(told)} cases"


def _held(content: dict) -> Verdict:
    target = "bounds of log p(y) by products hold the exact value"
    rows = rows_of(content, what="likelihood")
    told = [row["held"] for row in rows if "held" in row]
    if not told or len(told) < len(rows):
        failed = next((row["error"] for row in rows if "error" in row), "-")
        return target, MISSED if rows else OPEN, failed
    return target, MET if all(told) else MISSED, f"{sum(told)} of {len(told)}"


def _at_reference(content: dict, library: str) -> dict | None:
    """The product there, or where the device was given less, at its own reference size."""
    for part in ("reference", "gpytorch"):
        for row in content["parts"].get(part, {"rows": []})["rows"]:
            if row.get("what") == "product" and row.get("library") == library:
                return row
    return None


def _size(row: dict) -> dict:
    return {key: row[key] for key in _REFERENCE}


def _words(row: dict) -> str:
    return ", ".join(f"{key} = {value:,}" for key, value in _size(row).items())


def _counts(content: dict) -> str | None:
    """Why a time on this device says nothing of a target; None where it does."""
    if _ON in str(content["device"]):
        return None
    return f"the device is {content['device']}, and the target is for an {_ON}"


def _best(content: dict) -> dict | None:
    fused = _at_reference(content, _FUSED)
    return fused or _at_reference(content, "torch tiles")


def _product(content: dict) -> Verdict:
    target = f"products take at most {_PICOSECONDS} ps a pair on an {_ON}, d = 10, t = 16"
    row = _best(content)
    if row is None or "ps_per_pair" not in row:
        return target, OPEN, "-" if row is None else row.get("error") or row.get("cut") or "-"
    found = f"{row['ps_per_pair']:.4g} ps ({row['library']}, {_words(row)})"
    reason = _counts(content)
    if reason or _size(row) != _REFERENCE:
        return target, OPEN, f"{found}; {reason or 'another size'}"
    return target, MET if row["ps_per_pair"] <= _PICOSECONDS else MISSED, found


def _beside_gpytorch(content: dict) -> Verdict:
    target = f"products are {_TIMES_GPYTORCH:g} times as fast as GPyTorch's on an {_ON}"
    ours, theirs = _best(content), _at_reference(content, "gpytorch")
    if ours is None or theirs is None or not all("ps_per_pair" in r for r in (ours, theirs)):
        failed = None if theirs is None else theirs.get("error")
        return target, OPEN, f"GPyTorch's failed: {failed}" if failed else "-"
    times = theirs["ps_per_pair"] / ours["ps_per_pair"]
    found = f"{times:.3g} times ({_words(ours)}; GPyTorch in {theirs['arithmetic']})"
    reason = _counts(content)
    if reason or _size(ours) != _size(theirs) or _size(ours) != _REFERENCE:
        return target, OPEN, f"{found}; {reason or 'another size'}"
    return target, MET if times >= _TIMES_GPYTORCH else MISSED, found


def _fit(content: dict, n: int, most: float) -> Verdict:
    target = f"an exact fit of {n:,} observations in {most:g} s on an {_ON}, with error bars"
    rows = rows_of(content, what="fit", library="ours", n=n)
    if not rows:
        return target, OPEN, "-"
    row = rows[-1]
    if "seconds" not in row:
        return target, MISSED if "error" in row else OPEN, row.get("error") or row.get("cut", "-")
    found = (
        f"{row['seconds']:.1f} s, {row['evaluations']} evaluations, "
        f"log p(y) / n = {row['log_likelihood']:.5f} ± {row['half_width']:.1g}"
    )
    if "cut" in row and row["seconds"] <= most:
        return target, OPEN, f"{found}; {row['cut']}: pass more --minutes"
    reason = _counts(content)
    if reason:
        return target, OPEN, f"{found}; {reason}"
    good = row["seconds"] <= most and row["converged"] and math.isfinite(row["half_width"])
    return target, MET if good else MISSED, found if row["converged"] else f"{found}; no optimum"


def _asked(content: dict) -> Verdict:
    n, most = _ASK
    target = f"ask with {n:,} observations in {most:g} s on an {_ON}, between two fits"
    rows = rows_of(content, what="ask", library="ours", n=n)
    later = [row["seconds"] for row in rows if row["count"] > 0 and "seconds" in row]
    failed = next((row["error"] for row in rows if "error" in row), None)
    if failed:
        return target, MISSED, failed
    if not later:
        return target, OPEN, next((row["cut"] for row in rows if "cut" in row), "-")
    first = next(row["seconds"] for row in rows if row["count"] == 0)
    median = statistics.median(later)
    found = f"{median:.2f} s, median of {len(later)}; the first, which fits, {first:.1f} s"
    reason = _counts(content)
    if reason:
        return target, OPEN, f"{found}; {reason}"
    return target, MET if median <= most else MISSED, found


def print_verdicts(verdicts: list[dict]) -> None:
    """A line for each target."""
    print("\nTargets")
    for one in verdicts:
        print(f"  {one['verdict'].upper():12}  {one['target']}: {one['found']}")

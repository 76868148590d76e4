"""benchmarks/gpu.py in small, on the CPU: what it holds itself against, and that it says so."""

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gp_data import Data
from benchmarks.gp_data import judge as judged_by_numpy
from benchmarks.gpu import Book, run_part
from benchmarks.gpu_data import (
    VARIANCE,
    Exact,
    error_of_some,
    lengthscales,
    log_likelihood,
    observations,
    plain_product,
    plain_pullback,
    points,
)
from benchmarks.gpu_fits import asks, fits, judge, million
from benchmarks.gpu_plan import ALWAYS, PARTS, PLANS, Part, Plan
from benchmarks.gpu_plot import draw
from benchmarks.gpu_products import correctness, grid, interpreted, reference, tune
from benchmarks.gpu_table import MET, MISSED, OPEN, judged
from benchmarks.gpu_timing import Clock, guarded, timed, told
from surrogate import Matern52

CPU = torch.device("cpu")
TINY = PLANS["cpu", "tiny"]


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU nothing is fused unless a test asks for the interpreter."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def interpreter(compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def content(device: str, **parts: list[dict]) -> dict:
    return {"device": device, "parts": {name: {"rows": rows} for name, rows in parts.items()}}


def verdicts(content: dict) -> dict[str, str]:
    """By the first words of the targets."""
    return {one["target"][:25]: one["verdict"] for one in judged(content)}


# --------------------------------------------------------------------------------------
# What results are held against
# --------------------------------------------------------------------------------------


def test_the_exact_product_and_gradients_are_those_of_the_kernel_and_autograd():
    X, A, B = points(40, 3, 2)
    kernel = Matern52(3, lengthscales(3), VARIANCE)
    K = kernel(X, X)
    wanted = torch.autograd.grad((A * (K @ B)).sum(), list(kernel.parameters()))
    found = Exact.of(X, A, B, X.new_tensor(lengthscales(3)), B)
    assert torch.allclose(found.product, K @ B, rtol=1e-12)
    assert found.gradient_error(torch.cat([g.reshape(-1) for g in wanted])) < 1e-14
    assert found.product_error(K.detach() @ B) < 1e-14
    assert found.product_error((1 + 1e-3) * (K.detach() @ B)) > 1e-5
    assert (found.gradients.abs() <= found.gradients_size).all()


def test_plain_torch_computes_the_same(monkeypatch):
    monkeypatch.setattr("benchmarks.gpu_data._AT_ONCE_ON_CPU", 130)  # strips of 3 rows
    X, A, B = points(40, 3, 2)
    ell = X.new_tensor(lengthscales(3))
    exact = Exact.of(X, A, B, ell, B)
    assert exact.product_error(plain_product(X, B, 40, ell)) < 1e-6
    assert error_of_some(plain_product(X, B, 40, ell), X, B) < 1e-6
    assert error_of_some(1.01 * plain_product(X, B, 40, ell), X, B) > 1e-4
    by_ell, by_variance = plain_pullback(X, A, B, 40, ell)
    assert exact.gradient_error(torch.cat([by_ell * ell, (by_variance * VARIANCE)[None]])) < 1e-6


def test_the_dense_oracle_agrees_with_that_of_the_other_benchmarks():
    data = observations(50, 5, CPU)
    parameters = {"lengthscale": [0.7] * 6, "variance": 1.2, "noise": 0.05, "mean": 0.2}
    X, y = data.X.numpy(), data.y.numpy()
    same = Data(X, y, X[:3], y[:3], y[:3], 0.05)
    numbers = parameters | {"lengthscale": np.full(6, 0.7)}
    wanted = judged_by_numpy(same, numbers, None)["log_likelihood"]
    assert log_likelihood(data, parameters) == pytest.approx(wanted, rel=1e-10)


def test_observations_are_standardised_and_the_same_each_time():
    one, two = observations(60, 10, CPU), observations(60, 10, CPU)
    assert torch.equal(one.X, two.X) and torch.equal(one.y, two.y)
    assert abs(float(one.y.mean())) < 1e-12 and float(one.y.std()) == pytest.approx(1)
    assert one.f_test.shape == (10,)


# --------------------------------------------------------------------------------------
# The parts
# --------------------------------------------------------------------------------------


def test_products_are_exact_and_timed():
    rows = list(correctness(TINY, CPU, Clock(60)))
    errors = [row for row in rows if row.get("what") == "errors"]
    assert len(errors) >= 4 and not any("error" in row or "cut" in row for row in rows)
    rows += [*reference(TINY, CPU, Clock(60)), *grid(TINY, CPU, Clock(60))]
    times = [row for row in rows if "ps_per_pair" in row]
    assert all(row["seconds"] > 0 and row["rows"] <= row["n"] for row in times)
    assert {(row["what"], row["library"]) for row in times} >= {
        (what, name) for what in ("product", "pullback") for name in ("plain torch", "torch tiles")
    }
    (compared,) = [row for row in rows if "against" in row]
    assert compared["library"] == "plain torch" and compared["pullback"] < 1e-6
    found = verdicts(content("cpu", correctness=rows))
    assert found["exact to 1e-12 (float64, "[:25]] in (MET, MISSED)
    assert found["the same bits twice"] == MET
    assert found["bounds of log p(y) by pro"] == MET


def test_a_grid_multiplies_with_as_many_rows_as_it_may():
    plan = Plan.from_fields(TINY.fields() | {"slow_pairs": 1000.0, "sizes": (60, 30)})
    rows = list(grid(plan, CPU, Clock(60)))
    assert {(row["n"], row["rows"]) for row in rows} == {(60, 16), (30, 30)}
    for row in rows:
        pairs = row["n"] * row["rows"]
        assert row["ps_per_pair"] == pytest.approx(1e12 * row["seconds"] / pairs)


@pytest.mark.usefixtures("interpreter")
def test_fused_kernels_are_measured_where_there_are():
    rows = list(interpreted(TINY, CPU, Clock(60)))
    assert {row["library"] for row in rows if "product" in row} == {
        "fused float32",
        "fused float64",
    }
    plan = Plan.from_fields(TINY.fields() | {"reference": (20, 2, 2), "run_seconds": 0.0})
    rows += reference(plan, CPU, Clock(60))
    assert not any("error" in row or "cut" in row for row in rows)
    fused = [row for row in rows if row.get("library") == "fused float32"]
    (compared,) = [row for row in fused if "against" in row]
    assert compared["pullback"] < 1e-6
    assert [row["what"] for row in fused if "ps_per_pair" in row] == ["product", "pullback"]
    found = verdicts(content("H100", correctness=rows))
    assert {v for k, v in found.items() if k.startswith("exact")} == {MET}


@pytest.mark.usefixtures("interpreter")
def test_launches_are_tried_one_by_one_and_the_choice_is_left_as_it_was(monkeypatch):
    from surrogate.tiles import fused

    chosen = fused._blocks
    plan = Plan.from_fields(TINY.fields() | {"reference": (20, 2, 2), "run_seconds": 0.0})
    monkeypatch.setattr(
        "benchmarks.gpu_products.BLOCKS", [fused.Block(64, 32), fused.Block(32, 32)]
    )
    rows = list(tune(plan, CPU, Clock(60)))
    tried = [row for row in rows if "columns" in row]
    assert [(r["what"], r["rows"]) for r in tried] == [
        (what, rows) for what in ("product", "pullback") for rows in (64, 32)
    ]
    assert all(row["differs_by"] < 1e-6 and row["ps_per_pair"] > 0 for row in tried)
    assert fused._blocks is chosen


def test_fits_and_suggestions_are_measured():
    rows = [*fits(TINY, CPU, Clock(60)), *million(TINY, CPU, Clock(60))]
    rows += asks(TINY, CPU, Clock(60))
    assert not any("error" in row or "cut" in row for row in rows)
    assert [row["what"] for row in rows].count("ask") == TINY.asked + 1
    fit: dict = {}
    for n in (*TINY.fits, TINY.million):
        fit, exact = (
            next(r for r in rows if r["what"] == what and r["n"] == n) for what in ("fit", "judged")
        )
        assert exact["log_likelihood"] == pytest.approx(fit["log_likelihood"], abs=1e-8)
    peers = [{"library": "them", "n": 60, "parameters": fit["parameters"]}]
    (row,) = judge(TINY, CPU, Clock(60), peers)
    assert row["library"] == "them" and "by" in row and row["half_width"] >= 0


def test_what_there_is_no_time_for_is_told():
    over = Clock(-1.0)
    for part in (correctness, reference, grid, fits, million, asks):
        rows = list(part(TINY, CPU, over))
        assert any("cut" in row for row in rows), part
        assert not any("seconds" in row for row in rows if row.get("what") != "warm-up"), part


# --------------------------------------------------------------------------------------
# What goes wrong
# --------------------------------------------------------------------------------------


def fail(error: Exception) -> dict:
    raise error


def test_an_error_takes_the_place_of_a_measurement():
    row = guarded({"what": "fit"}, lambda: fail(ValueError("no\nmore")))
    assert row == {"what": "fit", "error": "ValueError: no"}
    assert told(OSError("in /a/b/it.py")) == "OSError: in it.py"


def test_after_an_error_a_gpu_that_does_not_answer_is_told(monkeypatch):
    def answer(*_: object, **__: object) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    def row() -> dict:
        return guarded({}, lambda: fail(torch.OutOfMemoryError("CUDA out of memory")))

    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch, "ones", lambda *shape, device: ones(*shape))
    assert "fatal" not in row()
    monkeypatch.setattr(torch, "ones", answer)
    assert row()["fatal"] is True


def test_a_run_that_would_end_too_late_is_not_begun():
    runs: list[int] = []
    row = timed(lambda: runs.append(1), CPU, Clock(-1.0), runs=5, most=1.0)
    assert len(runs) == 1 and row["runs"] == 0 and row["seconds"] == row["first"]
    row = timed(lambda: runs.append(1), CPU, Clock(60.0), runs=5, most=60.0)
    assert 1 + 1 + 1 + 5 <= len(runs) <= 1 + 1 + 6 + 5 and row["runs"] == 5
    assert row["least"] <= row["seconds"] <= row["most"]
    assert timed(lambda: None, CPU, Clock(60.0), runs=5, most=0.0)["runs"] == 3


def test_runs_while_a_process_warms_up_are_not_counted(monkeypatch):
    took = iter([0.03, 0.02, 0.0195, 0.005, 0.006, 0.007])  # the third is hardly quicker
    monkeypatch.setattr("benchmarks.gpu_timing.seconds_of", lambda *_: next(took))
    row = timed(lambda: time.sleep(0.05), CPU, Clock(60.0), runs=3, most=60.0)
    assert (row["least"], row["seconds"], row["most"]) == (0.005, 0.006, 0.007)
    assert row["first"] >= 0.05


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write what is run in place of a part's process."""
    monkeypatch.setattr("benchmarks.gpu.HERE", tmp_path)
    monkeypatch.setattr("benchmarks.gpu._GRACE", 0.5)

    def write(code: str) -> Part:
        (tmp_path / "part.py").write_text(f"import sys, time, os\n{code}\n")
        return Part("a part", 1, script="part.py")

    return write


ABOUT = '{"about": {"device": "A GPU 80GB", "versions": {}}}'


@pytest.mark.parametrize(
    ("code", "seconds", "outcome", "rows"),
    [
        ("print('{\"what\": 1}')", 20, "done", 1),
        ("print('{\"what\": 1}', flush=True); time.sleep(60)", 0.5, "ended after", 1),
        ("print('{\"what\": 1}', flush=True); os.kill(os.getpid(), 9)", 20, "with -9", 1),
        ("raise ValueError('in /a/b.py')", 20, "with 1", 0),
    ],
)
def test_what_a_part_had_is_kept_however_it_ends(script, tmp_path, code, seconds, outcome, rows):
    part = script(f"print('{ABOUT}', flush=True)\n{code}")
    book = Book(tmp_path / "gpu.json", {"size": "tiny"}, fresh=True)
    run_part("fits", part, {"seconds": seconds}, sys.executable, book)
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert kept["device"] == "A GPU 80GB"
    assert outcome in kept["parts"]["fits"]["outcome"]
    assert len(kept["parts"]["fits"]["rows"]) == rows
    if "raise" in code:
        assert kept["parts"]["fits"]["last_words"][-1] == "ValueError: in b.py"


def test_each_row_is_in_the_file_while_the_part_goes_on(script, tmp_path):
    part = script(
        f"""print('{ABOUT}')
print('{{"what": "first"}}', flush=True)
for _ in range(500):
    time.sleep(0.01)
    if os.path.exists("gpu.json") and "first" in open("gpu.json").read():
        print('{{"what": "seen"}}')
        break"""
    )
    book = Book(tmp_path / "gpu.json", {}, fresh=True)
    with contextlib.chdir(tmp_path):
        run_part("fits", part, {"seconds": 20}, sys.executable, book)
    assert [row["what"] for row in book.rows("fits")] == ["first", "seen"]


def test_a_part_that_is_run_again_replaces_itself_alone(tmp_path):
    path, about = tmp_path / "gpu.json", {"minutes": 1}
    for name, device, fresh in (
        ("fits", "one", True),
        ("grid", "one", False),
        ("fits", "one", False),
    ):
        book = Book(path, about, fresh=fresh)
        book.begin(name, 1.0)["rows"].append({"what": device})
        book.know({"device": device})
    assert set(json.loads(path.read_text())["parts"]) == {"fits", "grid"}
    other = Book(path, about, fresh=False)
    other.begin("asks", 1.0)
    other.know({"device": "two"})
    assert set(json.loads(path.read_text())["parts"]) == {"asks"}


# --------------------------------------------------------------------------------------
# Targets
# --------------------------------------------------------------------------------------

REFERENCE = {"what": "product", "n": 100_000, "d": 10, "t": 16, "arithmetic": "float32"}
FIT = {"what": "fit", "library": "ours", "evaluations": 5, "log_likelihood": 0.5}


def on(device: str, ps: float, theirs: float, seconds: float, asked: float) -> dict[str, str]:
    fit = FIT | {"seconds": seconds, "half_width": 1e-3, "converged": True}
    return verdicts(
        content(
            device,
            reference=[REFERENCE | {"library": "fused float32", "ps_per_pair": ps}],
            gpytorch=[REFERENCE | {"library": "gpytorch", "ps_per_pair": theirs}],
            fits=[fit | {"n": 100_000}],
            million=[fit | {"n": 1_000_000, "seconds": 60 * seconds}],
            asks=[
                {"what": "ask", "library": "ours", "n": 100_000, "count": i, "seconds": s}
                for i, s in enumerate([30.0, asked, asked])
            ],
        )
    )


def test_targets_of_speed_are_met_or_not_on_the_device_they_are_for():
    def told_of(found: dict[str, str]) -> list[str]:
        return [v for k, v in found.items() if k.startswith(("products", "an exact fit", "ask"))]

    quick, slow = (1.1, 6.0, 9.0, 0.9), (1.3, 6.0, 11.0, 1.1)
    assert told_of(on("NVIDIA H100 80GB HBM3", *quick)) == [MET] * 5
    assert told_of(on("NVIDIA H100 80GB HBM3", *slow)) == [MISSED] * 5
    assert told_of(on("NVIDIA A100", *quick)) == [OPEN] * 5
    assert set(verdicts(content("NVIDIA H100")).values()) == {OPEN}


def test_a_fit_that_was_told_to_stop_has_not_met_its_target():
    fit = FIT | {"n": 100_000, "half_width": 1e-3, "converged": False}
    name = "an exact fit of 100,000 o"
    stopped = fit | {"seconds": 6.0, "cut": "told to stop after 5 s"}
    assert verdicts(content("H100", fits=[stopped]))[name] == OPEN
    assert verdicts(content("H100", fits=[stopped | {"seconds": 12.0}]))[name] == MISSED
    assert verdicts(content("H100", fits=[fit | {"seconds": 6.0}]))[name] == MISSED
    failed = {"what": "fit", "library": "ours", "n": 100_000, "error": "OutOfMemoryError"}
    assert verdicts(content("H100", fits=[failed]))[name] == MISSED


def test_exactness_is_missed_by_errors_nan_and_failures():
    row = {"what": "errors", "library": "fused float32", "arithmetic": "triton float32"}
    name = "exact to 5e-06 (float32, "
    good = row | {"product": 1e-7, "pullback": 1e-8}
    assert verdicts(content("H100", correctness=[good]))[name] == MET
    assert verdicts(content("cpu", interpreter=[good]))[name] == OPEN
    for bad in ({"product": 1e-5}, {"product": float("nan")}, {"error": "RuntimeError"}):
        assert verdicts(content("H100", correctness=[good, row | bad]))[name] == MISSED


def test_all_parts_share_the_time_and_plans_survive_json():
    assert set(ALWAYS) == set(PARTS) - {"tune"}
    for plan in PLANS.values():
        assert Plan.from_fields(json.loads(json.dumps(plan.fields()))) == plan


def test_the_picture_is_drawn_of_anything(tmp_path):
    draw(content("cpu"), tmp_path / "none.png")
    rows = [r | {"library": "fused float32", "ps_per_pair": 1.0} for r in (REFERENCE,)]
    draw(
        content("H100", reference=rows, fits=[FIT | {"n": 10, "seconds": 1.0}]), tmp_path / "a.png"
    )
    assert (tmp_path / "none.png").stat().st_size > 5000
    assert (tmp_path / "a.png").stat().st_size > (tmp_path / "none.png").stat().st_size

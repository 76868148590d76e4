"""Fused kernels compiled for GPUs that are not at hand: what an interpreter cannot see."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KIB = 1024


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
        "OMP_NUM_THREADS": "1",
    }
    program = [sys.executable, "-m", "tests.surrogate.compiled_tiles"]
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_both_kernels_compile_for_every_kind_of_factor(compiled):
    made = {(each["case"], each["kernel"], each["dtype"]) for each in compiled}
    assert {kernel for _, kernel, _ in made} == {"product", "pullback"}
    assert {each["capability"] for each in compiled} == {80, 90}
    assert len(made) == 2 * len({(case, dtype) for case, _, dtype in made}) == 18
    assert {p for each in compiled for p in each["paddings"]} == {-2, -1, 0, 16, 64}


def test_tiles_fit_into_the_memory_of_multiprocessors(compiled):
    for each in compiled:
        # Of an H100; of the GPUs of workstations, where smaller blocks are tried too.
        most = 227 if each["block"] == "first" else 99
        assert each["shared"] <= most * KIB, each


def test_sums_over_many_columns_are_not_left_to_tensor_cores(compiled):
    for each in compiled:
        # Those round towards 0: see `test_tiles_halves`. In float64 they round as all others do.
        is_carried = each["dtype"] == "float64" and each["kernel"] == "product"
        assert each["is_carried"] and any(each["is_carried"]) == is_carried, each


def test_arithmetic_is_in_one_type_alone(compiled):
    for each in compiled:
        narrow = each["dtype"] == "float32"
        assert each["has_float32"] == narrow and each["has_float64"] != narrow, each


def test_constants_are_as_accurate_as_float64(compiled):
    constants = {
        (each["case"], each["kernel"]): each["constants"]
        for each in compiled
        if each["dtype"] == "float64"
    }
    # log 2, and its square / 3
    assert {0.6931471805599453, 0.16015100463940046} <= set(constants["10 inputs", "product"])
    assert {2 / 3, 5 / 6, 6 / 7} <= set(constants["rational quadratic", "pullback"])


def test_a_logarithm_of_what_is_nearly_1_keeps_its_digits(compiled):
    # The one that GPUs have in hardware is off by 2e-7, however small the logarithm is.
    assert not any(each["has_rough_logarithm"] for each in compiled)

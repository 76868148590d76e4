"""Compile fused kernels for GPUs that are not there, as they would be launched; print the outcome.

A program, for Triton compiles only where it was not told to interpret: see `test_tiles_compiled`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import surrogate.tiles.fused as fusing
from surrogate import (
    RBF,
    Coregionalization,
    Hamming,
    Kernel,
    Matern52,
    PiecewisePolynomial,
    RationalQuadratic,
)

N = 1000
F32, F64 = torch.float32, torch.float64
# Name, kernel, how far points are apart, for which GPU, in which type, and which of the blocks.
CASES: list[tuple[str, Kernel, float, int, torch.dtype, tuple[str, ...]]] = [
    ("10 inputs", Matern52(10, 1.3), 1.0, 90, F32, ("first", "last")),
    ("10 inputs", Matern52(10, 1.3), 1.0, 90, F64, ("first",)),
    ("64 inputs", Matern52(64, 3.0), 1.0, 90, F32, ("last",)),
    ("far apart", Matern52(3), 1000.0, 80, F32, ("first",)),
    (
        "categories",
        Matern52(2, columns=[0, 1]) * Hamming(2, columns=[3, 4]),
        1.0,
        90,
        F32,
        ("last",),
    ),
    (
        "sum",
        2.0 * RBF(10, 1.3) + PiecewisePolynomial(2, 3, 1.0, columns=[0, 1]),
        1.0,
        80,
        F32,
        ("last",),
    ),
    ("rational quadratic", RationalQuadratic(3), 1.0, 80, F64, ("last",)),
    ("rational quadratic", RationalQuadratic(6), 1.0, 90, F32, ("last",)),
    (
        "tasks",
        Matern52(2, columns=[0, 1]) * Coregionalization(4, column=3),
        1.0,
        80,
        F32,
        ("first",),
    ),
]


def data(d: int, spread: float) -> torch.Tensor:
    X = torch.rand(N, max(d, 5), dtype=torch.float64)
    X[:, :3] *= spread
    X[:, 3] = (4 * X[:, 3]).floor()
    return X[:, :d]


def accumulators(ttir: str) -> Iterator[bool]:
    """For each product of matrices, whether it is added to what is made of what a loop carries."""
    carried = set(re.findall(r"(%\w+) = %\w+", "".join(re.findall(r"iter_args\((.*?)\)", ttir))))
    for line in ttir.splitlines():
        made, _, of = line.partition(" = ")
        if "scf.for" in line:
            continue
        found = re.search(r"tt\.dot %\w+, %\w+, (%\w+)", line)
        if found:
            yield found.group(1) in carried
        if carried & set(re.findall(r"%\w+", of)):
            carried.add(made.strip())


@dataclass(frozen=True)
class Launch:
    """What a kernel would have been launched with."""

    block: fusing.Block
    kernel: Any
    arguments: tuple[Any, ...]
    known: dict[str, Any]

    def compiled(self, capability: int) -> Any:
        names = self.kernel.arg_names
        given = dict(zip(names, self.arguments, strict=False))
        signature = {name: _type(given.get(name)) for name in names}
        pointers = [i for i, name in enumerate(names) if isinstance(given.get(name), torch.Tensor)]
        source = ASTSource(
            self.kernel,
            signature,
            {**self.known, "BM": self.block.rows, "BN": self.block.columns},
            {(i,): [["tt.divisibility", 16]] for i in pointers},
        )
        options = {"num_warps": self.block.warps, "num_stages": self.block.stages}
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def launches(tiles: fusing.TritonTiles, wanted: tuple[str, ...]) -> Iterator[tuple[str, Launch]]:
    """Those of a product and of a pullback, with the first or the last of the blocks offered."""
    vectors, blocks = torch.rand(N, 15, dtype=torch.float64), fusing._blocks
    launched: list[Launch] = []

    def launch(self: fusing.Block, kernel: Any, grid: Any, arguments: Any, known: Any) -> None:
        launched.append(Launch(self, kernel, arguments, known))

    fusing.Block.launch = launch
    for name in wanted:
        which = 0 if name == "first" else -1
        fusing._blocks = lambda dtype, crowd, which=which: [blocks(dtype, crowd)[which]]
        tiles.product(vectors)
        tiles.pullback(vectors, vectors)
        yield from ((name, each) for each in launched)
        launched.clear()
    fusing._blocks = blocks


def report(
    kernel: Kernel, spread: float, capability: int, dtype: torch.dtype, blocks: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """What is to be known of each kernel compiled."""
    formula = kernel.formula()
    assert formula is not None
    X = data(int(getattr(kernel, "dims", None) or 10), spread)
    tiles = fusing.TritonTiles(formula, [p.shape for p in kernel.parameters()], X, dtype)
    for block, launch in launches(tiles, blocks):
        made = launch.compiled(capability)
        ttir, ptx = made.asm["ttir"], made.asm["ptx"]
        yield {
            "kernel": launch.kernel.__name__,
            "capability": capability,
            "dtype": str(dtype).removeprefix("torch."),
            "block": block,
            "paddings": [f.padded for f in tiles.layout.factors],
            "shared": made.metadata.shared,
            "is_carried": list(accumulators(ttir)),
            "has_float32": "f32" in ttir,
            "has_float64": ".f64" in ptx,
            "has_rough_logarithm": "lg2.approx" in ptx,
            "constants": [float(c) for c in re.findall(r"dense<(-?\d[-+.\deE]*)> : .*xf64>", ttir)],
        }


def _type(value: object) -> str:
    if value is None:
        return "constexpr"
    if not isinstance(value, torch.Tensor):
        return "i32"
    return {torch.float16: "*fp16", torch.float32: "*fp32", torch.float64: "*fp64"}[value.dtype]


if __name__ == "__main__":
    torch.manual_seed(0)
    found = [{"case": name, **each} for name, *case in CASES for each in report(*case)]
    json.dump(found, sys.stdout)

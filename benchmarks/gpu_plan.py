"""What benchmarks/gpu.py does: its parts in their order, and the sizes on each kind of device."""

import dataclasses
from dataclasses import dataclass
from typing import Any

OURS, PEERS = "gpu_child.py", "gpu_peers.py"


@dataclass(frozen=True)
class Part:
    """A process of its own, that may fail or be stopped without harm to the others.

    Attributes:
        title: What is done.
        share: Of all the time, beside the shares of the other parts that are run. What a part
            leaves over is there for those after it.
        script: Whose process it is.
        only: The type of device that it is for; None for all.
    """

    title: str
    share: float
    script: str = OURS
    only: str | None = None


# What matters most comes first: a machine may be taken away before the end.
PARTS = {
    "correctness": Part("against float64 on the CPU", 18),
    "interpreter": Part("the same with fused kernels, interpreted", 6, only="cpu"),
    "reference": Part("products and pullbacks at the reference size", 8),
    "fits": Part("whole fits", 12),
    "asks": Part("Optimizer.ask", 10),
    "million": Part("the largest fit", 34),
    "grid": Part("products and pullbacks at other sizes", 8),
    "gpytorch": Part("the same by GPyTorch", 8, script=PEERS),
    "keops": Part("products and pullbacks by KeOps", 4, script=PEERS),
    "botorch": Part("fits by BoTorch", 4, script=PEERS),
    "judge": Part("what peers found, where no dense oracle goes", 3),
    "tune": Part("launches of the fused kernels", 25, only="cuda"),
}
ALWAYS = [name for name in PARTS if name != "tune"]


@dataclass(frozen=True)
class Plan:
    """Sizes.

    Attributes:
        check, check_dims, check_columns: Correctness: n, each d, and t.
        interpreted: n where fused kernels are interpreted, which is slow.
        reference: n, d and t of the product that targets are about.
        sizes, dims, columns: The grid: each n, d and t.
        pairs: Of points, in one measurement of the grid; where n² is more, only so many rows of the
            product are computed.
        slow_pairs: The same for implementations that keep tiles in memory.
        fits: n of the fits.
        million: n of the largest.
        asks: Observations of an Optimizer.
        asked: Times it is asked after the first.
        exact_up_to: Largest n for the dense oracle.
        peer_fits: n of the peers' fits.
        adam_steps: Of GPyTorch.
        predicted: Points to predict at.
        runs: Most timed runs of one measurement.
        run_seconds: No further run after so many seconds.
    """

    check: int = 2085  # no multiple of a tile
    check_dims: tuple[int, ...] = (3, 10, 30)
    check_columns: tuple[int, ...] = (1, 16, 64)
    interpreted: int = 150
    reference: tuple[int, int, int] = (100_000, 10, 16)
    sizes: tuple[int, ...] = (100_000, 10_000, 1_000_000)
    dims: tuple[int, ...] = (10, 3, 30)
    columns: tuple[int, ...] = (16, 1, 64)
    pairs: float = 1e10
    slow_pairs: float = 2e9
    fits: tuple[int, ...] = (10_000, 100_000)
    million: int = 1_000_000
    asks: tuple[int, ...] = (10_000, 100_000)
    asked: int = 5
    exact_up_to: int = 20_000
    peer_fits: tuple[int, ...] = (10_000, 100_000)
    adam_steps: int = 100
    predicted: int = 2000
    runs: int = 9
    run_seconds: float = 1.0

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> "Plan":
        """From JSON, which knows no tuples."""
        lists: dict[str, Any] = {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
        return Plan(**fields | lists)

    def fields(self) -> dict:
        """For JSON."""
        return dataclasses.asdict(self)


_CPU = Plan(
    check=1061,
    reference=(10_000, 10, 16),
    sizes=(10_000, 2000),
    pairs=1e8,
    slow_pairs=1e8,
    fits=(2000, 5000),
    million=10_000,
    asks=(1000, 3000),
    exact_up_to=5000,
    peer_fits=(2000,),
    runs=5,
)

PLANS = {
    ("cuda", "full"): Plan(),
    ("cuda", "quick"): Plan(
        sizes=(100_000,), fits=(10_000,), million=100_000, asks=(10_000,), peer_fits=(10_000,)
    ),
    ("cpu", "full"): _CPU,
    ("cpu", "quick"): dataclasses.replace(
        _CPU,
        check=517,
        check_dims=(3, 10),
        reference=(2000, 10, 16),
        sizes=(2000, 500),
        dims=(10, 3),
        columns=(16, 1),
        fits=(1000,),
        million=3000,
        asks=(300,),
        asked=2,
        peer_fits=(1000,),
        adam_steps=50,
        runs=3,
        run_seconds=0.3,
    ),
    ("cpu", "tiny"): dataclasses.replace(
        _CPU,
        check=90,
        interpreted=70,
        check_dims=(3,),
        check_columns=(2,),
        reference=(150, 3, 4),
        sizes=(150, 60),
        dims=(3,),
        columns=(4, 1),
        fits=(60,),
        million=150,
        asks=(12,),
        asked=1,
        peer_fits=(60,),
        adam_steps=3,
        predicted=20,
        runs=2,
        run_seconds=0.05,
    ),
}

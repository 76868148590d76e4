import os
from collections.abc import Iterator

import pytest
import torch

import surrogate.operators.kernel as tiling
import surrogate.tiles.plain as plain

# Fused tiles are asked for by name here, and run on the CPU; read when they are first imported.
os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """Matrices as small as ours only make threads wait: on busy cores, for seconds a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few dozen rows make many tiles and strips, none of which divides n."""
    monkeypatch.setattr(plain, "_ON_CPU", (4, 6))
    monkeypatch.setattr(tiling, "_STRIP", 12)
    monkeypatch.setattr(tiling, "_WIDENED", 14)

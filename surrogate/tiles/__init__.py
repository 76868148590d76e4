"""Products with k(X, X) that never store it: by torch on any device, fused on NVIDIA GPUs."""

from surrogate.tiles.base import Tiles
from surrogate.tiles.formula import Formula
from surrogate.tiles.plain import KernelLike, TorchTiles

__all__ = ["Formula", "KernelLike", "Tiles", "TorchTiles"]

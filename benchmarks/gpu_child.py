"""The process of one part of benchmarks/gpu.py that is ours; started by it."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import gpu_fits, gpu_products
from benchmarks.gpu_timing import serve

PARTS = {
    "correctness": gpu_products.correctness,
    "interpreter": gpu_products.interpreted,
    "reference": gpu_products.reference,
    "fits": gpu_fits.fits,
    "asks": gpu_fits.asks,
    "million": gpu_fits.million,
    "grid": gpu_products.grid,
    "judge": gpu_fits.judge,
    "tune": gpu_products.tune,
}

if __name__ == "__main__":
    serve(PARTS)

"""What a stranger gets who installs the wheel, and nothing else, into an empty environment.

    python .ci/installed.py FOLDER

Run by the interpreter of that environment; FOLDER holds the wheel and the source distribution.
"""

import importlib
import pkgutil
import statistics
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from importlib.metadata import distribution
from pathlib import Path

# Modules that need a library of an extra, and what they say where it is missing.
EXTRAS = {
    "bbmmopt.integrations.optuna": "bbmmopt[optuna]",
    "bbmmopt.integrations.ray": "bbmmopt[ray]",
    "bbmmopt.integrations.sklearn": "bbmmopt[sklearn]",
    "bbmmopt.dashboard": "bbmmopt[dashboard]",
}
TRITON = ("surrogate.tiles.entries", "surrogate.tiles.kernels")
ABSENT = (
    *("optuna", "sklearn", "ray", "starlette", "uvicorn", "plotly", "pandas", "IPython"),
    *("dask", "loky", "submitit", "psycopg", "triton", "pytest", "sphinx"),
)
STATIC = ("bbmmopt/dashboard/static/index.html", "bbmmopt/dashboard/static/main.js")


def check_files(folder: Path) -> None:
    """The wheel holds both packages and what belongs to them, the source distribution the rest."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    version = distribution("bbmmopt").version
    expected = {"bbmmopt", "surrogate", f"bbmmopt-{version}.dist-info"}
    assert {name.split("/")[0] for name in names} == expected, sorted(names)[:20]
    for name in ("bbmmopt/py.typed", "surrogate/py.typed", *STATIC):
        assert name in names, f"{name} is missing from {wheel.name}"
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("pyproject.toml", "README.md", "LICENSE", "bbmmopt/optimizer.py", *STATIC):
        assert name in inside, f"{name} is missing from {sdist.name}"
    for file in (wheel, sdist):
        print(f"{file.name}: {file.stat().st_size / 1024:.0f} KiB")


def check_imports() -> None:
    """Everything can be imported without optional libraries, but for what says which it needs."""
    there = [name for name in ABSENT if importlib.util.find_spec(name)]
    assert not there, f"this environment is not empty: {there}"
    count = 0
    for package in ("surrogate", "bbmmopt"):
        home = importlib.import_module(package)
        missing = [name for name in home.__all__ if not hasattr(home, name)]
        assert not missing, f"{package} announces {missing} but does not have them"
        for found in pkgutil.walk_packages(home.__path__, f"{package}.", onerror=lambda name: None):
            if found.name in TRITON or found.name.startswith(tuple(f"{name}." for name in EXTRAS)):
                continue
            if found.name in EXTRAS:
                says = import_error(found.name)
                assert EXTRAS[found.name] in says, f"{found.name} says {says!r}"
            elif not found.name.endswith("__main__"):
                importlib.import_module(found.name)
                count += 1
    plots = importlib.import_module("bbmmopt.plots")
    for name in plots.__all__:
        getattr(plots, name)
    print(f"{count} modules and {len(plots.__all__)} plot functions import without any extra")


def import_error(module: str) -> str:
    """What using a module says where its library is missing."""
    try:
        home = importlib.import_module(module)
        for name in home.__all__:
            getattr(home, name)
    except ImportError as error:
        return str(error)
    return "nothing"


def print_times() -> None:
    """Seconds of imports, medians of five processes."""
    for code in ("import bbmmopt", "import surrogate", "from bbmmopt import Optimizer"):
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds.append(time.perf_counter() - began)
        print(f"python -c '{code}': {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    warnings.simplefilter("error")
    check_files(Path(sys.argv[1]))
    check_imports()
    print_times()

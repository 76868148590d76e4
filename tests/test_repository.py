"""What holds for the repository as a whole: who imports whom, what the pages and examples promise.

`surrogate` never imports `bbmmopt`; inside each package, a layer imports only the layers named.
"""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bbmmopt
import bbmmopt.plots
import surrogate
from tests.bbmmopt.programs import run, run_forked

ROOT = Path(__file__).resolve().parents[1]

# --------------------------------------------------------------------------------------
# Imports point one way. Keep this table next to the map of the house in CONTRIBUTING.md.
# --------------------------------------------------------------------------------------

# Small helpers that every layer of surrogate may import, and that import none of them.
_TOOLS = {
    "surrogate.checks",
    "surrogate.randomness",
    "surrogate.sums",
    "surrogate.threads",
    "surrogate.transfers",
    "surrogate.workspace",
}

# What describes a problem and its trials: everything else in bbmmopt may know these.
_BASE = {
    "bbmmopt.notebook",
    "bbmmopt.pareto",
    "bbmmopt.perturbation",
    "bbmmopt.prior",
    "bbmmopt.problem",
    "bbmmopt.space",
    "bbmmopt.trial",
}

ALLOWED = {
    "surrogate.checks": set(),
    "surrogate.randomness": set(),
    "surrogate.sums": set(),
    "surrogate.threads": set(),
    "surrogate.transfers": set(),
    "surrogate.workspace": set(),
    "surrogate.tiles": set(_TOOLS),
    "surrogate.operators": {"surrogate.tiles", *_TOOLS},
    "surrogate.solvers": {"surrogate.operators", *_TOOLS},
    "surrogate.kernels": {"surrogate.operators", "surrogate.tiles", *_TOOLS},
    "surrogate.models": {
        "surrogate.operators",
        "surrogate.solvers",
        "surrogate.kernels",
        "surrogate.tiles",
        *_TOOLS,
    },
    "bbmmopt.notebook": set(),
    "bbmmopt.space": {"bbmmopt.notebook"},
    "bbmmopt.trial": {"bbmmopt.notebook", "bbmmopt.space"},
    "bbmmopt.pareto": set(),
    "bbmmopt.problem": {"bbmmopt.pareto", "bbmmopt.space", "bbmmopt.trial"},
    "bbmmopt.perturbation": {"bbmmopt.problem", "bbmmopt.space"},
    "bbmmopt.prior": {"bbmmopt.space"},
    "bbmmopt.early_stopping": set(),
    "bbmmopt.explain": _BASE,
    "bbmmopt.former": {"bbmmopt.space"},
    "bbmmopt.study": {
        "bbmmopt.early_stopping",
        "bbmmopt.explain",
        "bbmmopt.former",
        "bbmmopt.storage",
        *_BASE,
    },
    "bbmmopt.devices": set(),
    "bbmmopt.transforms": set(),
    "bbmmopt.modelling": {"surrogate", "bbmmopt.transforms", *_BASE},
    "bbmmopt.acquisition": {"bbmmopt.pareto"},
    "bbmmopt.search": {"bbmmopt.space"},
    "bbmmopt.storage": {"bbmmopt.problem", "bbmmopt.space", "bbmmopt.trial"},
    "bbmmopt.strategies": {
        "bbmmopt.early_stopping",
        "bbmmopt.explain",
        "bbmmopt.former",
        "bbmmopt.acquisition",
        "bbmmopt.modelling",
        "bbmmopt.search",
        *_BASE,
    },
    "bbmmopt.optimizer": {
        "bbmmopt.devices",
        "bbmmopt.study",
        "bbmmopt.modelling",
        "bbmmopt.storage",
        "bbmmopt.strategies",
        *_BASE,
    },
    "bbmmopt.execution": {
        "bbmmopt.early_stopping",
        "bbmmopt.optimizer",
        "bbmmopt.storage",
        "bbmmopt.study",
        *_BASE,
    },
    "bbmmopt.plots": {
        "bbmmopt.early_stopping",
        "bbmmopt.modelling",
        "bbmmopt.acquisition",
        "bbmmopt.former",
        "bbmmopt.optimizer",
        "bbmmopt.search",
        "bbmmopt.storage",
        "bbmmopt.study",
        *_BASE,
    },
    "bbmmopt.__main__": {"bbmmopt.cli"},
    "bbmmopt.integrations": {
        "bbmmopt.execution",
        "bbmmopt.former",
        "bbmmopt.optimizer",
        "bbmmopt.storage",
        "bbmmopt.study",
        *_BASE,
    },
    "bbmmopt.dashboard": {
        "bbmmopt.explain",
        "bbmmopt.optimizer",
        "bbmmopt.plots",
        "bbmmopt.storage",
        "bbmmopt.study",
        *_BASE,
    },
}

FREE = {"surrogate", "bbmmopt", "bbmmopt.cli"}  # the two __init__ files and the command line

# Which files may import a library. What is not named here is not imported at all.
_ANYWHERE = ("surrogate/", "bbmmopt/")
LIBRARIES = {
    "torch": _ANYWHERE,  # in bbmmopt not when a light module is imported: see LIGHT below
    "numpy": _ANYWHERE,
    "scipy": _ANYWHERE,
    "triton": (
        "surrogate/tiles/choose.py",  # for its version
        "surrogate/tiles/entries.py",
        "surrogate/tiles/fused.py",  # for the name of an error
        "surrogate/tiles/kernels.py",
    ),
    "sqlalchemy": ("bbmmopt/storage/",),
    "matplotlib": ("bbmmopt/plots/", "bbmmopt/cli"),
    "PIL": ("bbmmopt/plots/gif.py",),
    # In stored.py for its type alone.
    "pandas": ("bbmmopt/study/tables.py", "bbmmopt/study/stored.py", "bbmmopt/plots/table.py"),
    "optuna": ("bbmmopt/integrations/optuna/",),
    "sklearn": ("bbmmopt/integrations/sklearn/",),
    "joblib": ("bbmmopt/integrations/sklearn/",),  # which scikit-learn brings
    "ray": ("bbmmopt/integrations/ray/",),
    "starlette": ("bbmmopt/dashboard/",),
    "uvicorn": ("bbmmopt/dashboard/",),
    "plotly": ("bbmmopt/dashboard/",),
    "click": ("bbmmopt/cli",),
    "rich": ("bbmmopt/cli", "bbmmopt/execution"),
    "IPython": ("bbmmopt/execution/progress.py",),
}

# Describing a space, listing stored trials and starting the command line must not wait for these.
HEAVY = ("torch", "matplotlib", "scipy")
LIGHT = [
    "bbmmopt",
    "bbmmopt.devices",
    "bbmmopt.space",
    "bbmmopt.trial",
    "bbmmopt.prior",
    "bbmmopt.problem",
    "bbmmopt.storage",
    "bbmmopt.early_stopping",
    "bbmmopt.study",
    "bbmmopt.study.tables",
    "bbmmopt.cli",
    "bbmmopt.execution",
]


def imported_names(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in the file the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"{path}:{node.lineno}: write the import out in full.")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer_of(module: str) -> str:
    """'surrogate.models.exact' -> 'surrogate.models'; a package's own names -> the package."""
    layer = ".".join(module.split(".")[:2])
    return layer if layer in ALLOWED or layer in FREE else module.split(".")[0]


def sources(root: Path) -> list[Path]:
    return [
        path for name in ("surrogate", "bbmmopt") for path in sorted((root / name).rglob("*.py"))
    ]


def wrong_directions(root: Path) -> list[str]:
    found = []
    for path in sources(root):
        relative = path.relative_to(root)
        package = relative.parts[0]
        module = ".".join(part for part in relative.with_suffix("").parts if part != "__init__")
        layer = layer_of(module)
        if layer == package != module:
            found.append(f"{relative} has no entry in ALLOWED")
            continue
        if layer in FREE:
            allowed = ALLOWED.keys() | FREE
            if layer == "surrogate":
                allowed = {name for name in allowed if name.startswith("surrogate")}
        else:
            allowed = ALLOWED[layer] | {layer}
        for target in sorted(imported_names(path)):
            ours = target.split(".")[0] in {"surrogate", "bbmmopt"}
            if ours and layer_of(target) not in allowed:
                found.append(f"{relative} ({layer}) imports {target}")
    return found


def stray_libraries(root: Path) -> list[str]:
    found = []
    for path in sources(root):
        relative = path.relative_to(root).as_posix()
        for library in sorted({name.split(".")[0] for name in imported_names(path)}):
            if library in {"surrogate", "bbmmopt"} or library in sys.stdlib_module_names:
                continue
            if not relative.startswith(LIBRARIES.get(library, ("nowhere",))):
                found.append(f"{relative} imports {library}")
    return found


def test_imports_point_one_way():
    assert wrong_directions(ROOT) == []


def test_each_library_is_imported_only_where_it_is_allowed():
    assert stray_libraries(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "is_violation"),
    [
        ("surrogate/models/exact.py", "from surrogate.kernels.base import Kernel", False),
        ("surrogate/models/exact.py", "from surrogate.threads import one_thread", False),
        ("surrogate/models/exact.py", "from bbmmopt.trial import Trial", True),
        ("surrogate/kernels/base.py", "from surrogate.solvers.mbcg import mbcg", True),
        ("surrogate/workspace.py", "from surrogate.models.exact import ExactGP", True),
        ("surrogate/__init__.py", "import bbmmopt", True),
        ("bbmmopt/modelling/model.py", "from surrogate import ExactGP, fit", False),
        ("bbmmopt/problem.py", "from bbmmopt.space.checks import listing", False),
        ("bbmmopt/space/parameters.py", "from bbmmopt.trial import Trial", True),
        ("bbmmopt/acquisition/analytic.py", "from surrogate import ExactGP", True),
        ("bbmmopt/search/gradient.py", "from bbmmopt.acquisition.analytic import LogEI", True),
        ("surrogate/new_idea.py", "import torch", True),
        ("bbmmopt/cli.py", "from bbmmopt.plots import plot_history", False),
    ],
)
def test_the_rule_of_directions_itself(tmp_path, file, line, is_violation):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert bool(wrong_directions(tmp_path)) == is_violation


@pytest.mark.parametrize(
    ("file", "line", "is_violation"),
    [
        ("bbmmopt/storage/sql.py", "import json, sqlalchemy", False),
        ("bbmmopt/optimizer.py", "from sqlalchemy import select", True),
        ("bbmmopt/execution.py", "from rich.progress import Progress", False),
        ("bbmmopt/execution.py", "def plot():\n    import matplotlib", True),
        ("surrogate/models/fit.py", "from scipy.optimize import minimize", False),
        ("surrogate/models/fit.py", "import gpytorch", True),
    ],
)
def test_the_rule_of_libraries_itself(tmp_path, file, line, is_violation):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert bool(stray_libraries(tmp_path)) == is_violation


# --------------------------------------------------------------------------------------
# Programs of their own: imports, the README's blocks, the examples.
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_loads_no_heavy_library(module, tmp_path):
    heavy = HEAVY if module != "bbmmopt" else (*HEAVY, "sqlalchemy", "numpy", "rich", "click")
    code = f"import sys, {module}; print(*sorted(set({heavy!r}) & set(sys.modules)))"
    assert run("-c", code, cwd=tmp_path).split() == []


def code_blocks(page: Path) -> list[str]:
    """The ```python blocks of a Markdown page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def test_the_blocks_of_the_readme_are_found():
    assert len(code_blocks(ROOT / "README.md")) == (ROOT / "README.md").read_text().count("```py")


@pytest.mark.parametrize("number", range(len(code_blocks(ROOT / "README.md"))))
def test_the_code_of_the_readme_runs(number, tmp_path):
    program = tmp_path / "block.py"
    program.write_text(code_blocks(ROOT / "README.md")[number])
    run_forked(program, cwd=tmp_path)


# The pages of the documents: blocks of ```python run, one after the other as one program; those of
# other libraries are ```py. Code cells are executed when the documents are built.
PAGES = [
    page
    for page in [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in page.parts and code_blocks(page)
]


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_the_code_of_a_page_runs(page, tmp_path):
    program = tmp_path / "page.py"
    program.write_text("\n".join(code_blocks(page)))
    run_forked(program, cwd=tmp_path)


# Small arguments for each example: enough trials that the model is fitted too, not only the start.
EXAMPLES = {
    "acquisition_surface.py": "--trials 12",
    "bbmm_vs_cholesky.py": "--sizes 100 --cholesky-to 100",
    "distributed_gp.py": "--points 300",
    "lab_batches.py": "--days 2",
    "large_data.py": "--sizes 200",
    "learning_curves.py": "--settings 10 --complete 5 --epochs 10",
    "multi_output.py": "--times 4 --rare 4",
    "optuna_study.py": "--trials 12",
    "quickstart.py": "--trials 12",
    "search_cv.py": "--candidates 12",
    "tune_gradient_boosting.py": "--trials 8 --workers 1",
    "tune_pytorch.py": "--trials 8 --epochs 4 --workers 1",
    "tune_svm_digits.py": "--trials 12",
    "two_objectives.py": "--trials 14",
    "your_own_operator.py": "--points 2000",
}


def test_every_example_is_run():
    found = {path.name for path in (ROOT / "examples").glob("*.[ps][yh]")}
    assert found == {*EXAMPLES, "lab_loop.sh"}  # killed and resumed in bbmmopt/test_cli_lab.py


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example, tmp_path):
    script, arguments = ROOT / "examples" / example, EXAMPLES[example].split()
    if example == "distributed_gp.py":
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        assert "300 observations" in run(*torchrun, str(script), *arguments, cwd=tmp_path)
    elif example in ("quickstart.py", "large_data.py"):  # these as a user would
        run(str(script), *arguments, cwd=tmp_path)
    else:
        run_forked(script, *arguments, cwd=tmp_path)


# --------------------------------------------------------------------------------------
# What is written down.
# --------------------------------------------------------------------------------------

PUBLIC = [
    (package, name)
    for package in (surrogate, bbmmopt)
    for name in package.__all__
    if name != "__version__"
]


@pytest.mark.parametrize(
    ("package", "name"), PUBLIC, ids=[f"{package.__name__}.{name}" for package, name in PUBLIC]
)
def test_every_public_name_has_a_docstring_of_its_own(package, name):
    thing = getattr(package, name)
    text = thing.__doc__ if inspect.isroutine(thing) else vars(thing).get("__doc__")
    # A dataclass without a docstring is given its signature as one.
    assert text and not text.startswith(f"{name}(")


def test_every_public_name_is_in_the_reference():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    there = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)$", pages, flags=re.MULTILINE))
    named = {f"{package.__name__}.{name}" for package, name in PUBLIC}
    named |= {f"bbmmopt.plots.{name}" for name in bbmmopt.plots.__all__}
    assert sorted(named - there) == []


@pytest.mark.parametrize("package", [surrogate, bbmmopt], ids=["surrogate", "bbmmopt"])
def test_dir_lists_every_public_name(package):
    assert set(package.__all__) <= set(dir(package))


def test_an_unknown_name_of_bbmmopt_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Optimiser'"):
        bbmmopt.Optimiser  # noqa: B018


# Written so that this file does not match itself.
PRIVATE = re.compile(
    r"(?<![\w.])/(?:work|root|home|Users|opt|tmp)/\w"
    r"|\b(?:pypi|pythonhosted|anaconda|conda|download\.pytorch)\.(?:org|com)\b"
    r"|--(?:extra-)?(?:index|find)-(?:url|links)\b"
)


def repository_files() -> list[Path]:
    """Files that are tracked, or would be if all were added now."""
    command = "git -c safe.directory=* ls-files -z --cached --others --exclude-standard"
    listed = subprocess.run(command.split(), cwd=ROOT, capture_output=True, check=True).stdout
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_path_of_one_machine_or_a_package_index():
    found = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
            for number, line in enumerate(text.splitlines(), start=1)
            if PRIVATE.search(line)
        ]
    assert found == []

"""Facts about the names of bbmmopt.plots, which are imported when they are first used."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

from bbmmopt import plots
from tests.bbmmopt.programs import run

ANNOUNCED = plots.__all__


def imported_for_types() -> dict[str, str]:
    """{name: module} of the imports that only a type checker sees."""
    tree = ast.parse(Path(plots.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("name", ANNOUNCED)
def test_each_announced_name_is_there_and_comes_from_where_type_checkers_are_told(name):
    module = import_module(imported_for_types()[name])
    assert getattr(plots, name) is getattr(module, name)
    assert name in dir(plots)


def test_the_tables_of_names_agree():
    assert list(imported_for_types().keys() - set(ANNOUNCED)) == []
    assert len(set(ANNOUNCED)) == len(ANNOUNCED)
    with pytest.raises(AttributeError, match="no attribute 'plot_nothing'"):
        _ = plots.plot_nothing


def test_every_picture_has_its_numbers():
    pictures = [name for name in ANNOUNCED if name.startswith("plot_")]
    assert len(pictures) >= 4
    for name in pictures:
        draw = getattr(plots, name)
        first, *_, ax, legend = inspect.signature(draw).parameters
        assert (first, ax, legend) == ("study", "ax", "legend"), name
        assert f"{name.removeprefix('plot_')}_data" in ANNOUNCED


def test_what_needs_no_model_loads_no_torch(tmp_path):
    modules = [f"bbmmopt.plots.{name}" for name in ("history", "edf", "timeline", "curves")]
    code = f"import sys, {', '.join(modules)}; print('torch' in sys.modules)"
    assert run("-c", code, cwd=tmp_path).split() == ["False"]

"""The numbers behind a picture, as columns."""

import sys

import numpy as np
import pytest

from bbmmopt.plots import Table
from bbmmopt.plots.table import columns_of


def test_a_table_is_its_columns_by_name():
    table = Table({"a": [1, 2, 3], "b": ["x", "y", "z"]}, name="loss")
    assert list(table) == ["a", "b"]
    assert (len(table), table.rows, table.facts) == (2, 3, {"name": "loss"})
    assert table["a"].tolist() == [1, 2, 3]
    assert {name: list(values) for name, values in table.items()} == {
        "a": [1, 2, 3],
        "b": ["x", "y", "z"],
    }
    assert repr(table) == "Table(3 rows of a, b)"
    assert Table({}).rows == 0


def test_a_column_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(KeyError, match="there is no column 'c'; there are a, b"):
        Table({"a": [1], "b": [2]})["c"]


def test_columns_have_one_dimension_and_one_length():
    with pytest.raises(ValueError, match=r"one length; got \{'a': 2, 'b': 1\}"):
        Table({"a": [1, 2], "b": [1]})
    with pytest.raises(ValueError, match=r"column 'a' must have one dimension; got shape \(1, 2\)"):
        Table({"a": [[1, 2]]})


def test_a_data_frame_has_the_columns_and_the_facts():
    frame = Table({"a": [1, 2], "b": [0.5, np.nan]}, x="a").to_frame()
    assert list(frame.columns) == ["a", "b"]
    assert frame["a"].tolist() == [1, 2]
    assert frame["b"].isna().tolist() == [False, True]
    assert frame.attrs == {"x": "a"}


def test_without_pandas_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_frame needs pandas: pip install pandas"):
        Table({"a": [1]}).to_frame()


def test_dicts_become_columns_of_the_type_that_holds_them():
    rows = [{"n": 2**60, "x": 1.5, "k": "a", "b": True}, {"n": 3, "k": "b", "b": False}]
    columns = columns_of("params", ["n", "x", "k", "b"], rows)
    assert list(columns) == ["params.n", "params.x", "params.k", "params.b"]
    assert columns["params.n"].tolist() == [2**60, 3]  # exact, no double
    np.testing.assert_array_equal(columns["params.x"], [1.5, np.nan])
    assert columns["params.k"].tolist() == ["a", "b"]
    assert columns["params.b"].tolist() == [True, False]
    missing = columns_of("params", ["k"], [{"k": "a"}, {}])["params.k"]
    assert missing.tolist() == ["a", None]

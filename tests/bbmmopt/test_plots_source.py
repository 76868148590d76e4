"""What a picture may be drawn of: an Optimizer, a Study, or where one is stored."""

import numpy as np
import pytest

from bbmmopt.optimizer import Optimizer
from bbmmopt.plots import acquisition_data, posterior_data
from bbmmopt.plots.source import modelled, stored
from bbmmopt.space import Nonlinear, Real, Space
from bbmmopt.storage import UnknownStudy
from bbmmopt.storage.sql import SQLStorage
from bbmmopt.study import Study
from tests.bbmmopt.pictures import run

VALUES = [3.0, 1.0, 2.0, 4.0, 5.0, 6.0]
X = {"x": Real(0, 1)}


@pytest.fixture
def closed(monkeypatch):
    """The storages that were closed."""
    found, close = [], SQLStorage.close
    monkeypatch.setattr(SQLStorage, "close", lambda self: (found.append(self), close(self)))
    return found


def test_the_only_study_of_a_file_is_opened_whatever_its_name(tmp_path, closed):
    path = tmp_path / "runs.db"
    optimizer = run(X, VALUES, storage=path, study="mine")
    for source in (str(path), path, f"{path}#mine"):
        with stored(source) as study:
            assert (study.study, [t.value for t in study.trials]) == ("mine", VALUES)
            assert not isinstance(study, Optimizer)
        with modelled(source) as opened:
            assert opened.preview().params == optimizer.preview().params
    assert len(closed) == 6
    assert optimizer.storage not in closed


def test_of_several_studies_in_a_file_one_is_named(tmp_path):
    path = tmp_path / "runs.db"
    for name, values in (("first", VALUES), ("second", VALUES[:3])):
        run(X, values, storage=path, study=name).close()
    with stored(f"{path}#second") as study:
        assert len(study.trials) == 3
    with pytest.raises(UnknownStudy, match=r"say which study.*'first', 'second'"), stored(path):
        pass
    with pytest.raises(UnknownStudy, match=r"no study 'third'; there are: 'first'"):
        acquisition_data(f"{path}#third")


def test_a_file_whose_name_has_a_hash_is_a_file(tmp_path):
    path = tmp_path / "run#2.db"
    run(X, VALUES, storage=path).close()
    with stored(str(path)) as study:
        assert len(study.trials) == 6
    with stored(f"{path}#default") as study:
        assert len(study.trials) == 6


@pytest.mark.parametrize("place", ["{}/typo.db", "{}/typo.db#name", "sqlite:///{}/typo.db"])
@pytest.mark.parametrize("opening", [stored, modelled])
def test_looking_for_a_study_makes_no_file(tmp_path, place, opening):
    with pytest.raises(UnknownStudy, match="there is no file"), opening(place.format(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("opening", [stored, modelled])
@pytest.mark.parametrize("source", [3, None, [1.0]])
def test_what_is_no_study_is_refused(opening, source):
    expected = "expected an Optimizer, a Study, or where one is stored"
    with pytest.raises(TypeError, match=expected), opening(source):
        pass


def test_a_study_that_was_given_stays_open_and_its_functions_stay_known(tmp_path, closed):
    space = Space(X | {"y": Real(0, 1)}, [Nonlinear("half", lambda p: p["x"] - p["y"])])
    optimizer = Optimizer(space, minimize="loss", seed=0, storage=tmp_path / "a.db")
    for value in VALUES:
        optimizer.tell(optimizer.ask(), value)
    study = Study(space, minimize="loss", storage=optimizer.storage)
    with modelled(study) as opened:
        assert opened.preview().params == optimizer.preview().params
    with modelled(optimizer) as same, stored(study) as too:
        assert same is optimizer
        assert too is study
    assert closed == []
    # Of the file alone, the function is not known: that is said, and the rest is drawn.
    found = posterior_data(tmp_path / "a.db", "x", "y")
    wanted = posterior_data(optimizer, "x", "y")
    np.testing.assert_array_equal(found["median"], wanted["median"])
    assert "allowed" in wanted
    assert "allowed" not in found


def test_studies_on_a_server_are_drawn_too(postgres_url):
    optimizer = run(X, VALUES, storage=postgres_url, study="there")
    for source in (postgres_url, f"{postgres_url}#there"):
        table = acquisition_data(source)
        np.testing.assert_array_equal(table["value"], acquisition_data(optimizer)["value"])
    optimizer.close()

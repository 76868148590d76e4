import pytest

from surrogate import BBMM, Auto, Cholesky
from surrogate.solvers.auto import for_fit, for_prediction


def test_small_problems_are_factored_and_large_ones_multiplied():
    auto = Auto(fit_from=10, predict_from=20)
    assert [auto.for_fit(n).name for n in (0, 9, 10)] == ["cholesky", "cholesky", "bbmm"]
    assert [auto.for_prediction(n).name for n in (0, 19, 20)] == ["cholesky", "cholesky", "bbmm"]


def test_a_choice_comes_with_the_options_given_and_its_reason():
    auto = Auto(fit_from=10, bbmm=BBMM(rank=3), cholesky=Cholesky(max_jitter=1e-6))
    assert auto.for_fit(9).solver == Cholesky(max_jitter=1e-6)
    assert auto.for_fit(9).reason == "9 observations, below the 10 from which products pay"
    assert auto.for_fit(11).solver == BBMM(rank=3)
    assert auto.for_fit(11).reason.startswith("11 observations, at or above the 10")


@pytest.mark.parametrize("solver", [Cholesky(), BBMM()])
@pytest.mark.parametrize("choose", [for_fit, for_prediction])
def test_what_the_user_asks_for_is_what_is_taken(solver, choose):
    for n in (0, 10**6):
        assert choose(solver, n).solver is solver
        assert choose(solver, n).reason == "as asked"
    assert choose(Auto(), 10**6).name == "bbmm"


def test_the_rank_of_the_preconditioner_grows_with_the_data_unless_it_is_given():
    ranks = [BBMM().rank_for(n) for n in (0, 1, 50, 500, 5000, 50_000)]
    assert ranks == sorted(ranks)
    assert ranks[:3] == [0, 1, 50]
    assert all(r * r <= 101 * n for r, n in zip(ranks[3:], (500, 5000, 50_000), strict=True))
    assert BBMM(rank=30).rank_for(1000) == 30
    assert BBMM(rank=30).rank_for(7) == 7

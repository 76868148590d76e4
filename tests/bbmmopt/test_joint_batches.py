"""Facts about batches whose points are chosen together."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bbmmopt import (
    Categorical,
    Integer,
    Linear,
    Near,
    Nonlinear,
    Optimizer,
    Ordinal,
    Real,
    Space,
    StudyDiffers,
)
from bbmmopt.acquisition import LogMean, NoisyBatchLogExpectedImprovement
from bbmmopt.acquisition.weighted import Weighted
from bbmmopt.modelling import Data
from bbmmopt.problem import Problem
from bbmmopt.search import Domain, Region
from bbmmopt.storage import MemoryStorage
from bbmmopt.strategies import Chosen, Global, Proposal, Request, propose_together
from bbmmopt.strategies.joint import batch_acquisition
from bbmmopt.trial import TrialState
from tests.bbmmopt.shell import create, lines

PLANE = Space({"x": Real(-5, 10), "y": Real(0, 15)})
MIXED = Space(
    {
        "C": Real(1e-3, 1e3, log=True),
        "kernel": Categorical(["rbf", "poly", "tree"]),
        "degree": Integer(2, 5, when={"kernel": "poly"}),
        "width": Integer(1, 100),
    }
)
LATTICE = Space({"a": Integer(0, 6), "b": Ordinal([1, 3, 10, 30]), "c": Categorical(["u", "v"])})
SUM = Space(
    {"x": Real(0, 1), "y": Real(0, 1), "k": Integer(0, 3)},
    constraints=[Linear({"x": 1, "y": 1}, at_most=1)],
)
DISC = Space(
    {"x": Real(-1, 1), "y": Real(-1, 1)},
    constraints=[Nonlinear("disc", lambda p: 1 - p["x"] ** 2 - p["y"] ** 2)],
)
EVERY = {"plane": PLANE, "mixed": MIXED, "lattice": LATTICE, "sum": SUM, "disc": DISC}


def wave(X: np.ndarray) -> np.ndarray:
    return np.sin(5 * X).sum(1) - ((X - 0.4) ** 2).sum(1)


def asked(space, n=14, *, noise=0.0, pending=0, failed=0, seed=0, **options) -> Request:
    """A question after n trials of a wave over the cube of the space."""
    rng = np.random.default_rng(seed)
    domain = Domain(space)
    if space.constraints:
        every = Region(domain).sample(n + pending + failed, torch.Generator().manual_seed(seed))
    else:
        every = space.snap(rng.random((4 * (n + pending + failed), len(space))))
    _, first = np.unique(every, axis=0, return_index=True)
    every = every[np.sort(first)]
    X, running, broken = every[:n], every[n:][:pending], every[n + pending :][:failed]
    y = wave(X) + noise * rng.standard_normal(len(X))
    data = Data(X, y, np.full(len(X), np.nan), running, broken, exact=noise == 0)
    success = None
    if failed:
        labels = np.concatenate([np.ones(len(X)), -np.ones(len(broken))])
        rows, errors = np.concatenate([X, broken]), np.full(len(labels), 0.5)
        success = Data(rows, labels, errors, running, broken[:0], False, bound=0.0, warp=False)
    seen = frozenset(domain.keys(np.concatenate([X, running, broken])))
    return Request(data, len(seen), seed, {}, seen, success=success, **options)


def score(strategy: Global, request: Request, X: np.ndarray) -> float:
    """The joint value of a batch, asked for anew."""
    beliefs = strategy.modellers.beliefs(request.known)
    acquisition = batch_acquisition(beliefs, request, strategy.space, len(X))
    with torch.no_grad():
        return float(acquisition(torch.from_numpy(X)))


# --------------------------------------------------------------------------------------
# What is proposed
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_on_a_lattice_it_comes_near_to_the_best_of_all_pairs(seed):
    strategy, request = Global(LATTICE, 5), asked(LATTICE, 10, seed=seed)
    beliefs = strategy.modellers.beliefs(request.known)
    acquisition = batch_acquisition(beliefs, request, LATTICE, 2)
    points = Domain(LATTICE, {}, request.seen).enumerate()
    pairs = np.array([points[[i, j]] for i, j in itertools.permutations(range(len(points)), 2)])
    with torch.no_grad():
        brute = float(acquisition(torch.from_numpy(pairs)).max())
    X = np.stack([p.x for p in propose_together(strategy, request, 2)])
    assert brute - 0.05 <= score(strategy, request, X) <= brute + 1e-9


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_is_never_worse_than_the_greedy_one_and_may_be_run(name):
    space = EVERY[name]
    strategy, request = Global(space, 5), asked(space)
    proposals = propose_together(strategy, request, 3)
    X = np.stack([proposal.x for proposal in proposals])
    told = proposals[0].origin["batch"]
    assert told["value"] >= told["one_by_one"]
    assert told["value"] == pytest.approx(score(strategy, request, X), abs=1e-9)
    assert np.array_equal(space.snap(X), X)
    assert space.feasible(X, exact=True).all()
    keys = Domain(space).keys(X)
    assert len(set(keys)) == 3 and not request.seen & set(keys)


def test_the_question_after_a_proposal_has_it_running():
    request, x = asked(PLANE), np.array([0.5, 0.25])
    proposal = Proposal(x, {"phase": "model"})
    then = request.after(proposal, x.tobytes())
    assert then.seen - request.seen == {x.tobytes()} and then.number == request.number + 1
    assert np.array_equal(then.data.pending, x[None]) and then.past[-1].outcome == "pending"
    assert replace(request, repeats=True).after(proposal, x.tobytes()).seen == request.seen


def test_it_starts_from_what_asking_one_after_another_gives():
    strategy, request = Global(PLANE, 5), asked(PLANE)
    X, then = [], request
    for _ in range(3):
        proposal = strategy.propose(then)
        X.append(proposal.x)
        then = then.after(proposal, Domain(PLANE).keys(proposal.x[None])[0])
    (told, *_) = (p.origin["batch"] for p in propose_together(strategy, request, 3))
    assert told["one_by_one"] == pytest.approx(score(strategy, request, np.stack(X)), abs=1e-9)


@pytest.mark.parametrize("pending", [0, 2])
def test_where_parameters_are_drawn_the_mean_over_them_is_improved(pending):
    space = Space({f"x{j}": Real(0, 1) for j in range(4)})
    strategy = Chosen(space, 5, strategy="ensemble")
    request = asked(space, 9, pending=pending)
    beliefs = strategy.modellers.beliefs(request.known)
    acquisition = batch_acquisition(beliefs, request, space, 2)
    assert isinstance(acquisition, LogMean) and len(acquisition.parts) == len(beliefs.members) > 1
    proposals = propose_together(strategy, request, 2)
    told = proposals[0].origin["batch"]
    X = np.stack([proposal.x for proposal in proposals])
    assert told["one_by_one"] <= told["value"] == pytest.approx(score(strategy, request, X))


@pytest.mark.parametrize("more", [{"pending": 3}, {"noise": 0.3}, {"failed": 3}], ids=str)
def test_running_failed_and_noisy_trials_are_taken_into_account(more):
    strategy, request = Global(PLANE, 5), asked(PLANE, 20, **more)
    beliefs = strategy.modellers.beliefs(request.known)
    acquisition = batch_acquisition(beliefs, request, PLANE, 3)
    assert isinstance(acquisition, NoisyBatchLogExpectedImprovement)
    assert len(acquisition.best) == (1 if "failed" in more else 32)
    assert len(acquisition.weights) == ("failed" in more)
    proposals = propose_together(strategy, request, 3)
    X = np.stack([proposal.x for proposal in proposals])
    told = proposals[0].origin["batch"]
    assert told["value"] >= told["one_by_one"]
    near = request.data.pending if "pending" in more else request.data.failed
    for x in near:  # nobody goes where somebody is, or where there is nothing
        assert np.abs(X - x).max(1).min() > 1e-3


def test_a_batch_shares_the_draws_of_the_best_value_with_the_ones_before_it():
    """Or the batches after it would be compared with another best value each time."""
    strategy, request = Global(PLANE, 5), asked(PLANE, 20, noise=0.3)
    first = strategy.propose(request)
    then = request.after(first, Domain(PLANE).keys(first.x[None])[0])
    bests = []
    for question in (request, then):
        beliefs = strategy.modellers.beliefs(question.known)
        bests.append(batch_acquisition(beliefs, question, PLANE, 2).best)
    assert (bests[1] >= bests[0] - 1e-9).all() and not torch.equal(*bests)


def test_weights_are_those_of_a_single_trial():
    optimizer = Optimizer(
        PLANE, minimize="f", seed=0, n_start=4, batches="joint", prior={"x": Near(2, spread=1)}
    )
    run(optimizer, 8)
    single = optimizer.acquisition("noisy_log_ei")
    assert isinstance(single, Weighted)
    batch = batch_acquisition(optimizer.beliefs(), optimizer._request(8, {}), PLANE, 2)
    ((power, log_weight),) = batch.weights
    assert power == single.weight[0] and log_weight == single.weight[1]


# --------------------------------------------------------------------------------------
# The optimizer
# --------------------------------------------------------------------------------------


def branin(x, y):
    a = y - 5.1 * x**2 / (4 * math.pi**2) + 5 * x / math.pi - 6
    return a**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def joint(storage=None, **options) -> Optimizer:
    settings = {"minimize": "f", "seed": 0, "n_start": 4, "batches": "joint"} | options
    return Optimizer(PLANE, storage=storage, **settings)


def run(optimizer, n):
    for _ in range(n):
        trial = optimizer.ask()
        optimizer.tell(trial, branin(**trial.params))
    return optimizer


def test_a_resumed_study_asks_for_the_same_batch(tmp_path):
    path = tmp_path / "study.db"
    whole, parts = run(joint(), 6), run(joint(path), 6)
    parts.close()
    with Optimizer.open(path) as again:
        a, b = whole.ask(3), again.ask(3)
    assert [t.params for t in a] == [t.params for t in b]
    assert [t.origin["batch"] for t in a] == [t.origin["batch"] for t in b]


def test_a_batch_is_stored_one_by_one_and_tells_of_itself():
    optimizer = run(joint(), 6)
    batch = optimizer.ask(3)
    assert [t.number for t in batch] == [6, 7, 8]
    assert all(t.state == TrialState.RUNNING for t in batch)
    labels = [t.origin["batch"] for t in batch]
    assert [label["place"] for label in labels] == [0, 1, 2]
    assert {label["size"] for label in labels} == {3}
    value, before = labels[0]["value"], labels[0]["one_by_one"]
    told = optimizer.explain(7)
    assert "is point 2 of a batch of 3 that together has the largest log expected" in told
    assert f"({value:.4g})" in told
    assert value > before and f"one after another had {before:.4g}, and were moved" in told
    single = optimizer.ask()
    assert "batch" not in single.origin and single.number == 9


def test_points_of_the_start_are_what_they_are_in_a_batch():
    together, alone = joint(), joint(batches="greedy")
    assert [t.params for t in together.ask(4)] == [t.params for t in alone.ask(4)]
    for optimizer in (together, alone):
        for trial in optimizer.trials[:3]:
            optimizer.tell(trial, branin(**trial.params))
    together = joint(n_start=8)
    run(together, 6)
    batch = together.ask(4)
    assert [t.origin["phase"] for t in batch] == ["space-filling"] * 2 + ["model"] * 2
    assert batch[2].origin["batch"]["size"] == 2


def test_points_in_line_come_first():
    optimizer = run(joint(), 6)
    optimizer.enqueue({"x": 1, "y": 1})
    batch = optimizer.ask(3)
    assert batch[0].params == {"x": 1.0, "y": 1.0}
    assert [t.origin["batch"]["size"] for t in batch[1:]] == [2, 2]


def test_fixed_parameters_are_fixed_in_all_of_a_batch():
    batch = run(joint(), 6).ask(3, fixed={"x": 2.5})
    assert {t.params["x"] for t in batch} == {2.5} and len({t.params["y"] for t in batch}) == 3


class _Crowded(MemoryStorage):
    """Somebody else adds a trial just before one of these numbers is taken."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = set(numbers)

    def add(self, study, trial, **options):
        if trial.number in self.numbers:
            self.numbers.remove(trial.number)
            x = {"x": 9.0, "y": 14.0 + trial.number / 100}
            super().add(study, type(trial)(trial.number, x, TrialState.RUNNING, created=0.0))
        return super().add(study, trial, **options)


@pytest.mark.parametrize("taken", [6, 7, 8])
def test_what_another_process_comes_between_is_proposed_again(taken):
    optimizer = run(joint(_Crowded([taken])), 6)
    batch = optimizer.ask(3)
    assert [t.number for t in batch] == [k for k in range(6, 10) if k != taken]
    sizes = [t.origin.get("batch", {}).get("size", 1) for t in batch]
    assert sizes == {6: [3, 3, 3], 7: [3, 2, 2], 8: [3, 3, 1]}[taken]
    assert len({tuple(t.params.values()) for t in optimizer.trials}) == 10


def test_batches_is_a_setting_of_the_study(tmp_path):
    path = tmp_path / "study.db"
    joint(path).close()
    with Optimizer.open(path) as again:
        assert again.settings["batches"] == "joint"
    with pytest.raises(StudyDiffers, match="batches: was 'joint' and is now 'greedy'"):
        joint(path, batches="greedy")
    assert Optimizer(PLANE, minimize="f").settings["batches"] == "greedy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": "both"}, 'must be "greedy" or "joint"; got \'both\''),
        ({"minimize": ["f", "g"]}, "one objective and no constraints"),
        ({"constraints": "c <= 1"}, "one objective and no constraints"),
        ({"acquisition": "ucb"}, "expected improvement.*got 'ucb'"),
        ({"perturbation": {"x": 0.1}}, "and a perturbation"),
        ({"strategy": "trust_region"}, 'strategy "trust_region" is not made for them'),
        ({"strategy": "portfolio"}, 'strategy "portfolio" is not made for them'),
    ],
    ids=str,
)
def test_what_a_batch_cannot_be_scored_by_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        joint(**options)


def test_a_problem_of_several_objectives_is_refused_too():
    problem = Problem.make(PLANE, minimize=["f", "g"])
    with pytest.raises(ValueError, match="one objective"):
        Optimizer(problem, batches="joint")


def test_auto_looks_everywhere_however_many_parameters_there_are():
    space = {f"x{i}": Real(0, 1) for i in range(20)}
    optimizer = Optimizer(space, minimize="f", seed=0, n_start=3, budget=2000, batches="joint")
    for trial in optimizer.ask(3):
        optimizer.tell(trial, sum(trial.params.values()))
    batch = optimizer.ask(2)
    assert batch[0].origin["strategy"]["name"] == "global"
    assert batch[0].origin["batch"]["size"] == 2


def test_the_shell_asks_for_a_joint_batch_of_a_study_that_has_them(in_an_empty_directory):
    create(None, "--minimize", "loss", "--n-start", 2, "--batches", "joint")
    with Optimizer.open("study.db") as optimizer:
        for _ in range(4):
            trial = optimizer.ask()
            optimizer.tell(trial, trial.params["x"] ** 2)
    asked = lines("ask", "study.db", "-n", 3)
    with Optimizer.open("study.db") as optimizer:
        labels = [optimizer.trials[line["number"]].origin["batch"] for line in asked]
    assert [(label["size"], label["place"]) for label in labels] == [(3, 0), (3, 1), (3, 2)]

"""How a point came about, told in sentences from what was stored with its trial.

Imports no torch: the command line shows stored trials without waiting for it.
"""

from collections.abc import Mapping
from typing import Any

from bbmmopt.problem import Problem
from bbmmopt.trial import Trial

# The names an acquisition function goes by, and what they stand for.
ACQUISITIONS = {
    "auto": "whichever suits the problem and the data",
    "log_ei": "log expected improvement",
    "noisy_log_ei": "log expected improvement on a best value that noise hides",
    "log_pi": "log probability of improvement",
    "ucb": "upper confidence bound",
    "mean": "posterior mean",
    "log_ehvi": "log expected hypervolume improvement",
    "scalarised": "log expected improvement along a random direction of objectives",
    "feasibility": "log probability that all constraints hold",
    "max_value_entropy": "log information about the best value",
    "joint_entropy": "log information about the best point and its value",
    "knowledge_gradient": "log of how much it should raise the best expected value",
    "variance": "log uncertainty",
    "integrated_variance": "log of how much it should lower the mean variance",
    "robust": "log expected improvement under variation of the parameters",
    "thompson": "value of a function drawn from the model",
}

# The names a strategy goes by, and what they stand for.
STRATEGIES = {
    "auto": "whichever suits the problem, its dimensions and the budget",
    "global": "one model of the whole space, searched everywhere",
    "trust_region": "a box around the best trial, which grows with success and shrinks without",
    "sparse": "one model that takes most parameters not to matter, searched everywhere",
}


def explain(trial: Trial, problem: Problem) -> str:
    """Why this point: which phase, model and acquisition value it came from."""
    origin = trial.origin
    head = f"Trial {trial.number}"
    match origin.get("phase"):
        case "enqueued":
            return f"{head} was enqueued by the user."
        case "told":
            return f"{head} was told by the user, not suggested."
        case "space-filling":
            where = {
                "centre": "the centre of the space",
                "prior": "drawn from what you believe of the optimum",
                "maximin": "the allowed point farthest from those before it",
                "listed": "the first point left of all there are",
                "random": "an allowed point drawn at random",
            }.get(origin.get("point", ""), "the next point of a scrambled Sobol sequence")
            because = f", because {origin['because']}" if "because" in origin else ""
            return (
                f"{head} belongs to the start, which spreads points evenly{because}: it is {where}."
            )
        case "model":
            model = origin["model"]
            lengths = ", ".join(
                f"{column.name} {length:.3g}"
                for column, length in zip(problem.space.columns, model["lengthscales"], strict=True)
                if column.kind in ("continuous", "ordered")
            )
            because = f", because {origin['because']}" if "because" in origin else ""
            lines = [
                f"{head} has the largest {ACQUISITIONS[origin['acquisition']]} "
                f"({origin['acquisition_value']:.4g}) of {origin['candidates_scored']} "
                f"candidates{because}.",
                f"The model saw {model['trials']} complete, {model['pending']} pending and "
                f"{model['failed']} failed trials, and expected {_expected(origin, problem)} "
                f"there.",
                *_chances(origin, problem),
                *_strategy(origin),
                f"Lengthscales, as fractions of each range: {lengths}.",
                f"Targets: {model['targets']}; priors: {model['priors']}; "
                f"noise variance {model['noise_variance']:.2g} of the targets' variance.",
            ]
            return "\n".join(lines)
    return f"{head}: its origin is not known."


def _expected(origin: Mapping[str, Any], problem: Problem) -> str:
    """What was expected of each objective, in the user's sign."""
    predicted = [origin["predicted"], *origin.get("predicted_others", [])]
    values = problem.from_model([p["value"] for p in predicted])
    return " and ".join(
        f"{name} = {value:.4g} ± {p['uncertainty']:.2g}"
        for (name, value), p in zip(values.items(), predicted, strict=True)
    )


def _strategy(origin: Mapping[str, Any]) -> list[str]:
    """Where it was looked for, and why there."""
    lines = []
    if "strategy" in origin:
        name, because = origin["strategy"]["name"], origin["strategy"]["because"]
        lines.append(f"Strategy: {name} ({STRATEGIES[name]}), because {because}.")
    region = origin.get("region")
    if region:
        lines.append(
            f"Trust region {region['number'] + 1} had a mean side of {region['length']:.3g}, as a "
            f"fraction of the ranges; {region['successes']} of the {region['lucky']} successes in "
            f"a row that double it were counted, and {region['failures']} of the "
            f"{region['patience']} failures that halve it."
        )
        if region.get("left"):
            lines.append("All of it had been tried, so the whole space was searched.")
    return lines


def _chances(origin: Mapping[str, Any], problem: Problem) -> list[str]:
    """How likely constraints were thought to hold, and the trial to succeed, and how long it
    should take.
    """
    chances = [
        f"{constraint} with probability {chance:.2g}"
        for constraint, chance in zip(
            problem.constraints, origin.get("constraints_hold", []), strict=False
        )
    ]
    if "success" in origin:
        chances.append(f"the trial to succeed with probability {origin['success']:.2g}")
    if "seconds" in origin:
        chances.append(f"the trial to take {origin['seconds']:.3g} s")
    return [f"It expected {', and '.join(chances)}."] if chances else []

"""How a point came about, told in sentences from what was stored with its trial.

Imports no torch: the command line shows stored trials without waiting for it.
"""

from collections.abc import Mapping
from typing import Any

from bbmmopt.problem import Problem
from bbmmopt.trial import Trial, TrialState

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
    "ensemble": "one model for each of several draws of its parameters while trials are few",
    "sparse": "one model that takes most parameters not to matter, searched everywhere",
    "portfolio": "several acquisition functions nominate points, and experience decides",
}


def explain(trial: Trial, problem: Problem) -> str:
    """Why this point: which phase, model and acquisition value it came from.

    Of a trial that was stopped early, why that was, too.
    """
    told = _origin(trial, problem)
    if trial.state != TrialState.PRUNED:
        return told
    return f"{told}\nIt was stopped early: {(trial.reason or 'no reason was told').rstrip('.')}."


def _origin(trial: Trial, problem: Problem) -> str:
    origin = trial.origin
    head = f"Trial {trial.number}"
    match origin.get("phase"):
        case "enqueued":
            return f"{head} was enqueued by the user."
        case "warm start":
            there = f", where it was trial {origin['number']}" * (origin["source"] != "given")
            return f"{head} was taken along from {origin['from']}{there}, as a warm start."
        case "told":
            return f"{head} was told by the user, not suggested."
        case "space-filling":
            where = {
                "centre": "the centre of the space",
                "nearest": "the allowed point nearest to the centre of the space that was found",
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
            warped = " warped" if model.get("inputs") == "Warped" else ""
            because = f", because {origin['because']}" if "because" in origin else ""
            lines = [
                f"{head} {_chosen(origin)} {ACQUISITIONS[origin['acquisition']]} "
                f"({origin['acquisition_value']:.4g}) of {origin['candidates_scored']} "
                f"candidates{because}.",
                *_batch(origin),
                *_cut_short(origin),
                f"The model saw {_seen(model)}, and expected {_expected(origin, problem)} there.",
                *_members(model),
                *_chances(origin, problem),
                *_powers(origin),
                *_strategy(origin),
                f"Lengthscales, as fractions of each{warped} range: {lengths}.",
                f"Targets: {model['targets']}; priors: {model['priors']}; {_noise(model)}.",
                *([f"It was computed on {model['device']}."] if "device" in model else []),
            ]
            return "\n".join(lines)
    return f"{head}: its origin is not known."


def _noise(model: Mapping[str, Any]) -> str:
    """How large the noise was taken to be, and between which sizes it varied."""
    told = f"noise variance {model['noise_variance']:.2g} of the targets' variance"
    if "noise_variance_range" not in model:
        return told
    least, most = model["noise_variance_range"]
    return (
        f"{told} on average; it depends on the parameters, and was between {least:.2g} and "
        f"{most:.2g} at the trials"
    )


def _seen(model: Mapping[str, Any]) -> str:
    """How many trials of each kind."""
    stopped = model.get("stopped", 0)
    others = f"{model['pending']} pending and {model['failed']} failed trials"
    if not stopped:
        return f"{model['trials']} complete, {others}"
    return (
        f"{model['trials'] - stopped} complete, {stopped} that were stopped early, whose ends were "
        f"forecast, {others}"
    )


def _members(model: Mapping[str, Any]) -> list[str]:
    """Whether more than one model had a say."""
    if "members" not in model:
        return []
    return [
        f"The acquisition was averaged over {model['members']} models, which the trials do not "
        f"tell apart."
    ]


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
        lines += _feasibility(region)
        if region.get("left"):
            lines.append("All of it had been tried, so the whole space was searched.")
        elif origin["acquisition"] == "thompson":
            lines += _drawn(origin)
    if "portfolio" in origin:
        lines.append(_portfolio(origin["portfolio"]))
    return lines


def _portfolio(told: Mapping[str, Any]) -> str:
    """Which member nominated it, and how much each was trusted."""
    weights = ", ".join(f"{name} {weight:.2g}" for name, weight in told["weights"].items())
    why = (
        f"by what the model expected of the nominees of {told['counted']} earlier "
        f"trial{'s' if told['counted'] > 1 else ''}"
        if told["counted"]
        else "because no nominee of theirs had been tried"
    )
    running = ", ".join(f"{count} of {name}" for name, count in told["running"].items())
    running = f" Less often drawn were members with trials running: {running}." if running else ""
    return f"Of the portfolio {told['member']} nominated it. Weights: {weights}, {why}.{running}"


def _chosen(origin: Mapping[str, Any]) -> str:
    """How it compares with the other candidates."""
    if "batch" in origin:
        size, place = origin["batch"]["size"], origin["batch"]["place"] + 1
        return f"is point {place} of a batch of {size} that together has the largest"
    missed = (origin.get("region") or {}).get("missed")
    return "was chosen for what has to hold, not for the" if missed else "has the largest"


def _batch(origin: Mapping[str, Any]) -> list[str]:
    """What it gained that the points of a batch were chosen together."""
    if "batch" not in origin:
        return []
    value, before = origin["batch"]["value"], origin["batch"]["one_by_one"]
    if value > before:
        return [f"Points chosen one after another had {before:.4g}, and were moved together."]
    return ["They were chosen one after another; moved together they did no better."]


def _cut_short(origin: Mapping[str, Any]) -> list[str]:
    """What was ended early by the limits of the ask."""
    limits = {"time": "time", "evaluations": "number of candidates"}
    by = " and ".join(limits[why] for why in origin.get("ended_by", ()))
    lines = [f"The search was cut short by the limit on the {by} of the ask."] if by else []
    if origin.get("fit_cut_short"):
        lines.append("The fit of the model was cut short by the limit on the time of the ask.")
    return lines


def _feasibility(region: Mapping[str, Any]) -> list[str]:
    """Where a trust region stood with the constraints, if there are any."""
    violation = region.get("violation")
    if violation is None:
        return []
    if violation:
        return [
            f"No trial of it had kept all constraints: its centre was the one that missed them by "
            f"least, {violation:.3g} standard deviations in total."
        ]
    return ["Its centre was the best of the trials that had kept all constraints."]


def _drawn(origin: Mapping[str, Any]) -> list[str]:
    """What was drawn along with the objective, and whether it held."""
    what = ["constraints"] * bool(origin.get("constraints_hold")) + ["success"] * (
        "success" in origin
    )
    if not what:
        return []
    drawn = f"Functions of {' and '.join(what)} were drawn too"
    missed = origin["region"].get("missed")
    if missed:
        return [
            f"{drawn}; no candidate kept to all of them, and this one missed them by least, "
            f"{missed:.2g} standard deviations in total."
        ]
    return [f"{drawn}, and only candidates that kept to all of them were compared."]


def _powers(origin: Mapping[str, Any]) -> list[str]:
    """How much what the user believes, and what trials cost, counted."""
    said = {
        "prior": "Your prior counted with a power of {:.2g}.",
        "cost": "The seconds it should take counted with a power of {:.2g}.",
    }
    return [said[name].format(power) for name, power in origin.get("powers", {}).items()]


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

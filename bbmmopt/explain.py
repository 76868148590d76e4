"""How a point came about, told in sentences from what was stored with its trial.

Imports no torch: the command line shows stored trials without waiting for it.
"""

from bbmmopt.problem import Problem
from bbmmopt.trial import Trial

# The names an acquisition function goes by, and what they stand for.
ACQUISITIONS = {
    "log_ei": "log expected improvement",
    "log_pi": "log probability of improvement",
    "ucb": "upper confidence bound",
    "mean": "posterior mean",
}


def explain(trial: Trial, problem: Problem) -> str:
    """Why this point: which phase, model and acquisition value it came from."""
    origin, name = trial.origin, problem.names[0]
    head = f"Trial {trial.number}"
    match origin.get("phase"):
        case "enqueued":
            return f"{head} was enqueued by the user."
        case "told":
            return f"{head} was told by the user, not suggested."
        case "space-filling":
            point = "the centre of the space" if origin.get("point") == "centre" else "the next"
            where = f"{point} point of a scrambled Sobol sequence" if point == "the next" else point
            because = f", because {origin['because']}" if "because" in origin else ""
            return (
                f"{head} belongs to the start, which spreads points evenly{because}: it is {where}."
            )
        case "model":
            model, predicted = origin["model"], origin["predicted"]
            value = problem.from_model([predicted["value"]])[name]
            lengths = ", ".join(
                f"{column.name} {length:.3g}"
                for column, length in zip(problem.space.columns, model["lengthscales"], strict=True)
                if column.kind in ("continuous", "ordered")
            )
            lines = [
                f"{head} has the largest {ACQUISITIONS[origin['acquisition']]} "
                f"({origin['acquisition_value']:.4g}) of {origin['candidates_scored']} candidates.",
                f"The model saw {model['trials']} complete, {model['pending']} pending and "
                f"{model['failed']} failed trials, and expected {name} = {value:.4g} "
                f"± {predicted['uncertainty']:.2g} there.",
                f"Lengthscales, as fractions of each range: {lengths}.",
                f"Targets: {model['targets']}; priors: {model['priors']}; "
                f"noise variance {model['noise_variance']:.2g} of the targets' variance.",
            ]
            return "\n".join(lines)
    return f"{head}: its origin is not known."

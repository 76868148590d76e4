"""Spaces that several test files share."""

from bbmmopt.space import Categorical, Integer, Ordinal, Real, Space

EVERYTHING = Space(
    {
        "real": Real(-2, 3),
        "log": Real(1e-5, 1e2, log=True),
        "narrow": Real(1e9, 1e9 + 1, log=True),
        "fixed": Real(7, 7),
        "int": Integer(-3, 12, step=5),
        "log int": Integer(1, 1000, log=True),
        "large log int": Integer(1, 10**6, log=True),
        "huge": Integer(0, 2**52 - 1),
        "huger": Integer(-(2**50), 2**60),
        "one int": Integer(4, 4),
        "flag": Categorical([True, False]),
        "mixed": Categorical(["a", 2, 0.5]),
        "one choice": Categorical(["only"]),
        "object": Categorical({"list": [1], "none": None}),
        "size": Ordinal([8, 16, 64]),
        "child": Integer(1, 4, when={"mixed": ["a", 0.5], "flag": True}),
        "grandchild": Real(0, 1, when={"child": [1, 3]}),
        "other": Ordinal(["s", "m", "l"], when={"size": 64, "log int": range(10, 1000)}),
    }
)


def svm() -> Space:
    """Of a support vector machine, whose parameters depend on its kernel."""
    return Space(
        {
            "C": Real(1e-3, 1e3, log=True),
            "kernel": Categorical(["rbf", "poly", "sigmoid"]),
            "degree": Integer(2, 5, when={"kernel": "poly"}),
            "coef0": Real(-1, 1, when={"kernel": ["poly", "sigmoid"]}),
        }
    )

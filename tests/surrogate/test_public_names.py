import inspect
import re

import pytest

import surrogate
import surrogate.kernels
import surrogate.models
import surrogate.solvers

PACKAGES = [surrogate, surrogate.kernels, surrogate.models, surrogate.solvers]
CLASSES = [
    getattr(surrogate, n) for n in surrogate.__all__ if inspect.isclass(getattr(surrogate, n))
]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_every_name_announced_is_there_once(package):
    assert len(set(package.__all__)) == len(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)


@pytest.mark.parametrize("name", surrogate.__all__)
def test_every_public_name_has_a_docstring_of_its_own(name):
    documented = getattr(surrogate, name)
    assert documented.__doc__
    if inspect.isclass(documented):
        assert "__doc__" in vars(documented), "inherited"
    # A dataclass without one is given its signature.
    assert not documented.__doc__.startswith(f"{name}(")
    assert documented.__doc__.split("\n")[0].rstrip().endswith((".", ":", "?"))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_public_method_and_property_is_documented(cls):
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)
        if inspect.isfunction(function):
            # A method that fills in an interface may leave the words to it.
            assert inspect.getdoc(getattr(cls, name)), f"{cls.__name__}.{name}"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_field_of_a_public_record_is_described(cls):
    fields = set(getattr(cls, "__dataclass_fields__", {}))
    described = set(re.findall(r"(?m)^    ([a-z_A-Z, ]+): ", inspect.getdoc(cls) or ""))
    described = {name for names in described for name in names.split(", ")}
    # The formula of LogNormal names both of its own.
    assert fields - described <= ({"location", "scale"} if cls is surrogate.LogNormal else set())


def test_the_notation_table_comes_with_the_package():
    for letter in ("X", "K̂", "α", "ℓ", "σ²", "φ"):
        assert f"  {letter} " in surrogate.__doc__


def test_the_public_names_are_enough_for_fitting_predicting_and_sampling(rng):
    import torch

    from surrogate import ExactGP, Matern52, fit

    X = torch.rand(20, 3, generator=rng)
    y = torch.sin(6 * X[:, 0])
    model = fit(ExactGP(Matern52(dims=3)), X, y)
    posterior = model.condition(X, y)
    mean, std = posterior.marginals(X)
    f = posterior.sample_paths(64, generator=rng)
    assert f(X).shape == (64, 20)
    assert mean.shape == std.shape == (20,)

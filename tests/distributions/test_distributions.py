"""Distributions give torch's numbers, texts, errors and gradients, and draw what torch draws."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributions

from tests.distributions.cases import CASES, NUMBERS, Make


def seen(value: Any) -> Any:
    """What can be compared of a result: dtype, shape and elements."""
    if hasattr(value, "detach"):
        elements = value.detach()
        return str(value.dtype), tuple(value.shape), elements.tolist()
    return repr(value)


# The modules of the classes are named otherwise.
_MODULE = re.compile(r"(torch|tclient)\.distributions\.\w+\.")


def outcome(function: Callable[[], Any]) -> Any:
    """What a function gives, or how it fails."""
    try:
        return function()
    except (NotImplementedError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        return type(error).__name__.removeprefix("Tensor"), _MODULE.sub("", str(error))


def assert_same(mine: Any, theirs: Any) -> None:
    """Equal, and numbers by some roundings."""
    mine, theirs = seen(mine), seen(theirs)
    if isinstance(theirs, str) or isinstance(mine, str):
        assert mine == theirs
        return
    assert mine[:2] == theirs[:2]
    got, expected = torch.tensor(mine[2], dtype=torch.float64), torch.tensor(theirs[2], dtype=torch.float64)
    single = theirs[0] == "torch.float32"
    torch.testing.assert_close(
        got, expected, rtol=2e-6 if single else 1e-12, atol=2e-6 if single else 1e-12, equal_nan=True
    )


def made(m: Any, make: Make, dtype: str, parameters: list[Any] | None = None) -> Any:
    """The distribution of a case."""

    def parameter(values: Any) -> Any:
        tensor = m.tensor(values, dtype=getattr(m, dtype), requires_grad=parameters is not None)
        if parameters is not None:
            parameters.append(tensor)
        return tensor

    return make(m, m.distributions, parameter)


DTYPES = ["float32", "float64"]
ALL = pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())


@pytest.mark.parametrize("dtype", DTYPES)
@ALL
def test_what_is_known_of_a_distribution_is_as_in_torch(tc: Any, make: Make, dtype: str) -> None:
    mine, theirs = made(tc, make, dtype), made(torch, make, dtype)
    assert repr(mine) == repr(theirs)
    for name in ("batch_shape", "event_shape", "support", "has_rsample", "has_enumerate_support", "arg_constraints"):
        assert repr(getattr(mine, name)) == repr(getattr(theirs, name)), name
    for name in ("mean", "mode", "variance", "stddev"):
        assert_same(*(outcome(partial(getattr, each, name)) for each in (mine, theirs)))
    for name in ("entropy", "perplexity"):
        assert_same(outcome(getattr(mine, name)), outcome(getattr(theirs, name)))
    for expand in (True, False):
        assert_same(*(outcome(partial(each.enumerate_support, expand)) for each in (mine, theirs)))
    assert repr(mine) == repr(theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@ALL
def test_the_same_seed_draws_what_torch_draws(tc: Any, make: Make, dtype: str) -> None:
    drawn = []
    for module in (tc, torch):
        module.manual_seed(11)
        distribution = made(module, make, dtype)
        samples = [distribution.sample(), distribution.sample((3,)), distribution.sample([2, 2])]
        if distribution.has_rsample:
            samples += [distribution.rsample(), distribution.rsample((3,))]
        drawn.append([*samples, module.rand(2)])
    for mine, theirs in zip(*drawn, strict=True):
        assert_same(mine, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@ALL
def test_values_have_torchs_probability(tc: Any, make: Make, dtype: str) -> None:
    mine, theirs = made(tc, make, dtype), made(torch, make, dtype)
    torch.manual_seed(5)
    value = theirs.sample((4,))
    same = tc.tensor(value.tolist(), dtype=getattr(tc, str(value.dtype).removeprefix("torch.")))
    assert_same(mine.log_prob(same), theirs.log_prob(value))
    assert_same(outcome(lambda: mine.cdf(same)), outcome(lambda: theirs.cdf(value)))
    share = torch.rand(4, *theirs.batch_shape, dtype=getattr(torch, dtype))
    shares = tc.tensor(share.tolist(), dtype=getattr(tc, dtype))
    assert_same(outcome(lambda: mine.icdf(shares)), outcome(lambda: theirs.icdf(share)))


@ALL
def test_gradients_are_torchs(tc: Any, make: Make) -> None:
    gradients = []
    for module in (tc, torch):
        module.manual_seed(7)
        parameters: list[Any] = []
        distribution = made(module, make, "float64", parameters)
        value = distribution.sample((3,))
        loss = distribution.log_prob(value).sum()
        if distribution.has_rsample:
            loss = loss + (distribution.rsample((2,)) ** 2).sum()
        if loss.requires_grad:
            loss.backward()
        gradients.append([each.grad for each in parameters])
    for mine, theirs in zip(*gradients, strict=True):
        assert_same(mine, theirs)


@ALL
def test_an_expanded_distribution_is_torchs(tc: Any, make: Make) -> None:
    expanded = []
    for module in (tc, torch):
        module.manual_seed(3)
        distribution = made(module, make, "float32")
        distribution = distribution.expand((2, *distribution.batch_shape))
        value = distribution.sample()
        expanded.append([value, distribution.log_prob(value), distribution.batch_shape, distribution])
    for mine, theirs in zip(*expanded, strict=True):
        assert_same(mine, theirs)


@pytest.mark.parametrize("make", NUMBERS.values(), ids=NUMBERS.keys())
def test_parameters_may_be_numbers(tc: Any, make: Callable[[Any], Any]) -> None:
    results = []
    for module in (tc, torch):
        module.manual_seed(3)
        distribution = make(module.distributions)
        value = distribution.sample((3,))
        results.append([value, distribution.log_prob(value), distribution.batch_shape, distribution.mean, distribution])
    for mine, theirs in zip(*results, strict=True):
        assert_same(mine, theirs)


MISUSE: dict[str, Callable[[Any, Any], Any]] = {
    "scale": lambda m, d: d.Normal(m.tensor([0.0, 1.0]), m.tensor([1.0, -1.0])),
    "scale-number": lambda m, d: d.Normal(0, -1.0),
    "nan-value": lambda m, d: d.Normal(0.0, 1.0).log_prob(m.tensor([float("nan")])),
    "value-is-a-number": lambda m, d: d.Normal(0.0, 1.0).log_prob(1.0),
    "text": lambda m, d: d.Normal("a", 1.0),
    "value-shape": lambda m, d: d.Normal(m.zeros(2), 1.0).log_prob(m.zeros(3)),
    "event-shape": lambda m, d: d.Dirichlet(m.ones(2)).log_prob(m.ones(3) / 3),
    "parameter-shapes": lambda m, d: d.Normal(m.zeros(2), m.ones(3)).mean.tolist(),
    "uniform": lambda m, d: d.Uniform(1.0, 0.0),
    "outside": lambda m, d: d.Uniform(0.0, 1.0).log_prob(m.tensor(2.0)),
    "negative-probs": lambda m, d: d.Categorical(m.tensor([-1.0, 2.0])),
    "no-probs": lambda m, d: d.Categorical(),
    "probs-and-logits": lambda m, d: d.Categorical(m.tensor([0.5]), m.tensor([0.5])),
    "one-number": lambda m, d: d.Categorical(m.tensor(1.0)),
    "one-number-of-logits": lambda m, d: d.Categorical(logits=m.tensor(1.0)),
    "no-such-class": lambda m, d: d.Categorical(m.tensor([0.2, 0.8])).log_prob(m.tensor(3)),
    "bernoulli": lambda m, d: d.Bernoulli(),
    "bernoulli-probs": lambda m, d: d.Bernoulli(2.0),
    "bernoulli-value": lambda m, d: d.Bernoulli(0.5).log_prob(m.tensor(0.5)),
    "beta": lambda m, d: d.Beta(-1.0, 1.0),
    "dirichlet": lambda m, d: d.Dirichlet(m.tensor(1.0)),
    "no-simplex": lambda m, d: d.Dirichlet(m.ones(3)).log_prob(m.ones(3)),
    "multinomial": lambda m, d: d.Multinomial(m.tensor(3), m.ones(2)),
    "multinomial-probs": lambda m, d: d.Multinomial(3, m.tensor([1.0, -1.0])),
    "multinomial-support": lambda m, d: d.Multinomial(3, m.ones(2)).enumerate_support(),
    "geometric": lambda m, d: d.Geometric(0.0),
    "geometric-of-several": lambda m, d: d.Geometric(m.tensor([0.5, 0.0])),
    "no-matrix": lambda m, d: d.MultivariateNormal(m.zeros(2)),
    "no-vector": lambda m, d: d.MultivariateNormal(m.tensor(0.0), m.eye(2)),
    "vector-for-a-matrix": lambda m, d: d.MultivariateNormal(m.zeros(2), m.ones(2)),
    "vector-for-a-factor": lambda m, d: d.MultivariateNormal(m.zeros(2), scale_tril=m.ones(2)),
    "not-positive-definite": lambda m, d: d.MultivariateNormal(m.zeros(2), -m.eye(2)),
    "no-factor": lambda m, d: d.MultivariateNormal(m.zeros(2), scale_tril=m.ones(2, 2)),
    "too-many-dimensions": lambda m, d: d.Independent(d.Normal(m.zeros(2), 1.0), 2),
    "sample-shape": lambda m, d: d.Normal(0.0, 1.0).sample(3),
    "expand-shape": lambda m, d: d.Exponential(m.ones(2)).expand([3]).rate.tolist(),
    "exponential-outside": lambda m, d: d.Exponential(1.0).cdf(m.tensor(-1.0)),
    "default": lambda m, d: d.Distribution.set_default_validate_args(3),
    "base": lambda m, d: d.Distribution(validate_args=False).mode,
    "inhomogeneous": lambda m, d: d.Binomial(m.tensor([2, 3]), m.tensor([0.5, 0.5])).enumerate_support(),
}


@pytest.mark.parametrize("misuse", MISUSE.values(), ids=MISUSE.keys())
def test_misuse_is_refused_in_the_words_of_torch(tc: Any, misuse: Callable[[Any, Any], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine = outcome(lambda: misuse(tc, tc.distributions))
        theirs = outcome(lambda: misuse(torch, torch.distributions))
    assert theirs[0].endswith("Error"), "torch takes it"
    assert mine == theirs


WAITS: dict[str, Callable[[Any, Any], Any]] = {
    "normal": lambda d, x: d.Normal(x, x.exp()),
    "beta": lambda d, x: d.Beta(x.exp(), 1.0),
    "gamma": lambda d, x: d.Gamma(x.exp(), x.exp()),
    "bernoulli": lambda d, x: d.Bernoulli(logits=x),
    "categorical": lambda d, x: d.Categorical(logits=x),
    "multinomial": lambda d, x: d.Multinomial(3, logits=x),
}


@pytest.mark.parametrize("make", WAITS.values(), ids=WAITS.keys())
def test_arguments_are_looked_at_with_one_wait(tc: Any, make: Callable[[Any, Any], Any]) -> None:
    x = tc.zeros(3)
    assert x.shape == (3,)
    session = x._ref.session
    before = session.stats.waits
    make(tc.distributions, x)
    assert session.stats.waits - before == 1
    before = session.stats.waits
    make(tc.distributions, x).sample((4,))
    assert session.stats.waits - before == 1


def test_without_validation_nothing_waits(tc: Any) -> None:
    x = tc.zeros(3)
    session = x._ref.session
    before = session.stats.waits
    distribution = tc.distributions.Normal(x, x.exp(), validate_args=False)
    value = distribution.sample()
    total = distribution.log_prob(value).sum() + distribution.entropy().sum()
    assert session.stats.waits == before
    assert total.isfinite()

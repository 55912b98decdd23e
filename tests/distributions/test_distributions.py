"""Distributions give torch's numbers, texts, errors and gradients, and draw what torch draws."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
import torch.distributions

from tests.distributions.cases import CASES, NUMBERS, Make


def seen(value: Any) -> Any:
    """What can be compared of a result: dtype, shape and elements."""
    if isinstance(value, tuple) and len(value) == 3:
        return value
    if hasattr(value, "detach"):
        elements = value.detach()
        return str(value.dtype), tuple(value.shape), elements.tolist()
    return repr(value)


# The modules of the classes are named otherwise.
_MODULE = re.compile(r"(torch|tclient)\.distributions\.\w+\.")


def outcome(function: Callable[[], Any]) -> Any:
    """What a function gives, or how it fails; waits for it."""
    try:
        value = function()
        seen(value)
        return value
    except (NotImplementedError, RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        return type(error).__name__.lstrip("_").removeprefix("Tensor"), _MODULE.sub("", str(error))


def assert_same(mine: Any, theirs: Any) -> None:
    """Equal, and numbers by some roundings."""
    mine, theirs = seen(mine), seen(theirs)
    if not isinstance(theirs, tuple) or not isinstance(mine, tuple):
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
# Of Wishart, torch says so of all samples; a test of its own compares it.
pytestmark = pytest.mark.filterwarnings("ignore:Singular sample detected", "ignore:Low df values detected")
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
    assert_same(outcome(lambda: mine.log_prob(same)), outcome(lambda: theirs.log_prob(value)))
    assert_same(outcome(lambda: mine.cdf(same)), outcome(lambda: theirs.cdf(value)))
    share = torch.rand(4, *theirs.batch_shape, dtype=getattr(torch, dtype))
    shares = tc.tensor(share.tolist(), dtype=getattr(tc, dtype))
    assert_same(outcome(lambda: mine.icdf(shares)), outcome(lambda: theirs.icdf(share)))


def gradients(m: Any, make: Make) -> list[Any]:
    """Those of the parameters of a case, of what is drawn and of its probability."""
    m.manual_seed(7)
    parameters: list[Any] = []
    distribution = made(m, make, "float64", parameters)
    loss = distribution.log_prob(distribution.sample((3,))).sum()
    if distribution.has_rsample:
        loss = loss + (distribution.rsample((2,)) ** 2).sum()
    if loss.requires_grad:
        loss.backward()
    return [seen(each.grad) for each in parameters]


@ALL
def test_gradients_are_torchs(tc: Any, make: Make) -> None:
    mine, theirs = outcome(lambda: gradients(tc, make)), outcome(lambda: gradients(torch, make))
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        assert_same(one, other)


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
        mean = outcome(partial(getattr, distribution, "mean"))
        results.append([value, distribution.log_prob(value), distribution.batch_shape, mean, distribution])
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
    "half-normal": lambda m, d: d.HalfNormal(-1.0),
    "half-cauchy-below": lambda m, d: d.HalfCauchy(1.0).log_prob(m.tensor(-1.0)),
    "chi2": lambda m, d: d.Chi2(0.0),
    "student": lambda m, d: d.StudentT(m.tensor([1.0, -1.0])),
    "student-scale": lambda m, d: d.StudentT(1.0, 0.0, -1.0),
    "fisher": lambda m, d: d.FisherSnedecor(m.tensor([1.0, -1.0]), 1.0),
    "generalized-pareto": lambda m, d: d.GeneralizedPareto(0.0, -1.0, 0.0),
    "generalized-pareto-outside": lambda m, d: d.GeneralizedPareto(0.0, 1.0, -0.5).log_prob(m.tensor(3.0)),
    "inverse-gamma": lambda m, d: d.InverseGamma(1.0, 0.0),
    "weibull": lambda m, d: d.Weibull(m.tensor([1.0, -1.0]), 1.0),
    "kumaraswamy": lambda m, d: d.Kumaraswamy(1.0, -1.0),
    "logistic-normal": lambda m, d: d.LogisticNormal(m.zeros(2), 1.0).mean,
    "negative-binomial": lambda m, d: d.NegativeBinomial(-1, 0.5),
    "negative-binomial-probs": lambda m, d: d.NegativeBinomial(3, 1.0),
    "negative-binomial-neither": lambda m, d: d.NegativeBinomial(3),
    "negative-binomial-value": lambda m, d: d.NegativeBinomial(3, 0.5).log_prob(m.tensor(0.5)),
    "continuous-bernoulli": lambda m, d: d.ContinuousBernoulli(1.5, validate_args=False),
    "continuous-bernoulli-both": lambda m, d: d.ContinuousBernoulli(0.5, 0.5),
    "relaxed-bernoulli": lambda m, d: d.RelaxedBernoulli(m.tensor(1.0), 1.5),
    "relaxed-bernoulli-temperature": lambda m, d: d.RelaxedBernoulli(1.0, 0.5).log_prob(m.tensor(0.5)),
    "relaxed-one-hot": lambda m, d: d.RelaxedOneHotCategorical(m.tensor(1.0), m.tensor([-0.5, 1.0])),
    "relaxed-one-hot-outside": lambda m, d: d.RelaxedOneHotCategorical(m.tensor(1.0), m.ones(2)).log_prob(m.ones(2)),
    "von-mises": lambda m, d: d.VonMises(0.0, -1.0),
    "von-mises-entropy": lambda m, d: d.VonMises(0.0, 1.0).entropy(),
    "lkj-dim": lambda m, d: d.LKJCholesky(1),
    "lkj-concentration": lambda m, d: d.LKJCholesky(2, -1.0),
    "lkj-value": lambda m, d: d.LKJCholesky(2).log_prob(m.ones(2, 2)),
    "low-rank-number": lambda m, d: d.LowRankMultivariateNormal(m.tensor(1.0), m.ones(2, 1), m.ones(2)),
    "low-rank-vector": lambda m, d: d.LowRankMultivariateNormal(m.zeros(2), m.ones(2), m.ones(2)),
    "low-rank-factor": lambda m, d: d.LowRankMultivariateNormal(m.zeros(2), m.ones(3, 1), m.ones(2)),
    "low-rank-diagonal": lambda m, d: d.LowRankMultivariateNormal(m.zeros(2), m.ones(2, 1), m.ones(3)),
    "low-rank-batch": lambda m, d: d.LowRankMultivariateNormal(m.zeros(2, 2), m.ones(3, 2, 1), m.ones(2)),
    "low-rank-negative": lambda m, d: d.LowRankMultivariateNormal(m.zeros(2), m.ones(2, 1), m.tensor([1.0, -0.1])),
    "low-rank-negative-and-more": lambda m, d: d.LowRankMultivariateNormal(
        m.zeros(2), m.ones(2, 1), m.tensor([1.0, -5.0])
    ),
    "mixture": lambda m, d: d.MixtureSameFamily(d.Normal(0.0, 1.0), d.Normal(m.zeros(2), 1.0)),
    "mixture-component": lambda m, d: d.MixtureSameFamily(d.Categorical(m.ones(2)), m.ones(2)),
    "mixture-count": lambda m, d: d.MixtureSameFamily(d.Categorical(m.ones(2)), d.Normal(m.zeros(3), 1.0)),
    "mixture-batch": lambda m, d: d.MixtureSameFamily(d.Categorical(m.ones(2, 3)), d.Normal(m.zeros(4, 3), 1.0)),
    "mixture-value": lambda m, d: d.MixtureSameFamily(d.Categorical(m.ones(2)), d.Gamma(m.ones(2), 1.0)).log_prob(
        m.tensor(-1.0)
    ),
    "mixture-rsample": lambda m, d: d.MixtureSameFamily(d.Categorical(m.ones(2)), d.Normal(m.zeros(2), 1.0)).rsample(),
    "wishart-none": lambda m, d: d.Wishart(3.0),
    "wishart-vector": lambda m, d: d.Wishart(3.0, m.ones(2)),
    "wishart-df": lambda m, d: d.Wishart(1.0, m.eye(2)),
    "wishart-dfs": lambda m, d: d.Wishart(m.tensor([3.0, 0.5]), m.eye(2)),
    "wishart-matrix": lambda m, d: d.Wishart(3.0, -m.eye(2)),
    "biject": lambda m, d: d.biject_to(d.constraints.boolean),
    "register-constraint": lambda m, d: d.biject_to.register(3, lambda constraint: constraint),
    "register-kl": lambda m, d: d.register_kl(3, d.Normal),
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
    "cauchy": lambda d, x: d.Cauchy(x, x.exp()),
    "half-normal": lambda d, x: d.HalfNormal(x.exp()),
    "student-t": lambda d, x: d.StudentT(x.exp(), x),
    "log-normal": lambda d, x: d.LogNormal(x, x.exp()),
    "continuous-bernoulli": lambda d, x: d.ContinuousBernoulli(logits=x),
    "relaxed-one-hot": lambda d, x: d.RelaxedOneHotCategorical(x.exp(), logits=x),
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


def test_wishart_warns_as_torch_does(tc: Any) -> None:
    said = []
    for module in (tc, torch):
        module.manual_seed(3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", ResourceWarning)  # sockets of other tests
            module.distributions.Wishart(1.5, module.eye(2)).rsample((2,))
        said.append([(each.category, str(each.message), each.filename == __file__) for each in caught])
    assert said[0] == said[1] != []


# A distribution as libraries define theirs, on the bases and the tools that torch gives them.
def zero_inflated(m: Any) -> Any:
    d = m.distributions
    from_utils = d.utils

    class ZeroInflated(d.Distribution):  # type: ignore[misc,name-defined]
        arg_constraints: ClassVar[dict[str, Any]] = {"gate": d.constraints.unit_interval}

        def __init__(self, base: Any, gate: Any, validate_args: Any = None) -> None:
            (self.gate,) = from_utils.broadcast_all(gate)
            self.base = base
            super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

        @d.constraints.dependent_property(is_discrete=True, event_dim=0)  # type: ignore[untyped-decorator]
        def support(self) -> Any:
            return self.base.support

        @from_utils.lazy_property  # type: ignore[untyped-decorator]
        def gate_logits(self) -> Any:
            return from_utils.probs_to_logits(self.gate, is_binary=True)

        @property
        def mean(self) -> Any:
            return (1 - self.gate) * self.base.mean

        def sample(self, sample_shape: Any = ()) -> Any:
            with m.no_grad():
                shape = self._extended_shape(m.Size(sample_shape))
                mask = m.bernoulli(self.gate.expand(shape)).bool()
                return self.base.expand(shape).sample().masked_fill(mask, 0)

        def log_prob(self, value: Any) -> Any:
            if self._validate_args:
                self._validate_sample(value)
            log_prob = (-self.gate).log1p() + self.base.log_prob(value)
            return m.where(value == 0, (self.gate + log_prob.exp()).log(), log_prob)

        def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
            new = self._get_checked_instance(ZeroInflated, _instance)
            new.base, new.gate = self.base.expand(batch_shape), self.gate.expand(batch_shape)
            super(ZeroInflated, new).__init__(m.Size(batch_shape), validate_args=False)
            new._validate_args = self._validate_args
            return new

    @d.register_kl(ZeroInflated, ZeroInflated)  # type: ignore[untyped-decorator]
    def divergence(p: Any, q: Any) -> Any:
        return d.kl_divergence(p.base, q.base) + (p.gate - q.gate).abs()

    return ZeroInflated


def test_a_distribution_of_a_program_is_as_with_torch(tc: Any) -> None:
    results = []
    for module in (tc, torch):
        module.manual_seed(3)
        kind = zero_inflated(module)
        one = kind(module.distributions.Poisson(module.tensor([1.0, 4.0])), 0.25)
        other = one.expand((3, 2))
        values = other.sample((2,))
        notes = [one, other, one.support, kind.support.is_discrete, values, other.log_prob(values), one.mean]
        notes += [one.gate_logits, module.distributions.kl_divergence(one, other), other.batch_shape]
        notes.append(outcome(lambda: one.log_prob(module.tensor(-1.0))))  # noqa: B023
        notes.append(outcome(lambda: kind(one.base, 1.5)))  # noqa: B023
        results.append(notes)
    for mine, theirs in zip(*results, strict=True):
        assert_same(mine, theirs)


def test_without_validation_nothing_waits(tc: Any) -> None:
    x = tc.zeros(3)
    session = x._ref.session
    before = session.stats.waits
    distribution = tc.distributions.Normal(x, x.exp(), validate_args=False)
    value = distribution.sample()
    total = distribution.log_prob(value).sum() + distribution.entropy().sum()
    assert session.stats.waits == before
    assert total.isfinite()

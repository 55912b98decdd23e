"""Transforms give torch's values, inverses, stretches and texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributions

from tests.distributions.test_distributions import assert_same, outcome

TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "exp": lambda d: d.ExpTransform(),
    "affine": lambda d: d.AffineTransform(1.0, -2.0),
    "affine-vectors": lambda d: d.AffineTransform(1.0, 2.0, event_dim=1),
    "sigmoid": lambda d: d.SigmoidTransform(),
    "tanh": lambda d: d.TanhTransform(),
    "softplus": lambda d: d.SoftplusTransform(),
    "softmax": lambda d: d.SoftmaxTransform(),
    "stick-breaking": lambda d: d.StickBreakingTransform(),
    "abs": lambda d: d.AbsTransform(),
    "power": lambda d: d.PowerTransform(2.0),
    "corr-cholesky": lambda d: d.CorrCholeskyTransform(),
    "reshape": lambda d: d.ReshapeTransform((6,), (2, 3)),
    "compose": lambda d: d.ComposeTransform([d.SoftplusTransform(), d.AffineTransform(0.5, 2.0)]),
    "compose-vectors": lambda d: d.ComposeTransform([d.TanhTransform(), d.StickBreakingTransform()]),
    "identity": lambda d: d.identity_transform,
    "independent": lambda d: d.IndependentTransform(d.ExpTransform(), 1),
    "cdf": lambda d: d.CumulativeDistributionTransform(d.Normal(0.0, 1.0)),
    "cat": lambda d: d.CatTransform([d.ExpTransform(), d.TanhTransform()], dim=-1, lengths=[2, 4]),
    "stack": lambda d: d.StackTransform([d.ExpTransform(), d.TanhTransform()], dim=0),
}


@pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_a_transform_is_torchs(tc: Any, make: Callable[[Any], Any]) -> None:
    results = []
    for module in (tc, torch):
        transform = make(module.distributions)
        x = module.linspace(0.1, 1.5, 12, dtype=module.float64).reshape(2, 6)
        y = transform(x)
        notes = [repr(transform), repr(transform.inv), transform.bijective, y, transform.inv(y)]
        notes.append(outcome(partial(transform.log_abs_det_jacobian, x, y)))
        notes += [outcome(partial(getattr, transform, name)) for name in ("domain", "codomain", "sign", "event_dim")]
        notes += [transform.forward_shape(x.shape), transform.inverse_shape(y.shape)]
        results.append(notes)
    for mine, theirs in zip(*results, strict=True):
        assert_same(mine, theirs)


def test_a_cached_inverse_is_the_very_tensor(tc: Any) -> None:
    transform = tc.distributions.ExpTransform(cache_size=1)
    x = tc.ones(2)
    assert transform.inv(transform(x)) is x


MATRICES: dict[str, Callable[[Any], Any]] = {
    "lower-cholesky": lambda d: d.LowerCholeskyTransform(),
    "positive-definite": lambda d: d.PositiveDefiniteTransform(),
    "reshape-matrices": lambda d: d.ReshapeTransform((2, 2), (4,)),
}


@pytest.mark.parametrize("make", MATRICES.values(), ids=MATRICES.keys())
def test_a_transform_of_matrices_is_torchs(tc: Any, make: Callable[[Any], Any]) -> None:
    results = []
    for module in (tc, torch):
        transform = make(module.distributions)
        x = module.tensor([[[0.5, 0.0], [-1.0, 0.25]], [[1.0, 0.0], [2.0, -0.5]]])
        y = transform(x)
        notes = [repr(transform), transform.bijective, y, transform.inv(y), transform.domain, transform.codomain]
        results.append([*notes, outcome(partial(transform.log_abs_det_jacobian, x, y))])
    for mine, theirs in zip(*results, strict=True):
        assert_same(mine, theirs)


CONSTRAINTS: dict[str, Callable[[Any, Any], Any]] = {
    "real": lambda c, m: c.real,
    "real-vector": lambda c, m: c.real_vector,
    "positive": lambda c, m: c.positive,
    "nonnegative": lambda c, m: c.nonnegative,
    "greater-than": lambda c, m: c.greater_than(m.tensor(2.0)),
    "greater-than-eq": lambda c, m: c.greater_than_eq(-1.5),
    "less-than": lambda c, m: c.less_than(0.5),
    "unit-interval": lambda c, m: c.unit_interval,
    "interval": lambda c, m: c.interval(-1.0, m.tensor([2.0, 3.0, 4.0])),
    "half-open-interval": lambda c, m: c.half_open_interval(0.0, 2.0),
    "simplex": lambda c, m: c.simplex,
    "corr-cholesky": lambda c, m: c.corr_cholesky,
    "cat": lambda c, m: c.cat([c.positive, c.real], dim=-1, lengths=[1, 2]),
    "stack": lambda c, m: c.stack([c.positive, c.unit_interval], dim=0),
    "independent": lambda c, m: c.independent(c.positive, 1),
    "positive-definite": lambda c, m: c.positive_definite,
    "positive-semidefinite": lambda c, m: c.positive_semidefinite,
    "lower-cholesky": lambda c, m: c.lower_cholesky,
    "boolean": lambda c, m: c.boolean,
    "symmetric": lambda c, m: c.symmetric,
}


@pytest.mark.parametrize("registry", ["biject_to", "transform_to"])
@pytest.mark.parametrize("make", CONSTRAINTS.values(), ids=CONSTRAINTS.keys())
def test_a_constraint_has_torchs_transform(tc: Any, make: Callable[[Any, Any], Any], registry: str) -> None:
    results = []
    for module in (tc, torch):
        d = module.distributions
        constraint = make(d.constraints, module)
        transform = outcome(partial(getattr(d, registry), constraint))
        if isinstance(transform, tuple):
            results.append([transform])
            continue
        of_matrices = transform.domain.event_dim == 2
        x = module.tensor([[0.5, -1.0], [0.0, 2.0]] if of_matrices else [[0.5, -1.0, 0.0], [0.0, 2.0, 0.1]])
        y = transform(x)
        results.append([transform, y, constraint.check(y), transform.inv(y)])
    for mine, theirs in zip(*results, strict=True):
        assert_same(mine, theirs)


def test_a_registered_transform_is_found(tc: Any) -> None:
    d = tc.distributions
    registry = d.constraint_registry.ConstraintRegistry()

    @registry.register(d.constraints.boolean)  # type: ignore[untyped-decorator]
    def of_boolean(constraint: Any) -> Any:
        return constraint, "made"

    assert registry(d.constraints.boolean) == (d.constraints.boolean, "made")


MISUSE: dict[str, Callable[[Any, Any], Any]] = {
    "cache": lambda m, d: d.ExpTransform(cache_size=2),
    "with-cache": lambda m, d: d.PowerTransform(2.0).with_cache(3),
    "elements": lambda m, d: d.ReshapeTransform((2, 3), (5,)),
    "shape": lambda m, d: d.ReshapeTransform((2, 3), (6,)).forward_shape(m.Size([3, 2])),
    "few-dimensions": lambda m, d: d.ReshapeTransform((2, 3), (6,)).forward_shape(m.Size([3])),
    "number": lambda m, d: d.StickBreakingTransform().forward_shape(m.Size([])),
    "softmax": lambda m, d: d.SoftmaxTransform().forward_shape(m.Size([])),
    "independent": lambda m, d: d.IndependentTransform(d.ExpTransform(), 2)(m.zeros(2)),
    "corr-cholesky": lambda m, d: d.CorrCholeskyTransform().forward_shape(m.Size([4])),
    "corr-cholesky-square": lambda m, d: d.CorrCholeskyTransform().inverse_shape(m.Size([2, 3])),
    "no-transform": lambda m, d: d.TransformedDistribution(d.Normal(0.0, 1.0), 3),
    "no-transforms": lambda m, d: d.TransformedDistribution(d.Normal(0.0, 1.0), [3]),
    "small-base": lambda m, d: d.TransformedDistribution(d.Normal(0.0, 1.0), d.StickBreakingTransform()),
    "parts": lambda m, d: d.CatTransform([3]),
    "key": lambda m, d: {d.ExpTransform(): 1},
    "key-of-parts": lambda m, d: hash(d.IndependentTransform(d.ComposeTransform([]), 1)),
    "event-dim": lambda m, d: d.ReshapeTransform((2, 3), (6,)).event_dim,
    "no-jacobian": lambda m, d: d.AbsTransform().log_abs_det_jacobian(m.ones(1), m.ones(1)),
    "no-sign": lambda m, d: d.AbsTransform().sign,
    "vector": lambda m, d: d.utils.vec_to_tril_matrix(m.zeros(4)),
    "diagonal": lambda m, d: d.utils.tril_matrix_to_vec(m.zeros(2, 2), 3),
}


@pytest.mark.parametrize("misuse", MISUSE.values(), ids=MISUSE.keys())
def test_misuse_of_transforms_is_refused_in_the_words_of_torch(tc: Any, misuse: Callable[[Any, Any], Any]) -> None:
    mine, theirs = (outcome(partial(misuse, module, module.distributions)) for module in (tc, torch))
    assert theirs[0].endswith("Error"), "torch takes it"
    assert mine == theirs


def test_transforms_are_equal_where_torchs_are(tc: Any) -> None:
    results = []
    for module in (tc, torch):
        d = module.distributions
        made = [d.ExpTransform(), d.ExpTransform(), d.ExpTransform().inv, d.TanhTransform(), d.PowerTransform(2.0)]
        made += [d.PowerTransform(module.tensor(2.0)), d.AffineTransform(1.0, 2.0), d.AffineTransform(1, 2)]
        made += [d.AffineTransform(module.tensor(1.0), 2.0), d.ComposeTransform([]), d.identity_transform]
        made += [d.IndependentTransform(d.ExpTransform(), 1), d.IndependentTransform(d.ExpTransform(), 1)]
        made += [d.ComposeTransform([d.ExpTransform()]), d.ComposeTransform([d.ExpTransform()]), 3]
        results.append([[(one == other, one != other) for other in made] for one in made])
    assert results[0] == results[1]


UTILS: dict[str, Callable[[Any, Any], Any]] = {
    "matrix": lambda m, u: u.vec_to_tril_matrix(m.tensor([[1.0, 2.0, 3.0]])),
    "matrix-below": lambda m, u: u.vec_to_tril_matrix(m.tensor([1.0, 2.0, 3.0]), -1),
    "vector": lambda m, u: u.tril_matrix_to_vec(m.arange(9.0).view(3, 3)),
    "vector-above": lambda m, u: u.tril_matrix_to_vec(m.arange(9.0).view(3, 3), 1),
    "logits": lambda m, u: u.probs_to_logits(m.tensor([0.0, 0.3]), is_binary=True),
    "probs": lambda m, u: u.logits_to_probs(m.tensor([0.0, 0.3])),
    "clamp": lambda m, u: u.clamp_probs(m.tensor([0.0, 1.0])),
    "sum": lambda m, u: u._sum_rightmost(m.ones(2, 3, 4), 2),
    "together": lambda m, u: u.broadcast_all(2, m.ones(2))[0],
    "euler": lambda m, u: u.euler_constant,
}


@pytest.mark.parametrize("call", UTILS.values(), ids=UTILS.keys())
def test_utils_are_torchs(tc: Any, call: Callable[[Any, Any], Any]) -> None:
    mine, theirs = (outcome(partial(call, module, module.distributions.utils)) for module in (tc, torch))
    assert_same(mine, theirs)

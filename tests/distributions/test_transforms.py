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

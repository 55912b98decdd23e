"""Weight norm, spectral norm and checkpointing against torch: names of the state, numbers and gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

IMAGE = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)

NORMS: dict[str, Callable[[Any], Any]] = {
    "weight norm": lambda nn: nn.utils.weight_norm(nn.Conv2d(3, 4, 3)),
    "weight norm of another dimension": lambda nn: nn.utils.weight_norm(nn.Conv2d(3, 4, 3), dim=1),
    "weight norm of all": lambda nn: nn.utils.weight_norm(nn.Linear(6, 2), dim=None),
    "spectral norm": lambda nn: nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)),
    "spectral norm of a transpose": lambda nn: nn.utils.spectral_norm(
        nn.ConvTranspose2d(3, 4, 3), n_power_iterations=3
    ),
    "spectral norm of a linear map": lambda nn: nn.utils.spectral_norm(nn.Linear(6, 2, bias=False)),
}
by_norm = pytest.mark.parametrize("make", NORMS.values(), ids=NORMS.keys())


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def assert_same_state(ours: Any, theirs: Any) -> None:
    """The same names with the same numbers."""
    got, expected = ours.state_dict(), theirs.state_dict()
    assert list(got) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name].numpy(), value.numpy(), rtol=1e-5, atol=1e-6)


def trained(namespace: Any, make: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The layer after some steps, and what it computes then."""
    namespace.manual_seed(4)
    layer = make(namespace.nn)
    x = namespace.tensor(IMAGE)
    optimizer = namespace.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()
    return layer, layer.eval()(x).detach().numpy()


@by_norm
def test_a_weight_with_a_norm_is_trained_as_in_torch(tc: Any, make: Callable[[Any], Any]) -> None:
    (ours, got), (theirs, expected) = trained(tc, make), trained(torch, make)
    assert repr(ours) == repr(theirs)
    assert_same_state(ours, theirs)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@by_norm
def test_a_norm_is_removed_as_in_torch(tc: Any, make: Callable[[Any], Any]) -> None:
    kept = []
    for namespace in (tc, torch):
        layer, before = trained(namespace, make)
        utils = namespace.nn.utils
        remove = utils.remove_weight_norm if hasattr(layer, "weight_g") else utils.remove_spectral_norm
        assert remove(layer) is layer
        np.testing.assert_allclose(layer(namespace.tensor(IMAGE)).detach().numpy(), before, rtol=1e-4, atol=1e-5)
        assert isinstance(layer.weight, namespace.nn.Parameter)
        kept.append(layer)
    assert_same_state(*kept)


def test_norms_are_refused_in_the_words_of_torch(tc: Any) -> None:
    for misuse in (
        lambda nn: nn.utils.weight_norm(nn.utils.weight_norm(nn.Linear(2, 2))),
        lambda nn: nn.utils.spectral_norm(nn.utils.spectral_norm(nn.Linear(2, 2))),
        lambda nn: nn.utils.spectral_norm(nn.Linear(2, 2), n_power_iterations=0),
        lambda nn: nn.utils.remove_weight_norm(nn.Linear(2, 2)),
        lambda nn: nn.utils.remove_spectral_norm(nn.Linear(2, 2)),
    ):
        with pytest.raises((RuntimeError, ValueError)) as expected:
            misuse(torch.nn)
        with pytest.raises(type(expected.value)) as got:
            misuse(tc.nn)
        assert str(got.value) == str(expected.value)


def test_a_checkpointed_function_gives_what_torch_gives(tc: Any) -> None:
    import torch.utils.checkpoint

    found = []
    for namespace in (tc, torch):
        x = namespace.arange(3.0).requires_grad_()
        checkpoint = namespace.utils.checkpoint
        y = checkpoint.checkpoint(lambda a, b: (a * b).sin(), x, b=2, use_reentrant=False)
        z = checkpoint.checkpoint_sequential([namespace.sin, namespace.exp], 2, y, use_reentrant=False)
        z.sum().backward()
        with pytest.raises(ValueError, match="Unexpected keyword arguments: b") as refused:
            checkpoint.checkpoint(namespace.sin, x, b=2, use_reentrant=True)
        with pytest.warns(UserWarning, match="use_reentrant parameter should be passed explicitly") as caught:
            checkpoint.checkpoint(namespace.sin, x)
        found.append((z.tolist(), x.grad.tolist(), str(refused.value), str(caught[0].message)))
    for one, other in zip(found[0][:2], found[1][:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert found[0][2:] == found[1][2:]

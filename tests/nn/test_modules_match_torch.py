"""Every module against torch.nn: drawn from the same seed, printed, run and differentiated."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from . import cases

by_case = pytest.mark.parametrize("case", cases.ALL, ids=lambda case: case.label)
by_run = pytest.mark.parametrize("case", [case for case in cases.ALL if case.inputs], ids=lambda case: case.label)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def both(tc: Any, case: cases.Case) -> tuple[Any, Any]:
    """The module of the client and the one of torch, drawn from the same seed."""
    tc.manual_seed(7)
    ours = case.build(tc.nn)
    torch.manual_seed(7)
    return ours, case.build(torch.nn)


def tensors(namespace: Any, case: cases.Case) -> list[Any]:
    """The inputs, floating-point ones with gradients; of a loss only what is judged."""
    made = [namespace.tensor(np.ascontiguousarray(array)) for array in case.inputs]
    last = 1 if case.name.endswith("Loss") else len(made)
    return [t.requires_grad_() if i < last and t.dtype.is_floating_point else t for i, t in enumerate(made)]


def run(namespace: Any, module: Any, case: cases.Case) -> tuple[list[Any], list[Any]]:
    """What the module returns, flat, and its inputs."""
    inputs = tensors(namespace, case)
    # An input that is written into must not be a leaf.
    given = [t.clone() for t in inputs] if "inplace" in repr(module) else inputs
    return flat(module(*given, **case.call)), inputs


def flat(value: Any) -> list[Any]:
    """The tensors of nested tuples."""
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in flat(item)]
    return [] if value is None else [value]


def assert_same(got: Any, expected: torch.Tensor) -> None:
    """Same shape, dtype and numbers."""
    assert tuple(got.shape) == tuple(expected.shape)
    assert str(got.dtype).split(".")[-1] == str(expected.dtype).split(".")[-1]
    np.testing.assert_allclose(got.detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)


@by_case
def test_a_module_prints_as_in_torch(tc: Any, case: cases.Case) -> None:
    ours, theirs = both(tc, case)
    assert repr(ours) == repr(theirs)


@by_case
def test_a_module_draws_the_same_parameters_as_torch(tc: Any, case: cases.Case) -> None:
    ours, theirs = both(tc, case)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for got, expected in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        np.testing.assert_array_equal(got.numpy(), expected.numpy())


@by_run
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_a_module_computes_what_torch_computes(tc: Any, case: cases.Case, mode: bool) -> None:
    ours, theirs = both(tc, case)
    with tc.no_grad(), torch.no_grad():
        for _ in range(2):  # the second time with what was learned in the first
            got, _ = run(tc, ours.train(mode), case)
            expected, _ = run(torch, theirs.train(mode), case)
            assert len(got) == len(expected)
            for one, other in zip(got, expected, strict=True):
                assert_same(one, other)
    for one, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)


@by_run
def test_a_module_has_the_gradients_of_torch(tc: Any, case: cases.Case) -> None:
    ours, theirs = both(tc, case)
    got, got_inputs = run(tc, ours, case)
    expected, inputs = run(torch, theirs, case)
    if not expected[0].requires_grad or case.kwargs.get("max_norm"):
        pytest.skip("nothing here has a gradient")
    got[0].sum().backward()
    torch.autograd.backward(expected[0].sum())
    pairs = [*zip(ours.parameters(), theirs.parameters(), strict=True), *zip(got_inputs, inputs, strict=True)]
    for one, other in pairs:
        assert (one.grad is None) == (other.grad is None)
        if other.grad is not None:
            np.testing.assert_allclose(one.grad.numpy(), other.grad.numpy(), rtol=1e-4, atol=1e-5)


@by_case
def test_a_copied_module_has_parameters_of_its_own(tc: Any, case: cases.Case) -> None:
    ours, _ = both(tc, case)
    twin = copy.deepcopy(ours)
    assert repr(twin) == repr(ours)
    for one, other in zip(twin.parameters(), ours.parameters(), strict=True):
        assert one is not other
    for one, other in zip(twin.state_dict().values(), ours.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())

"""Every operation of the table gives on the server's GPU what local torch gives on the same GPU.

The calls are those that torch ships for its operators, moved to the device.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from tclient._issue import dispatch, operation_named
from tests.operations.calls import Invocation, from_torch, operators

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device: docs/gpu.md", allow_module_level=True)

# What random numbers decide, what memory happened to hold, and where a call does something else on the host.
_NOT_COMPARED = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "seed"}
_NOT_IN_NUMPY = (torch.bfloat16, torch.float16, torch.complex32)
_REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError, AssertionError)
_PLAIN = (bool, int, float, complex, str, type(None))
# Sums on the device come in any order.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4


def on_cuda(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.cuda()
    if type(value) in (list, tuple):
        return type(value)(map(on_cuda, value))
    if isinstance(value, torch.device):
        return torch.device("cuda:0")
    return value


def remote(tc: Any, value: Any) -> Any:
    """The same argument for the client."""
    if isinstance(value, torch.Tensor):
        dtype = getattr(tc, str(value.dtype).removeprefix("torch."))
        if value.dtype is torch.bfloat16:
            return tc.from_numpy(value.float().numpy()).to("cuda", dtype)
        return tc.from_numpy(value.resolve_conj().resolve_neg().contiguous().numpy()).to("cuda")
    if isinstance(value, torch.Size):
        return tuple(value)
    if type(value) in (list, tuple):
        return type(value)(remote(tc, item) for item in value)
    if isinstance(value, torch.dtype):
        return getattr(tc, str(value).removeprefix("torch."))
    if isinstance(value, slice):
        return slice(*(remote(tc, item) for item in (value.start, value.stop, value.step)))
    if isinstance(value, np.ndarray) or value is ... or type(value) in _PLAIN:
        return value
    raise NotSent(type(value).__name__)


class NotSent(Exception):
    """An argument that has no counterpart: a layout, a generator, a function."""


def _leaves(result: Any) -> list[Any]:
    if isinstance(result, (list, tuple)) and type(result).__name__ != "Size":
        return [leaf for item in result for leaf in _leaves(item)]
    return [result]


def read(tc: Any, result: Any) -> None:
    """Have all of it computed. Raises what that raises."""
    for leaf in _leaves(result):
        if isinstance(leaf, tc.Tensor):
            leaf.detach().cpu().reshape(-1)[:0].tolist()
    tc.synchronize()


def compare(name: str, mine: Any, theirs: Any) -> None:
    """Hold a result against torch's, where it is a tensor: dtype, shape, device and elements."""
    ours, expected = _leaves(mine), _leaves(theirs)
    assert len(ours) == len(expected), name
    for got, wanted in zip(ours, expected, strict=True):
        if not isinstance(wanted, torch.Tensor):
            continue
        assert str(got.dtype) == str(wanted.dtype), name
        assert tuple(got.shape) == tuple(wanted.shape), name
        assert str(got.device) == str(wanted.device), name
        if wanted.layout is not torch.strided or wanted.dtype in _NOT_IN_NUMPY:
            continue
        array = torch.from_numpy(got.detach().resolve_conj().resolve_neg().numpy())
        host = wanted.detach().cpu().resolve_conj().resolve_neg()
        torch.testing.assert_close(
            array, host, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True, msg=lambda text: f"{name}: {text}"
        )


def _check(tc: Any, call: Invocation) -> None:
    name = call.entry["name"]
    kwargs = {key: value for key, value in call.kwargs.items() if key != "device"}
    try:
        args = tuple(remote(tc, arg) for arg in call.args)
        named = {key: remote(tc, value) for key, value in kwargs.items()}
    except NotSent:
        return
    tc.manual_seed(5)
    torch.manual_seed(5)
    try:
        theirs = call.target(*map(on_cuda, call.args), **{key: on_cuda(value) for key, value in kwargs.items()})
        torch.cuda.synchronize()
    except _REFUSALS:
        # Not a call of this operation, or not one that the device has a kernel for.
        with pytest.raises(_REFUSALS):
            read(tc, dispatch(operation_named(name), args, named))
        return
    if theirs is not NotImplemented:
        compare(name, dispatch(operation_named(name), args, named), theirs)
        tc.synchronize()


@pytest.mark.parametrize("operator", operators())
def test_an_operation_is_torchs_on_the_device(operator: str, tc: Any) -> None:
    for call in from_torch(operator, 2):
        if call.entry["name"].removeprefix("Tensor.") not in _NOT_COMPARED:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with torch.device("cuda"):
                    _check(tc, call)

"""What a kernel would only assert raises what the CPU raises, and the device goes on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tclient._issue import dispatch, operation_named
from tests.cuda.test_operations import compare, on_cuda, read, remote
from tests.engine.test_device_guards import REFUSED, TAKEN, resolved

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device: docs/gpu.md", allow_module_level=True)

# index_reduce says that it is in beta.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize(("name", "args", "kwargs"), REFUSED)
def test_it_is_refused_as_on_the_cpu(name: str, args: Any, kwargs: Any, tc: Any) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever torch raises
        resolved(name)(*copy.deepcopy(args), **copy.deepcopy(kwargs))
    sent = tuple(remote(tc, arg) for arg in args)
    named = {key: remote(tc, value) for key, value in kwargs.items()}
    with pytest.raises(Exception) as refused:  # noqa: PT011
        read(tc, dispatch(operation_named(name), sent, named))
    assert str(refused.value) == str(expected.value)
    builtin = next(kind for kind in type(expected.value).__mro__ if kind.__module__ == "builtins")
    assert isinstance(refused.value, builtin)
    assert tc.ones(3).sum().item() == 3.0


RANDOM = {"multinomial", "bernoulli"}


@pytest.mark.parametrize(("name", "args", "kwargs"), TAKEN)
def test_what_fits_is_run(name: str, args: Any, kwargs: Any, tc: Any) -> None:
    sent = tuple(remote(tc, arg) for arg in args)
    mine = dispatch(operation_named(name), sent, {key: remote(tc, value) for key, value in kwargs.items()})
    local = [on_cuda(copy.deepcopy(arg)) for arg in args]
    theirs = resolved(name)(*local, **copy.deepcopy(kwargs))
    if name in RANDOM:
        assert tuple(mine.shape) == tuple(theirs.shape)
    elif theirs is not None:
        compare(name, mine, theirs)
    else:
        compare(name, sent[0], local[0])


def test_classes_of_ctc_loss_that_are_not_there_are_refused(tc: Any) -> None:
    scores = tc.randn(10, 2, 5).log_softmax(2)
    lengths = tc.tensor([10, 10]), tc.tensor([3, 3])
    for outside in (10**8, -(10**8)):
        with pytest.raises(RuntimeError, match="targets must be classes"):
            tc.nn.functional.ctc_loss(scores, tc.full((2, 3), outside), *lengths).item()
    assert tc.ones(3).sum().item() == 3.0

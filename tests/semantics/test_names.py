"""The names of torch that a course uses are there, and the session's own ones answer as torch's do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

_USED = """
Tensor FloatTensor LongTensor Size Generator dtype device finfo iinfo tensor as_tensor from_numpy zeros ones empty full
eye arange linspace logspace rand randn randint randperm normal zeros_like ones_like rand_like full_like cat stack
split chunk hstack vstack squeeze unsqueeze reshape flatten transpose permute where gather index_select masked_select
nonzero take add sub mul div pow sqrt exp log sin cos tanh sigmoid relu abs sign floor ceil round clamp sum mean std
var prod max min argmax argmin cumsum sort topk unique any all eq equal allclose isclose isnan matmul mm bmm mv dot
outer einsum tensordot norm dist cdist meshgrid tril triu diag trace histc bincount roll flip manual_seed seed
initial_seed get_rng_state set_rng_state default_generator get_default_dtype set_default_dtype get_default_device
set_printoptions is_tensor is_floating_point is_complex is_nonzero numel no_grad enable_grad set_grad_enabled
inference_mode is_grad_enabled autocast result_type promote_types can_cast broadcast_shapes broadcast_tensors
broadcast_to typename pi e inf nan newaxis float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 bool complex64
complex128 float double half int long short strided channels_last preserve_format contiguous_format nn.functional.relu
nn.functional.softmax nn.functional.cross_entropy nn.functional.mse_loss nn.functional.conv2d nn.functional.one_hot
linalg.inv linalg.svd linalg.solve linalg.norm linalg.eig linalg.LinAlgError fft.fft special.erf autograd.grad
random.manual_seed random.seed random.initial_seed random.get_rng_state cuda.is_available cuda.device_count __version__
""".split()


def _find(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


@pytest.mark.parametrize("path", _USED)
def test_a_name_that_a_course_uses_is_there(tc: Any, path: str) -> None:
    ours, theirs = _find(tc, path), _find(torch, path)
    assert callable(ours) == callable(theirs)


def test_the_default_generator_is_what_manual_seed_returns_and_no_generator_means(tc: Any) -> None:
    assert tc.manual_seed(3) is tc.default_generator
    first = tc.rand(4)
    tc.default_generator.manual_seed(3)
    assert tc.rand(4, generator=tc.default_generator).tolist() == first.tolist()
    assert tc.default_generator.initial_seed() == 3
    state = tc.default_generator.get_state()
    later = tc.randn(2)
    tc.default_generator.set_state(state)
    assert tc.randn(2).tolist() == later.tolist()


def test_a_copied_generator_goes_on_from_the_same_state(tc: Any) -> None:
    found = []
    for namespace in (tc, torch):
        generator = namespace.Generator().manual_seed(3)
        twin = copy.deepcopy(generator)
        found.append([namespace.rand(2, generator=each).tolist() for each in (generator, generator, twin)])
    assert found[0] == found[1]


def test_a_seed_is_set_without_waiting(tc: Any, server: Any) -> None:
    with tc.connect(server.address) as session:
        tc.manual_seed(3)
        assert session.stats.waits == 0


def test_the_exceptions_are_those_that_except_clauses_name(tc: Any) -> None:
    with pytest.raises(tc.linalg.LinAlgError):
        tc.linalg.inv(tc.zeros(2, 2)).tolist()
    with pytest.raises(RuntimeError):
        tc.linalg.inv(tc.zeros(2, 2)).tolist()
    with pytest.raises(IndexError):
        tc.zeros(2)[2].item()
    with pytest.raises(ValueError, match="invalid type"):
        tc.zeros(2).type(float)
    assert issubclass(tc.OutOfMemoryError, RuntimeError)

"""nn.init and nn.utils against torch: the same numbers from the same seed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

INITS: dict[str, tuple[tuple[int, ...], Callable[[Any, Any], Any]]] = {
    "uniform": ((3, 4), lambda init, t: init.uniform_(t, -1.0, 2.0)),
    "normal": ((3, 4), lambda init, t: init.normal_(t, 1.0, 0.5)),
    "trunc_normal": ((30, 4), lambda init, t: init.trunc_normal_(t, 0.1, 0.5, -0.3, 1.0)),
    "trunc_normal of a tail": ((30, 4), lambda init, t: init.trunc_normal_(t, 0.0, 1.0, 1.5, 3.0)),
    "constant": ((3, 4), lambda init, t: init.constant_(t, 0.3)),
    "ones": ((3, 4), lambda init, t: init.ones_(t)),
    "zeros": ((3, 4), lambda init, t: init.zeros_(t)),
    "eye": ((3, 4), lambda init, t: init.eye_(t)),
    "dirac": ((6, 2, 3), lambda init, t: init.dirac_(t, 2)),
    "xavier_uniform": ((3, 4, 2), lambda init, t: init.xavier_uniform_(t, gain=init.calculate_gain("tanh"))),
    "xavier_normal": ((3, 4), lambda init, t: init.xavier_normal_(t)),
    "kaiming_uniform": ((3, 4, 5), lambda init, t: init.kaiming_uniform_(t, mode="fan_out", nonlinearity="relu")),
    "kaiming_normal": ((3, 4), lambda init, t: init.kaiming_normal_(t, a=0.2)),
    "orthogonal": ((5, 3), lambda init, t: init.orthogonal_(t, gain=2)),
    "orthogonal and wide": ((3, 2, 4), lambda init, t: init.orthogonal_(t)),
    "sparse": ((6, 4), lambda init, t: init.sparse_(t, 0.4, 0.5)),
}


@pytest.mark.parametrize(("shape", "draw"), INITS.values(), ids=INITS.keys())
def test_parameters_are_drawn_as_in_torch(tc: Any, shape: tuple[int, ...], draw: Callable[[Any, Any], Any]) -> None:
    found = []
    for namespace in (tc, torch):
        namespace.manual_seed(11)
        tensor = namespace.nn.Parameter(namespace.zeros(shape))
        assert draw(namespace.nn.init, tensor) is tensor
        assert tensor.requires_grad
        found.append(tensor.detach().numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "param"),
    [("linear", None), ("sigmoid", None), ("tanh", None), ("relu", None), ("leaky_relu", 0.3), ("selu", None)],
    ids=str,
)
def test_gains_are_those_of_torch(tc: Any, name: Any, param: Any) -> None:
    assert tc.nn.init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)


MISUSES: dict[str, Callable[[Any, Any], Any]] = {
    "vector": lambda init, t: init.xavier_uniform_(t[0]),
    "mode": lambda init, t: init.kaiming_normal_(t, mode="fan_inn"),
    "nonlinearity": lambda init, t: init.calculate_gain("sine"),
    "eye of a vector": lambda init, t: init.eye_(t[0]),
    "dirac of a matrix": lambda init, t: init.dirac_(t),
    "orthogonal of a vector": lambda init, t: init.orthogonal_(t[0]),
    "sparse of a vector": lambda init, t: init.sparse_(t[0], 0.5),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES.keys())
def test_misuse_is_refused_in_the_words_of_torch(tc: Any, misuse: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(ValueError) as expected:  # noqa: PT011 - torch says which
        misuse(torch.nn.init, torch.ones(2, 3))
    with pytest.raises(ValueError) as got:  # noqa: PT011
        misuse(tc.nn.init, tc.ones(2, 3))
    assert str(got.value) == str(expected.value)


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [(0, 1, 2, 1), (0, 0, -1, 1), (0, 1, 10, 1e9), (0, 1, 100, 101), (math.nan, 1, -1, 1), (0, 1, -math.inf, 1)],
    ids=["empty", "no deviation", "hardly ever", "never", "nan", "infinite"],
)
def test_a_draw_that_would_not_end_is_refused(tc: Any, mean: float, std: float, a: float, b: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="trunc_normal_"):
            tc.nn.init.trunc_normal_(tc.empty(2), mean, std, a, b).tolist()


def with_gradients(namespace: Any) -> Any:
    """A layer whose gradients are large."""
    namespace.manual_seed(2)
    layer = namespace.nn.Linear(3, 2)
    (layer(namespace.ones(4, 3)) * 10).square().sum().backward()
    return layer


CLIPS: dict[str, Callable[[Any, Any], Any]] = {
    "norm": lambda utils, p: utils.clip_grad_norm_(p, 1.0),
    "infinite norm": lambda utils, p: utils.clip_grad_norm_(p, 2.0, norm_type=math.inf),
    "norm that is small enough": lambda utils, p: utils.clip_grad_norm_(p, 1e9),
    "norm that is known": lambda utils, p: utils.clip_grads_with_norm_(p, 2.0, p[0].new_tensor(5.0)),
    "value": lambda utils, p: utils.clip_grad_value_(p, 5.0),
}


@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS.keys())
def test_gradients_are_clipped_as_in_torch(tc: Any, clip: Callable[[Any, Any], Any]) -> None:
    ours, theirs = with_gradients(tc), with_gradients(torch)
    got, expected = clip(tc.nn.utils, list(ours.parameters())), clip(torch.nn.utils, list(theirs.parameters()))
    if expected is not None:
        np.testing.assert_allclose(got.item(), expected.item(), rtol=1e-6)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(one.grad.numpy(), other.grad.numpy(), rtol=1e-5)


def test_a_norm_that_is_not_finite_is_refused_when_asked(tc: Any) -> None:
    layer = with_gradients(tc)
    layer.weight.grad.fill_(math.nan)
    with pytest.raises(RuntimeError, match="is non-finite, so it cannot be clipped"):
        tc.nn.utils.clip_grad_norm_(layer.parameters(), 1.0, error_if_nonfinite=True)


def test_parameters_become_a_vector_and_come_back(tc: Any) -> None:
    layer = tc.nn.Linear(3, 2)
    vector = tc.nn.utils.parameters_to_vector(layer.parameters())
    assert tuple(vector.shape) == (8,)
    tc.nn.utils.vector_to_parameters(tc.arange(8.0), layer.parameters())
    assert layer.weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert layer.bias.tolist() == [6.0, 7.0]


OLD_NAMES = (
    "uniform",
    "normal",
    "eye",
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "orthogonal",
)


@pytest.mark.parametrize("name", OLD_NAMES)
def test_an_old_name_warns_as_in_torch_and_does_the_same(tc: Any, name: str) -> None:
    found = []
    for namespace in (tc, torch):
        namespace.manual_seed(11)
        tensor = namespace.zeros(3, 4)
        with pytest.warns(FutureWarning) as caught:
            assert vars(namespace.nn.init)[name](tensor) is tensor
        found.append((tensor.tolist(), [str(warning.message) for warning in caught]))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-6, atol=1e-7)
    assert found[0][1] == found[1][1]


def test_the_old_name_of_clipping_warns_as_in_torch(tc: Any) -> None:
    texts = []
    for namespace in (tc, torch):
        with pytest.warns(FutureWarning, match="clip_grad_norm_") as caught:
            namespace.nn.utils.clip_grad_norm(with_gradients(namespace).parameters(), 1.0)
        texts.append(str(caught[0].message))
    assert texts[0] == texts[1]


def test_a_module_over_devices_has_the_names_of_torch(tc: Any) -> None:
    ours, theirs = (namespace.nn.DataParallel(namespace.nn.Linear(2, 1)) for namespace in (tc, torch))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = tc.ones(3, 2)
    distributed = tc.nn.parallel.DistributedDataParallel(ours.module, device_ids=[0], find_unused_parameters=True)
    assert list(distributed.state_dict()) == list(theirs.state_dict())
    with distributed.no_sync():
        assert distributed(x).tolist() == ours(x).tolist() == ours.module(x).tolist()
    assert tc.nn.parallel.data_parallel(ours.module, x).tolist() == ours.module(x).tolist()

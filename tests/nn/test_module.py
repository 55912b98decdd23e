"""Module: what registers, what is listed, what is saved and loaded, in the words of torch."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch


def composed(namespace: Any) -> Any:
    """A module of one's own with parameters, buffers and submodules at several depths."""
    nn = namespace.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(namespace.ones(2))
            self.register_buffer("seen", namespace.zeros(1))
            self.register_buffer("scratch", namespace.zeros(3), persistent=False)
            self.register_parameter("nothing", None)
            self.inner = nn.Sequential(OrderedDict(first=nn.Linear(2, 2), second=nn.ReLU()))
            self.shared = self.inner.first
            self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Tanh()])
            self.named = nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Identity()})
            self.extra = nn.ParameterList([nn.Parameter(namespace.ones(1)), nn.Parameter(namespace.ones(2, 2))])
            self.by_name = nn.ParameterDict({"x": nn.Parameter(namespace.ones(4))})

        def forward(self, x: Any) -> Any:
            return self.named["a"](self.inner(x) * self.scale)

    return Block()


LISTS: dict[str, Callable[[Any], Any]] = {
    "named_parameters": lambda m: [name for name, _ in m.named_parameters()],
    "named_parameters with duplicates": lambda m: [name for name, _ in m.named_parameters(remove_duplicate=False)],
    "named_parameters right here": lambda m: [name for name, _ in m.named_parameters("top", recurse=False)],
    "named_buffers": lambda m: [name for name, _ in m.named_buffers()],
    "named_modules": lambda m: [name for name, _ in m.named_modules()],
    "named_children": lambda m: [name for name, _ in m.named_children()],
    "state_dict": lambda m: list(m.state_dict(prefix="p.")),
    "repr": repr,
    "get_submodule": lambda m: repr(m.get_submodule("inner.first")),
    "get_parameter": lambda m: tuple(m.get_parameter("inner.first.weight").shape),
    "get_buffer": lambda m: tuple(m.get_buffer("seen").shape),
    "training": lambda m: [module.training for module in m.eval().modules()],
    "slice": lambda m: repr(m.blocks[1:]),
    "apply": lambda m: [type(module).__name__ for module in _applied(m)],
    "has": lambda m: [hasattr(m, name) for name in ("scale", "seen", "inner", "nothing", "none")],
    "dir": lambda m: {"scale", "seen", "inner"} <= set(dir(m)),
}


def _applied(module: Any) -> list[Any]:
    seen: list[Any] = []
    module.apply(seen.append)
    return seen


@pytest.mark.parametrize("look", LISTS.values(), ids=LISTS.keys())
def test_a_module_lists_what_torch_lists(tc: Any, look: Callable[[Any], Any]) -> None:
    assert look(composed(tc)) == look(composed(torch))


def _deleted(m: Any) -> Any:
    del m.scale
    del m.inner
    return list(m.state_dict())


def _become_module(m: Any) -> None:
    m.y = 3
    m.y = m.inner


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "delete": lambda namespace, m: _deleted(m),
    "replace a parameter by None": lambda namespace, m: setattr(m, "scale", None),
    "replace a module": lambda namespace, m: setattr(m, "inner", namespace.nn.Tanh()),
    "replace a buffer": lambda namespace, m: setattr(m, "seen", namespace.ones(7)),
    "a plain attribute becomes a module": lambda namespace, m: _become_module(m),
    "append": lambda namespace, m: m.blocks.append(namespace.nn.ReLU()),
    "insert": lambda namespace, m: m.blocks.insert(1, namespace.nn.ReLU()),
    "delete of a list": lambda namespace, m: m.blocks.__delitem__(0),
    "pop of a list": lambda namespace, m: m.blocks.pop(-1),
    "set of a list": lambda namespace, m: m.blocks.__setitem__(-1, namespace.nn.ReLU()),
    "update of a dict": lambda namespace, m: m.named.update({"c": namespace.nn.ReLU()}),
    "sum of sequentials": lambda namespace, m: setattr(m, "inner", m.inner + m.inner),
    "multiple of a sequential": lambda namespace, m: setattr(m, "inner", m.inner * 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_module_changes_as_in_torch(tc: Any, change: Callable[[Any, Any], Any]) -> None:
    ours, theirs = composed(tc), composed(torch)
    change(tc, ours)
    change(torch, theirs)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]


MISUSES: dict[str, Callable[[Any, Any], Any]] = {
    "unknown attribute": lambda namespace, m: m.nonsense,
    "no forward": lambda namespace, m: namespace.nn.Module()(1),
    "dot in a name": lambda namespace, m: m.register_parameter("a.b", None),
    "empty name": lambda namespace, m: m.register_buffer("", None),
    "taken name": lambda namespace, m: m.register_buffer("forward", None),
    "missing submodule": lambda namespace, m: m.get_submodule("inner.third"),
    "missing parameter": lambda namespace, m: m.get_parameter("inner.first.wait"),
    "index out of range": lambda namespace, m: m.inner[5],
    "list index out of range": lambda namespace, m: m.blocks[-4],
    "training that is no bool": lambda namespace, m: m.train("yes"),
    "integer dtype": lambda namespace, m: m.to(namespace.int64),
    "module that is none": lambda namespace, m: m.add_module("x", 3),
    "state that is no mapping": lambda namespace, m: m.load_state_dict([1]),
    "embedding padding": lambda namespace, m: namespace.nn.Embedding(3, 2, padding_idx=5),
    "dropout probability": lambda namespace, m: namespace.nn.Dropout(1.5),
    "conv groups": lambda namespace, m: namespace.nn.Conv2d(3, 4, 3, groups=2),
    "dot in a module's name": lambda namespace, m: m.add_module("a.b", None),
    "conv stride": lambda namespace, m: namespace.nn.Conv2d(3, 4, 3, padding="same", stride=2),
    "batch norm dims": lambda namespace, m: namespace.nn.BatchNorm2d(3)(namespace.ones(2, 3)),
    "group norm": lambda namespace, m: namespace.nn.GroupNorm(2, 3),
    "attention heads": lambda namespace, m: namespace.nn.MultiheadAttention(8, 3),
    "rnn dims": lambda namespace, m: namespace.nn.RNN(3, 2)(namespace.ones(3)),
    "rnn nonlinearity": lambda namespace, m: namespace.nn.RNN(3, 2, nonlinearity="sine"),
    "rnn features": lambda namespace, m: namespace.nn.LSTM(3, 2)(namespace.ones(2, 4)),
    "rnn state dims": lambda namespace, m: namespace.nn.GRU(3, 2)(namespace.ones(2, 2, 3), namespace.ones(1, 2)),
    "rnn state size": lambda namespace, m: namespace.nn.RNN(3, 2)(namespace.ones(2, 2, 3), namespace.ones(1, 5, 2)),
    "lstm state dims": lambda namespace, m: namespace.nn.LSTM(3, 2)(
        namespace.ones(2, 3), [namespace.ones(1, 1, 2)] * 2
    ),
    "lstm state size": lambda namespace, m: namespace.nn.LSTM(3, 2)(
        namespace.ones(2, 2, 3), [namespace.ones(1, 5, 2)] * 2
    ),
    "cell features": lambda namespace, m: namespace.nn.LSTMCell(3, 2)(namespace.ones(2, 4))[0].shape,
    "unflatten": lambda namespace, m: namespace.nn.Unflatten(1, (2, 2.5)),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES.keys())
def test_misuse_is_refused_in_the_words_of_torch(tc: Any, misuse: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - torch says which
        misuse(torch, composed(torch))
    with pytest.raises(type(expected.value)) as got:
        misuse(tc, composed(tc))
    assert str(got.value) == str(expected.value)


def test_attributes_before_init_are_refused_in_the_words_of_torch(tc: Any) -> None:
    for namespace in (tc, torch):

        class Early(namespace.nn.Module):  # type: ignore[misc, name-defined]
            def __init__(self, make: Callable[[], Any]) -> None:
                self.early = make()

        with pytest.raises(AttributeError, match=r"cannot assign parameters before Module.__init__\(\) call"):
            Early(lambda: namespace.nn.Parameter(namespace.ones(1)))  # noqa: B023
        with pytest.raises(AttributeError, match=r"cannot assign module before Module.__init__\(\) call"):
            Early(namespace.nn.ReLU)


# State


def state(module: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("kind", ["tensors", "arrays", "torch"])
def test_a_state_is_loaded_from_tensors_arrays_and_torch(tc: Any, kind: str) -> None:
    source = composed(torch)
    wanted = {name: torch.randn(value.shape) for name, value in source.state_dict().items()}
    source.load_state_dict(wanted)  # of two names for one parameter the last one counts
    given: dict[str, Any] = {name: value.numpy() for name, value in wanted.items()}
    if kind == "tensors":
        given = {name: tc.tensor(value) for name, value in given.items()}
    module = composed(tc)
    before = dict(module.named_parameters())
    result = module.load_state_dict(wanted if kind == "torch" else given)
    assert repr(result) == "<All keys matched successfully>"
    for name, value in state(module).items():
        np.testing.assert_array_equal(value, source.state_dict()[name].numpy())
    assert all(before[name] is parameter for name, parameter in module.named_parameters())


def test_loading_a_state_waits_once_whatever_its_size(tc: Any) -> None:
    model = tc.nn.MLP([4, 5, 6, 7, 8])
    arrays = state(model)
    session = tc._session.current.current()
    before = session.stats.waits
    model.load_state_dict(arrays)
    assert session.stats.waits - before <= 1


WRONG_STATES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "missing": lambda s: {name: value for name, value in s.items() if name != "scale"},
    "unexpected": lambda s: {**s, "more": s["scale"], "and.more": s["scale"]},
    "wrong shape": lambda s: {**s, "scale": s["inner.first.weight"]},
    "all": lambda s: {"more": s["scale"], "scale": s["inner.first.weight"]},
}


@pytest.mark.parametrize("spoil", WRONG_STATES.values(), ids=WRONG_STATES.keys())
def test_a_wrong_state_is_refused_in_the_words_of_torch(tc: Any, spoil: Callable[[Any], Any]) -> None:
    ours, theirs = composed(tc), composed(torch)
    with pytest.raises(RuntimeError) as expected:
        theirs.load_state_dict(spoil(theirs.state_dict()))
    with pytest.raises(RuntimeError) as got:
        ours.load_state_dict(spoil(ours.state_dict()))
    assert str(got.value) == str(expected.value)


def test_a_state_with_gaps_is_loaded_when_not_strict(tc: Any) -> None:
    result = composed(tc).load_state_dict({"scale": np.array([3.0, 4.0]), "more": np.ones(1)}, strict=False)
    expected = composed(torch).load_state_dict({"scale": torch.tensor([3.0, 4.0]), "more": torch.ones(1)}, strict=False)
    assert result.missing_keys == expected.missing_keys
    assert result.unexpected_keys == expected.unexpected_keys


def test_a_state_shares_memory_with_the_module(tc: Any) -> None:
    layer = tc.nn.Linear(2, 1)
    layer.state_dict()["weight"].fill_(5.0)
    assert layer.weight.tolist() == [[5.0, 5.0]]
    assert not layer.state_dict()["weight"].requires_grad


def test_a_state_is_adopted_with_assign(tc: Any) -> None:
    layer = tc.nn.Linear(2, 1, bias=False)
    layer.load_state_dict({"weight": tc.ones(1, 2, dtype=tc.float64)}, assign=True)
    assert layer.weight.dtype == tc.float64
    assert isinstance(layer.weight, tc.nn.Parameter)


# Conversions


@pytest.mark.parametrize(
    "convert",
    [lambda m: m.double(), lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.to("cpu"), lambda m: m.float()],
    ids=["double", "half", "bfloat16", "to cpu", "float"],
)
def test_a_conversion_reaches_floating_point_tensors_and_keeps_the_parameters(
    tc: Any, convert: Callable[[Any], Any]
) -> None:
    ours, theirs = tc.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    parameters = list(ours.parameters())
    assert convert(ours) is ours
    convert(theirs)
    for name, value in theirs.state_dict().items():
        assert str(ours.state_dict()[name].dtype) == str(value.dtype)
    assert all(one is other for one, other in zip(ours.parameters(), parameters, strict=True))


def test_to_takes_dtype_device_and_tensor(tc: Any) -> None:
    layer = tc.nn.Linear(2, 1)
    assert layer.to(tc.float64).weight.dtype == tc.float64
    assert layer.to("cpu", tc.float16).weight.dtype == tc.float16
    assert layer.to(tc.ones(1)).weight.dtype == tc.float32
    assert layer(tc.ones(2)).dtype == tc.float32


def test_requires_grad_and_zero_grad_reach_all_parameters(tc: Any) -> None:
    layer = tc.nn.Linear(2, 1)
    layer(tc.ones(2)).sum().backward()
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad.tolist() == [[0.0, 0.0]]
    layer.zero_grad()
    assert layer.weight.grad is None
    layer.requires_grad_(False)
    assert not layer(tc.ones(2)).requires_grad


def test_a_parameter_prints_as_in_torch(tc: Any) -> None:
    assert repr(tc.nn.Parameter(tc.ones(2))) == repr(torch.nn.Parameter(torch.ones(2)))


def test_a_copied_parameter_is_a_parameter(tc: Any) -> None:
    parameter = tc.nn.Parameter(tc.ones(2), requires_grad=False)
    twin = copy.deepcopy(parameter)
    assert isinstance(twin, tc.nn.Parameter)
    assert not twin.requires_grad
    twin.fill_(2.0)
    assert parameter.tolist() == [1.0, 1.0]


# Hooks


def test_hooks_may_replace_what_comes_in_and_out(tc: Any) -> None:
    layer = tc.nn.ReLU()
    first = layer.register_forward_pre_hook(lambda module, args: args[0] - 1)
    second = layer.register_forward_hook(lambda module, args, output: output * 10)
    assert layer(tc.tensor([0.0, 3.0])).tolist() == [0.0, 20.0]
    first.remove()
    second.remove()
    assert layer(tc.tensor([0.0, 3.0])).tolist() == [0.0, 3.0]

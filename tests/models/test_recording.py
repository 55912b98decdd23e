"""Modules and functions as models: what is recorded of them, what their inputs and outputs are, and what is refused."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
Pair = collections.namedtuple("Pair", ["low", "high"])


@dataclasses.dataclass
class Both:
    """What some networks return."""

    one: Any
    other: Any = None


class Told(NamedTuple):
    """How a network that was read from a file describes an input."""

    name: str
    dtype: Any
    shape: tuple[int | str, ...]


def described(served: Any) -> str:
    """Inputs -> outputs."""
    return f"{', '.join(map(repr, served.inputs))} -> {', '.join(map(repr, served.outputs))}"


# What is given as inputs, for a network of two; and what becomes of it.
GIVEN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "names": (
        lambda m: (m.Input(("batch", 4)), m.Input(("batch", 4))),
        "x float32 (batch, 4), y float32 (batch, 4) -> output float32 (batch, 4)",
    ),
    "a list": (
        lambda m: [m.Input(["n", 4]), m.Input((4,), name="shift")],
        "x float32 (n, 4), shift float32 (4,) -> output float32 (n, 4)",
    ),
    "by name": (
        lambda m: {"y": m.Input(("n", 1)), "x": m.Input(("n", "m"))},
        "y float32 (n, 1), x float32 (n, m) -> output float32 (n, m)",
    ),
    "dimensions without a name": (
        lambda m: (m.Input((None, None)), m.Input(())),
        "x float32 (x_0, x_1), y float32 () -> output float32 (x_0, x_1)",
    ),
    "another dtype": (
        lambda m: (m.Input(("n", 4), np.float64), m.Input(("n", 4), "int64", high=9)),
        "x float64 (n, 4), y int64 (n, 4) -> output float64 (n, 4)",
    ),
    "bfloat16": (
        lambda m: (m.Input(("n", 4), "bfloat16"), m.Input(("n", 4), "bfloat16")),
        "x bfloat16 (n, 4), y bfloat16 (n, 4) -> output bfloat16 (n, 4)",
    ),
    "fixed sizes": (
        lambda m: (m.Input((3, 4)), m.Input((3, 4))),
        "x float32 (3, 4), y float32 (3, 4) -> output float32 (3, 4)",
    ),
    "examples": (
        lambda m: (ROWS, ROWS.tolist()),
        "x float32 (batch, 4), y float32 (batch, 4) -> output float32 (batch, 4)",
    ),
    "examples of which one is for all rows": (
        lambda m: (ROWS, ROWS[0]),
        "x float32 (3, 4), y float32 (4,) -> output float32 (3, 4)",
    ),
    "an example of elements": (
        lambda m: (m.Input(("n", 4), example=ROWS), m.Input((4,), example=ROWS[0])),
        "x float32 (n, 4), y float32 (4,) -> output float32 (n, 4)",
    ),
}


@pytest.mark.parametrize("case", GIVEN)
def test_inputs_are_what_they_are_said_to_be(tc: ModuleType, name: str, case: str) -> None:
    inputs, wanted = GIVEN[case]
    served = tc.models.create(name, lambda x, y: x.sub(y) * 2, inputs(tc.models))
    assert described(served) == wanted
    given = {
        each.name: tc.arange(12).to(each.dtype).reshape(3, 4)[tuple([0] * (2 - len(each.shape)))] * (position + 2)
        for position, each in enumerate(served.inputs)
    }
    if case == "by name":
        given["y"] = given["y"][:, :1]
    names = list(given)
    other = next(iter(name for name in names if name != "x"))
    wanted_values = (given["x"].sub(given[other]) * 2).float().numpy()
    for found in (served(*given.values()), served(**given), served(given[names[0]], **{names[1]: given[names[1]]})):
        assert found.dtype is served.outputs[0].dtype
        np.testing.assert_array_equal(found.float().numpy(), wanted_values)


def test_inputs_are_given_in_order_or_by_name(tc: ModuleType, name: str) -> None:
    served = tc.models.create(name, lambda x, y: x - y, (ROWS, ROWS))
    one, two = np.full((2, 4), 5, np.float32), np.full((2, 4), 3, np.float32)
    for found in (served(one, two), served(one, y=two), served(y=two, x=one), served(one.tolist(), two.tolist())):
        assert found.tolist() == [[2.0] * 4] * 2
    for found in (served(tc.from_numpy(one), two), served(one, y=tc.from_numpy(two))):
        assert isinstance(found, tc.Tensor)
        assert found.tolist() == [[2.0] * 4] * 2
    for args, named in (((one,), {}), ((one, two, two), {}), ((one, two), {"y": two}), ((one,), {"z": two}), ((), {})):
        with pytest.raises(TypeError, match=f"{name} takes x float32 .batch, 4., y float32 .batch, 4.; given are"):
            served(*args, **named)
    with pytest.raises(ValueError, match="x"):
        served(one[:, :3], two)
    with pytest.raises(ValueError, match="float64"):
        served(one.astype("f8"), two)
    with pytest.raises(ValueError, match="y"):
        served(tc.from_numpy(one), tc.from_numpy(two)[:1]).numpy()


OUTPUTS: dict[str, tuple[Callable[[Any], Any], list[str], type]] = {
    "one": (lambda x: x + 1, ["output"], np.ndarray),
    "a list of one": (lambda x: [x + 1], ["output"], np.ndarray),
    "one and nothing": (lambda x: (x + 1, None), ["output"], np.ndarray),
    "two": (lambda x: (x + 1, x.sum(1)), ["output_0", "output_1"], tuple),
    "within": (lambda x: (x + 1, (x.sum(1), [x - 1])), ["output_0", "output_1", "output_2"], tuple),
    "a dict": (lambda x: {"a": x + 1, "b": x.sum(1), "c": None}, ["a", "b"], dict),
    "a dict of one": (lambda x: {"a": x + 1}, ["a"], np.ndarray),
    "within a dict": (lambda x: {"a": (x + 1, x - 1), "b": {"c": x.sum(1)}}, ["a_0", "a_1", "b_c"], dict),
    "a named tuple": (lambda x: Pair(x + 1, x - 1), ["low", "high"], dict),
    "one of torch's": (lambda x: x.max(dim=1), ["values", "indices"], dict),
    "a dataclass": (lambda x: Both(x + 1, x - 1), ["one", "other"], dict),
    "an input": (lambda x: (x, x + 1), ["output_0", "output_1"], tuple),
    "the same twice": (lambda x: [x * 2] * 2, ["output_0", "output_1"], tuple),
    "a view of an input": (lambda x: x[:, :2], ["output"], np.ndarray),
}


def flat(result: Any) -> list[Any]:
    """All tensors and arrays of a result."""
    if isinstance(result, Both):
        result = [result.one, result.other]
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, (tuple, list)):
        return [each for part in result for each in flat(part)]
    return [] if result is None else [result if isinstance(result, np.ndarray) else result.numpy()]


@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_have_the_names_that_the_network_gives_them(tc: ModuleType, name: str, case: str) -> None:
    network, names, kind = OUTPUTS[case]
    served = tc.models.create(name, network, ROWS)
    assert [each.name for each in served.outputs] == names
    x = tc.from_numpy(ROWS)
    found = served(ROWS)
    assert type(found) is kind
    if isinstance(found, dict):
        assert list(found) == names
    for result in (found, served(x)):
        for one, other in zip(flat(result), flat(network(x)), strict=True):
            np.testing.assert_array_equal(one, other)
    # Who gets an output may write to it.
    again = served(x)
    for output in again.values() if kind is dict else again if kind is tuple else [again]:
        output.zero_()
    np.testing.assert_array_equal(x.numpy(), ROWS)


def test_weights_have_the_names_of_the_state_dict(tc: ModuleType, name: str) -> None:
    nn = tc.nn

    class Tied(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.register_buffer("scale", tc.full((4,), 2.0), persistent=False)
            self.outside = [tc.ones(4)]

        def forward(self, x: Any) -> Any:
            return self.second(self.first(x).relu()) * self.scale + self.outside[0]

    from tclient.models._created import served_program
    from tclient.models._network import Network

    module = Tied()
    session = tc._session.current.current()
    program, weights = served_program(module, ROWS, session)
    assert list(program.weights) == ["first.weight", "first.bias", "second.bias", "scale", "constant_0"]
    assert list(program.buffers) == ["scale", "constant_0"]
    assert len(weights) == 5
    around, _ = served_program(lambda x: module.first(x) + module.outside[0], ROWS, session)
    assert list(around.weights) == ["module.first.weight", "module.first.bias", "constant_0"]
    own, _ = served_program(module.forward, ROWS, session)
    assert list(own.weights) == list(program.weights)
    assert Network(module.first).weights.keys() < Network(module).weights.keys()
    served = tc.models.create(name, module, ROWS)
    wanted = module(tc.from_numpy(ROWS)).detach().numpy()
    with tc.no_grad():
        module.first.weight.zero_()
    np.testing.assert_allclose(served(ROWS), wanted, rtol=1e-6)


def test_a_network_is_left_as_it_was(tc: ModuleType, name: str) -> None:
    nn = tc.nn
    module = nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Linear(4, 2))
    )
    module[1].eval()
    module[3][1].eval()
    modes = [each.training for each in module.modules()]
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = tc.get_rng_state()
    x = tc.from_numpy(ROWS)
    served = tc.models.create(name, module, x)
    assert [each.training for each in module.modules()] == modes
    assert tc.equal(tc.get_rng_state(), state)
    assert all(tc.equal(value, before[key]) for key, value in module.state_dict().items())
    assert tc.is_grad_enabled()
    np.testing.assert_array_equal(x.numpy(), ROWS)
    np.testing.assert_allclose(served(ROWS), module.eval()(x).detach().numpy(), rtol=1e-6)


def test_code_of_the_caller_around_calls_is_no_hindrance(tc: ModuleType, name: str) -> None:
    nn = tc.nn

    class Double(tc.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * 2

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Any, extra: Any = None, times: int = 2) -> Any:
            assert x.is_floating_point()
            assert x.is_contiguous()
            for _ in range(times):
                x = self.relu(Double.apply(self.linear(x)))
            self.linear.weight.requires_grad_()
            half = x.new_zeros(x.shape[0], x.size(-1) // 2)
            with tc.autocast("cpu", dtype=tc.bfloat16):
                x = self.linear(x)
            return tc.cat([half, x.float()], dim=1)

    module = Net()
    module.linear.register_forward_hook(lambda module, args, output: output + 1)
    module.register_forward_pre_hook(lambda module, args: (args[0] * 3,))
    x = tc.from_numpy(ROWS)
    with tc.autocast("cpu", dtype=tc.bfloat16):
        served = tc.models.create(name, module, tc.models.Input(("batch", 4)))
    assert described(served) == "x float32 (batch, 4) -> output float32 (batch, 6)"
    np.testing.assert_allclose(served(ROWS), module(x).detach().numpy(), rtol=1e-6)
    compiled = tc.compile(lambda x: module(x) + 1)
    again = tc.models.create(name, compiled, x, version=2)
    np.testing.assert_allclose(again(ROWS), module(x).detach().numpy() + 1, rtol=1e-6)
    third = tc.models.create(name, tc.compile(module), x, version=3)
    np.testing.assert_allclose(third(ROWS), module(x).detach().numpy(), rtol=1e-6)
    assert repr(third).endswith(str(module))


def test_writing_to_an_input_writes_to_a_copy(tc: ModuleType, name: str) -> None:
    def network(x: Any) -> Any:
        x.view(-1).mul_(2)
        x[:, 0] = 7.0
        return x + 1

    served = tc.models.create(name, network, tc.models.Input(("n", 4)))
    x = tc.from_numpy(ROWS)
    wanted = network(x.clone()).numpy()
    for found in (served(ROWS), served(x).numpy(), served(x).numpy()):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(x.numpy(), ROWS)


def test_what_python_computes_of_sizes_is_computed_anew_for_each_request(tc: ModuleType, name: str) -> None:
    def network(x: Any) -> Any:
        batch, length, width = x.shape
        heads = x.reshape(batch * 2, length, width // 2)
        causal = tc.ones(length, length).tril()
        scores = (heads @ heads.transpose(1, 2) / float(length)).masked_fill(causal == 0, -1e9)
        mixed = (scores.softmax(-1) @ heads).view(batch, length * width)
        middle = x[:, length // 2 : length - 1 : 2].sum(1, keepdim=True).expand(batch, length + 1, width)
        pad = tc.nn.functional.pad(x, (0, 0, 0, 3 * length - 1))
        pad = pad.view(np.prod(pad.shape[:2]), width).view(batch, -1, width) + tc.tensor([length, batch, 0, 1])
        return mixed, middle, pad, tc.arange(length) * 2, x.chunk(2, dim=2)[1]

    served = tc.models.create(name, network, tc.models.Input(("batch", "length", 4)))
    assert described(served) == (
        "x float32 (batch, length, 4) -> output_0 float32 (batch, ?), output_1 float32 (batch, ?, 4), "
        "output_2 float32 (batch, ?, 4), output_3 int64 (length,), output_4 float32 (batch, length, 2)"
    )
    assert not served.describe().is_batched
    for batch, length in ((1, 1), (2, 50), (9, 4), (1, 13)):
        x = tc.rand(batch, length, 4)
        for one, other in zip(served(x.numpy()), network(x), strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)


def test_sizes_that_layers_divide_are_foretold_too(tc: ModuleType, name: str) -> None:
    nn = tc.nn
    body = nn.Sequential(*[nn.Conv2d(columns, 2, 3, 2, 1) for columns in (1, 2, 2)])

    def network(x: Any) -> Any:
        y = body(x)
        batch, channels, height, width = y.shape
        return y.view(batch, channels, height * width).transpose(1, 2), tc.arange(height)

    served = tc.models.create(name, network, tc.models.Input(("batch", 1, "height", "width")))
    assert described(served).endswith(" -> output_0 float32 (batch, ?, 2), output_1 int64 (?,)")
    for height, width in ((1, 1), (8, 9), (33, 64), (100, 17)):
        x = tc.rand(2, 1, height, width)
        for one, other in zip(served(x), network(x), strict=True):
            assert tc.allclose(one, other)


def test_rows_that_depend_on_each_other_are_run_alone(tc: ModuleType, new_name: Callable[[], str]) -> None:
    for network, together in (
        (lambda x: x - x.mean(0), False),
        (lambda x: x / x.abs().max(), False),
        (lambda x: x.flip(0), False),
        (lambda x: x.cumsum(0), False),
        (lambda x: x @ x.T, False),
        (lambda x: x.T, False),
        (lambda x: x[1:], False),
        (lambda x: x - x.mean(1, keepdim=True), True),
        (lambda x: x.flip(1), True),
    ):
        served = tc.models.create(new_name(), network, tc.models.Input(("batch", 4)))
        assert served.describe().is_batched is together
        assert ("no batching" in repr(served)) is not together
        np.testing.assert_allclose(served(ROWS), network(tc.from_numpy(ROWS)).numpy(), rtol=1e-6)


DERIVED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "Linear": (lambda nn: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.LayerNorm(3)), "input float32 (batch, 4)"),
    "double": (lambda nn: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)).double(), "input float64 (batch, 4)"),
    "Bilinear": (lambda nn: nn.Bilinear(4, 5, 3), "input1 float32 (batch, 4), input2 float32 (batch, 5)"),
    "Conv1d": (lambda nn: nn.Conv1d(2, 3, 3), "input float32 (batch, 2, length)"),
    "Conv2d": (
        lambda nn: nn.Sequential(
            nn.Identity(), nn.Sequential(nn.Conv2d(2, 3, 3, stride=2)), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        ),
        "input float32 (batch, 2, height, width)",
    ),
    "Conv3d": (lambda nn: nn.Conv3d(2, 3, 9), "input float32 (batch, 2, depth, height, width)"),
    "ConvTranspose2d": (lambda nn: nn.ConvTranspose2d(2, 3, 3), "input float32 (batch, 2, height, width)"),
    "Embedding": (lambda nn: nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 2)), "input int64 (batch, length)"),
    "RNN": (lambda nn: nn.RNN(4, 3), "input float32 (length, batch, 4)"),
    "LSTM": (lambda nn: nn.LSTM(4, 3, 2, batch_first=True), "input float32 (batch, length, 4)"),
    "GRU": (lambda nn: nn.GRU(4, 3, bidirectional=True), "input float32 (length, batch, 4)"),
    "LSTMCell": (lambda nn: nn.LSTMCell(4, 3), "input float32 (batch, 4)"),
    "MultiheadAttention": (
        lambda nn: nn.MultiheadAttention(4, 2, batch_first=True, kdim=3),
        "query float32 (batch, length, 4), key float32 (batch, keys, 3), value float32 (batch, keys, 4)",
    ),
    "TransformerEncoder": (
        lambda nn: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2),
        "src float32 (batch, length, 4)",
    ),
    "TransformerDecoderLayer": (
        lambda nn: nn.TransformerDecoderLayer(4, 2, 8),
        "tgt float32 (length, batch, 4), memory float32 (source, batch, 4)",
    ),
    "Transformer": (
        lambda nn: nn.Transformer(4, 2, 1, 1, 8, batch_first=True),
        "src float32 (batch, source, 4), tgt float32 (batch, target, 4)",
    ),
}


@pytest.mark.parametrize("case", DERIVED)
def test_a_first_layer_says_what_a_network_takes(tc: ModuleType, name: str, case: str) -> None:
    make, wanted = DERIVED[case]
    served = tc.models.create(name, make(tc.nn))
    assert described(served).partition(" -> ")[0] == wanted


def test_a_network_that_describes_its_inputs_is_asked(tc: ModuleType, name: str) -> None:
    class Read(tc.nn.Module):  # type: ignore[misc, name-defined]
        inputs = (Told("a", tc.float32, ("N", 4)), Told("b", tc.int64, ("N",)))

        def forward(self, *given: Any) -> Any:
            return given[0].sum(1) + given[1]

        outputs = (Told("sum", tc.float32, ("N",)),)

    served = tc.models.create(name, Read())
    assert described(served) == "a float32 (N, 4), b int64 (N,) -> sum float32 (N,)"
    assert served(a=ROWS, b=np.arange(3)).tolist() == (ROWS.sum(1) + np.arange(3)).tolist()
    assert served.describe().is_batched


def test_the_default_dtype_is_that_of_the_session(tc: ModuleType, name: str) -> None:
    tc.set_default_dtype(tc.float64)
    served = tc.models.create(name, lambda x: x + tc.ones(4), tc.models.Input(("n", 4), tc.float64))
    assert served.outputs[0].dtype is tc.float64
    assert served(ROWS.astype("f8")).dtype == np.float64


def test_large_arrays_and_small_ones_have_the_same_outputs(tc: ModuleType, name: str) -> None:
    served = tc.models.create(name, lambda x, y: {"sum": x + y, "wide": x.repeat(1, 50)}, (ROWS, ROWS))
    rows = np.ones((60_000, 4), np.float32)
    large = served(rows, rows)
    assert {key: value.shape for key, value in large.items()} == {"sum": (60_000, 4), "wide": (60_000, 200)}
    few = served(rows[:9000], rows[:9000])
    assert few["wide"].shape == (9000, 200)
    with pytest.raises(ValueError, match="too large for a message"):
        served(rows, rows, timeout_s=5.0)
    with pytest.raises(ValueError, match="a tensor is not queued"):
        served(tc.from_numpy(rows), rows, timeout_s=5.0)


def test_tensors_are_run_in_their_place_and_nothing_waits(tc: ModuleType, name: str) -> None:
    served = tc.models.create(name, lambda x: (x + 1, x - 1), ROWS)
    x = tc.from_numpy(ROWS)
    tc.synchronize()
    stats = tc._session.current.current().stats
    waits = stats.waits
    up, _ = served(x)
    x.zero_()
    zeros, _ = served(x)
    assert stats.waits == waits
    np.testing.assert_array_equal(up.numpy(), ROWS + 1)
    np.testing.assert_array_equal(zeros.numpy(), np.ones_like(ROWS))


def loop(x: Any) -> Any:
    """As many calls as there are columns."""
    total = 0
    for column in range(x.shape[1]):
        total = total + x[:, column]
    return total


def two_ways(x: Any) -> Any:
    """Another way where there is one column."""
    return x * 2 if x.shape[1] == 1 else x * 3


def with_generator(t: Any) -> Callable[[Any], Any]:
    """Numbers of a source of their own."""
    generator = t.Generator()
    return lambda x: t.rand(4, generator=generator) + x


N4, NM = ("n", 4), ("n", "m")
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Any, str]] = {
    "random numbers": (lambda t: lambda x: x * t.rand(4), N4, "`rand` draws random numbers"),
    "dropout": (lambda t: t.nn.functional.dropout, N4, "`nn.functional.dropout` draws random numbers"),
    "an item": (lambda t: lambda x: x * x.sum().item(), N4, "`Tensor.item` reads a value"),
    "a condition": (lambda t: lambda x: x if x.sum() > 0 else -x, N4, "`Tensor.__bool__` reads a value"),
    "an array": (lambda t: lambda x: t.tensor(x.numpy()), N4, "`numpy` reads a value"),
    "a mask": (lambda t: lambda x: x[x > 0], N4, "`Tensor.__getitem__` gives a result whose size depends on the elem"),
    "nonzero": (lambda t: t.nonzero, N4, "`nonzero` gives a result whose size depends on the elements"),
    "where": (lambda t: lambda x: t.where(x > 0), N4, "`where` gives a result whose size depends on the elements"),
    "a large array": (
        lambda t: lambda x: x + t.tensor(np.ones((300, 300)))[0, :4],
        N4,
        "`tensor` takes 720.* bytes of this process's data; make a buffer",
    ),
    "a seed": (lambda t: lambda x: (t.manual_seed(0), x)[1], N4, "`manual_seed` changes the session"),
    "gradients": (
        lambda t: lambda x: t.autograd.grad(x.sum(), x)[0],
        N4,
        "`autograd.grad` is about gradients",
    ),
    "another model": (
        lambda t: lambda x: t._issue.call_builtin("tc.model_forward", "other", 0, x),
        N4,
        "`tc.model_forward` is more than an operation",
    ),
    "a generator": (with_generator, N4, "`rand` takes a Generator"),
    "a number": (lambda t: lambda x: (x, 3), N4, "it returns the int 3 as 1, which is no tensor"),
    "nothing": (lambda t: lambda x: None, N4, "it returns no tensor, but the NoneType None"),
    "a loop": (lambda t: loop, NM, "`Tensor.__getitem__` is made for some sizes only, at .*: ?|.*m=5.*m=7"),
    "a square root": (lambda t: lambda x: x / x.shape[1] ** 0.5, NM, "takes a number that differs .2.2.*no whole one"),
    "a rest": (lambda t: lambda x: x[:, : 1 + x.shape[1] % 3], NM, "no simple formula"),
    "an equation": (lambda t: lambda x: t.full((2,), "ab"[x.shape[1] % 2] == "a"), NM, "a boolean that differs"),
    "two ways": (lambda t: two_ways, NM, "gives another output than the network itself at n=3, m=1"),
    "a squeeze": (lambda t: lambda x: x.squeeze(), NM, r"shape \(3, 5\) at n=3, m=5, but .*n=1.*squeeze\(dim\)"),
    "a size that is fixed": (
        lambda t: lambda x: x @ t.ones(6, 2),
        NM,
        r"does not run at n=3, m=5 .`Tensor.__matmul__` at .*test_recording.py:\d+.: .*Give the sizes that are fixed",
    ),
    "sizes that are equal": (
        lambda t: lambda x: x @ x,
        NM,
        "does not run at n=3, m=5 .*one name to dimensions that are always equal",
    ),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_what_cannot_be_served_is_refused_with_the_line(tc: ModuleType, name: str, case: str) -> None:
    make, shape, naming = FUNCTIONS[case]
    state = tc.get_rng_state()
    with pytest.raises(TypeError, match=f"cannot be served.*({naming})") as failed:
        tc.models.create(name, make(tc), tc.models.Input(shape))
    assert "test_recording.py:" in str(failed.value) or case in ("a number", "nothing", "two ways", "a squeeze")
    if case != "a seed":
        assert tc.equal(tc.get_rng_state(), state)
    tc.synchronize()  # nothing is left that would be told later


def test_a_dimension_that_cannot_vary_is_named(tc: ModuleType, name: str) -> None:
    positions = tc.nn.Embedding(5, 4)

    def network(x: Any, y: Any) -> Any:
        return x + positions(tc.arange(x.shape[1])) + y

    inputs = tc.models.Input(("n", "m", 4))
    with pytest.raises(TypeError, match=r"a dimension 'm' that varies: .* but not at m=6 .*Give its size as a number"):
        tc.models.create(name, lambda x: network(x, tc.zeros(1, 5, 4)), inputs)
    # Up to 5 positions there are, and fewer will do.
    served = tc.models.create(name, lambda x: network(x, tc.zeros(1)), inputs)
    assert served(np.ones((2, 3, 4), np.float32)).shape == (2, 3, 4)
    with pytest.raises(ValueError, match="index out of range"):
        served(np.ones((2, 6, 4), np.float32))


def test_the_layer_that_cannot_be_served_is_named(tc: ModuleType, name: str) -> None:
    nn = tc.nn

    class Noisy(nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x + tc.randn_like(x)

    class Counts(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", tc.zeros(1))

        def forward(self, x: Any) -> Any:
            self.count.view(-1).add_(1)
            return x / self.count

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, last: Any) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), last)

        def forward(self, x: Any) -> Any:
            return self.body(x)

    for last, naming in (
        (Noisy(), r"Net cannot be served: `randn_like` draws .*test_recording.py:\d+, in body.2 \(Noisy\)"),
        (Counts(), r"`Tensor.add_` writes to body.2.count, at .*, in body.2 \(Counts\)"),
        (nn.Embedding(4, 4, max_norm=1.0), r"does not run|`nn.functional.embedding` writes to body.2.weight"),
        (nn.Linear(5, 4), r"does not run at batch=3 \(`nn.functional.linear` at"),
    ):
        with pytest.raises(TypeError, match=naming):
            tc.models.create(name, Net(last), tc.models.Input(("batch", 4)))
    counts = Counts()
    with pytest.raises(TypeError, match="writes to count"):
        tc.models.create(name, counts, ROWS)
    assert counts.count.item() == 0


UNSAID: dict[str, tuple[Callable[[Any], Any], Any, str]] = {
    "a module": (
        lambda t: t.nn.Sequential(t.nn.BatchNorm2d(3), t.nn.ReLU()),
        None,
        r"`0 \(BatchNorm2d\)`, its first layer, does not say what it takes; give "
        r"inputs=\(models.Input\(\(\"batch\", …\)\),\) for input",
    ),
    "a function": (
        lambda t: lambda x, y: x,
        None,
        "a function, which does not say what it takes; give inputs=.* for x, y",
    ),
    "a compiled one": (lambda t: t.compile(lambda x: x), None, "does not say what it takes; give inputs="),
    "a compiled module": (lambda t: t.compile(t.nn.ReLU()), None, "`ReLU` does not say what it takes; give inputs="),
    "too few": (lambda t: lambda x, y: x, ROWS, "does not take these inputs: missing a required argument: 'y'"),
    "too many": (lambda t: lambda x: x, (ROWS, ROWS), "does not take these inputs: too many positional arguments"),
    "another name": (lambda t: lambda x: x, {"y": ROWS}, "does not take these inputs"),
    "none": (lambda t: lambda x: x, (), "cannot be served without an input"),
    "no shape": (lambda t: t.nn.LazyLinear(3), ROWS, "weight has no shape yet; call the network once"),
    "a text": (lambda t: lambda x: x, "rows", "an example is a tensor or an array of numbers, not str"),
    "inputs of layers": (
        lambda t: [(np.ones((2, 4)), None, None)],
        ROWS,
        "layers that are given one by one take no inp",
    ),
}


@pytest.mark.parametrize("case", UNSAID)
def test_inputs_that_are_missing_or_wrong_are_refused_with_the_remedy(tc: ModuleType, name: str, case: str) -> None:
    make, inputs, naming = UNSAID[case]
    with pytest.raises(TypeError, match=naming):
        tc.models.create(name, make(tc), inputs)


def test_descriptions_of_inputs_are_checked(tc: ModuleType, name: str) -> None:
    given = tc.models.Input(("batch", None, 3), "int64", high=9, example=np.ones((2, 2, 3), int))
    assert repr(given) == "Input(('batch', None, 3), torch.int64, high=9, example=…)"
    for arguments, kind, naming in (
        ((3,), TypeError, "shape is a tuple"),
        (((0, 3),), TypeError, "a dimension is a positive number, a name or None, not 0"),
        (((2.5,),), TypeError, "not 2.5"),
        (((2,), "float31"), TypeError, "not 'float31'"),
    ):
        with pytest.raises(kind, match=naming):
            tc.models.Input(*arguments)
    with pytest.raises(ValueError, match="2 dimensions, the shape 1"):
        tc.models.Input(("n",), example=ROWS)
    with pytest.raises(ValueError, match="two inputs have the name 'x'"):
        tc.models.create(name, lambda x, y: x + y, (ROWS, tc.models.Input((3, 4), name="x")))
    with pytest.raises(TypeError, match=r"convert the network before: net.to\(dtype\)"):
        tc.models.create(name, lambda x: x, ROWS, dtype=tc.float64)

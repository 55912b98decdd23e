"""Names of torch that libraries use beside their work: trees, lists of tensors, functional calls, checks, marks."""

from __future__ import annotations

import importlib
from collections import OrderedDict, defaultdict, deque, namedtuple
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.semantics.harness import Watch, assert_same

Pair = namedtuple("Pair", "first second")


def trees(m: Any, t: Watch) -> None:
    tree = importlib.import_module(f"{m.__name__}.utils._pytree")
    nested: dict[str, Any] = {
        "b": [m.ones(1), 2],
        "a": (None, OrderedDict(x=1)),
        "d": deque([1, 2], 4),
        "e": defaultdict(int, {"q": 3}),
        "n": Pair(1, [2]),
    }
    leaves, spec = tree.tree_flatten(nested)
    t.show(leaves, str(spec), spec.num_leaves, spec.num_nodes, spec == tree.tree_structure(nested))
    t.show(repr(tree.tree_unflatten(range(9), spec)), tree.tree_leaves(3), tree.tree_is_leaf([]))
    t.show(tree.tree_map(lambda a, b: (a, b), [1, {"k": 2}], [3, {"k": 4}]))
    t.show(tree.tree_map_only(int, lambda a: a + 1, [1, "x", (2.0, 3)]))
    t.show(tree.tree_any(lambda leaf: leaf == 2, [1, [2]]), tree.tree_all(lambda leaf: leaf == 2, [1, [2]]))
    t.tries(
        lambda: tree.tree_unflatten([1], tree.tree_structure([1, 2])),
        lambda: tree.tree_map(lambda a, b: a, [1, 2], [1]),
    )


def lists_of_tensors(m: Any, t: Watch) -> None:
    xs = [m.tensor([1.0, 4.0]), m.tensor([[9.0]])]
    ys = [m.tensor([2.0, 3.0]), m.tensor([[5.0]])]
    for name in ("sqrt", "neg", "abs", "reciprocal", "sign", "exp"):
        t.show(getattr(m, f"_foreach_{name}")(xs))
    for name in ("add", "sub", "mul", "div", "maximum", "minimum"):
        t.show(getattr(m, f"_foreach_{name}")(xs, ys), getattr(m, f"_foreach_{name}")(xs, 2.0))
    t.show(m._foreach_add(xs, ys, alpha=3), m._foreach_mul(xs, [2.0, 3.0]), m._foreach_pow(xs, 2))
    t.show(m._foreach_addcmul(xs, ys, ys, value=0.5), m._foreach_addcdiv(xs, ys, ys, [1.0, 2.0]))
    t.show(m._foreach_lerp(xs, ys, 0.25), m._foreach_norm(xs), m._foreach_pow(2.0, ys), m._foreach_clamp_min(xs, 2.0))
    m._foreach_mul_(xs, 2)
    m._foreach_add_(xs, ys, alpha=-1)
    m._foreach_sqrt_(ys)
    m._foreach_copy_([xs[0]], [ys[0]])
    m._foreach_zero_([xs[1]])
    t.show(xs, ys)
    t.refuses(lambda: m._foreach_add(xs, ys[:1]))


def functional_calls(m: Any, t: Watch) -> None:
    func = importlib.import_module(f"{m.__name__}.func")
    m.manual_seed(2)
    net = m.nn.Sequential(m.nn.Linear(2, 3), m.nn.BatchNorm1d(3), m.nn.Linear(3, 1))
    x = m.tensor([[1.0, 2.0], [3.0, -4.0]])
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    before = net(x)
    out = func.functional_call(net, {**weights, "0.bias": m.zeros(3)}, (x,))
    out.sum().backward()
    t.show(before, out, weights["2.weight"].grad, net[2].weight.grad, net[1].num_batches_tracked)
    t.show(func.functional_call(net, (weights, {"1.running_mean": m.ones(3)}), x), net[1].running_mean)
    t.show(func.functional_call(m.nn.Linear(2, 1), {"bias": m.ones(1), "weight": m.ones(1, 2)}, kwargs={"input": x}))
    t.tries(
        lambda: func.functional_call(net, ({"0.bias": m.ones(3)}, {"0.bias": m.ones(3)}), x),
        lambda: func.functional_call(net, 3, x),
    )
    t.refuses(lambda: func.functional_call(net, {"nothing": m.ones(3)}, x, strict=True))
    tied = m.nn.ModuleDict({"a": m.nn.Linear(2, 2, bias=False), "b": m.nn.Linear(2, 2, bias=False)})
    tied["b"].weight = tied["a"].weight
    tied.forward = lambda x: tied["b"](tied["a"](x))
    t.show(func.functional_call(tied, {"a.weight": 2 * m.eye(2)}, x))


def checks(m: Any, t: Watch) -> None:
    t.tries(
        lambda: m._assert(False, "m"),
        lambda: m._assert(m.tensor(False), "m"),
        lambda: m._assert(m.tensor(True), "m"),
        lambda: m._assert_async(m.tensor(False), "m2"),
        lambda: m._assert_async(m.tensor(0)),
        lambda: m._assert_async(m.tensor(1)),
        lambda: m._check(False),
        lambda: m._check(False, lambda: "no"),
        lambda: m._check(1),
        lambda: m._check(False, "no"),
        lambda: m._check_value(False),
        lambda: m._check_index(False, lambda: "index"),
        lambda: m._check_type(True),
        lambda: m._check_not_implemented(False),
        lambda: m._check_tensor_all(m.tensor([True, False]), lambda: "all"),
        lambda: m._shape_as_tensor(m.ones(2, 3)),
    )


def buffers(m: Any, t: Watch) -> None:
    held = bytearray(range(1, 9))
    t.show(m.frombuffer(held, dtype=m.int16), m.frombuffer(held, dtype=m.uint8, count=2, offset=3))
    t.show(m.frombuffer(np.arange(3.0), dtype=m.float64, requires_grad=True))
    t.tries(
        lambda: m.frombuffer(bytearray(), dtype=m.int16),
        lambda: m.frombuffer(held, dtype=m.int16, count=0),
        lambda: m.frombuffer(held, dtype=m.int16, offset=1),
        lambda: m.frombuffer(held, dtype=m.int16, count=5),
        lambda: m.frombuffer(held, dtype=m.int16, offset=8),
        lambda: m.frombuffer(3, dtype=m.int16),
    )


def autocast_settings(m: Any, t: Watch) -> None:
    t.show(m.get_autocast_dtype("cpu"), m.get_autocast_dtype("cuda"), m.is_autocast_cache_enabled())
    with m.autocast("cpu", dtype=m.float16, cache_enabled=False):
        t.show(m.get_autocast_dtype("cpu"), m.is_autocast_enabled("cpu"), m.is_autocast_cache_enabled())


def marks(m: Any, t: Watch) -> None:
    for name in ("compiler", "fx", "hub", "library", "nn.attention", "nn.modules.utils", "utils.hooks"):
        importlib.import_module(f"{m.__name__}.{name}")
    sizes, attention = m.nn.modules.utils, m.nn.attention

    @m.compiler.disable  # type: ignore[untyped-decorator]
    def twice(x: Any) -> Any:
        return 2 * x

    with attention.sdpa_kernel([attention.SDPBackend.MATH]):
        t.show(twice(m.ones(2)), m.compiler.is_compiling(), attention.SDPBackend.MATH.name)
    t.show(sizes._pair(3), sizes._triple([1, 2, 3]), sizes._reverse_repeat_tuple((1, 2), 2))
    t.show(sizes._list_with_default([None, 2], [7, 8, 9]), m.nn.init._calculate_fan_in_and_fan_out(m.ones(2, 3, 4)))
    t.show(isinstance(m.nn.ReLU().register_forward_hook(print), m.utils.hooks.RemovableHandle))
    t.tries(lambda: sizes._list_with_default([None, 2], [7]), lambda: attention.sdpa_kernel("math").__enter__())


def futures(m: Any, t: Watch) -> None:
    importlib.import_module(f"{m.__name__}.futures")
    first, second = m.futures.Future(), m.futures.Future()
    both = m.futures.collect_all([first, second])
    after = first.then(lambda done: done.value() + 1)
    t.show(first.done(), both.done())
    first.set_result(m.ones(2))
    second.set_result(3)
    t.show(first.wait(), after.wait(), both.done(), [each.value() for each in both.wait()])
    t.show(m.futures.wait_all([first, second]), m.futures.collect_all([]).done())
    failed = first.then(lambda done: done.nothing)
    t.refuses(lambda: first.set_result(1), lambda: failed.wait(), lambda: m.futures.Future().value())


def scripted_modules(m: Any, t: Watch) -> None:
    importlib.import_module(f"{m.__name__}.jit")

    class Mine(m.jit.ScriptModule):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x + 1

    t.show(isinstance(m.nn.ReLU(), m.jit.ScriptModule), isinstance(Mine(), m.jit.ScriptModule), Mine()(m.ones(2)))
    t.show(type(importlib.import_module(f"{m.__name__}.__config__").show()) is str)


@pytest.mark.parametrize(
    "program",
    [trees, lists_of_tensors, functional_calls, checks, buffers, autocast_settings, marks, futures, scripted_modules],
)
def test_they_are_as_torch_has_them(program: Any, tc: ModuleType) -> None:
    assert_same(program, tc, synchronous=False)


def test_the_folder_of_fetched_weights_is_torch_s(
    tc: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    import torch

    hub = importlib.import_module("tclient.hub")
    for home in (None, str(tmp_path)):
        if home:
            monkeypatch.setenv("TORCH_HOME", home)
        assert hub.get_dir() == torch.hub.get_dir()
    served = tmp_path / "net-0000.pth"
    torch.save({"w": torch.arange(3.0)}, served)
    loaded = hub.load_state_dict_from_url(served.as_uri())
    assert loaded["w"].tolist() == [0.0, 1.0, 2.0]
    assert (tmp_path / "hub" / "checkpoints" / served.name).exists()
    with pytest.raises(RuntimeError, match="invalid hash value"):
        hub.load_state_dict_from_url(served.as_uri(), str(tmp_path / "again"), check_hash=True)


def test_an_operator_of_the_caller_s_has_the_gradient_that_was_registered(tc: Any) -> None:
    def outcome(m: Any, name: str) -> list[list[float]]:
        @m.library.custom_op(f"tests::{name}", mutates_args=())  # type: ignore[untyped-decorator]
        def twice(x: torch.Tensor, times: float = 2.0) -> torch.Tensor:
            return x * times

        def set_up(ctx: Any, inputs: Any, output: Any) -> None:
            x, ctx.times = inputs
            ctx.save_for_backward(x)

        def backward(ctx: Any, gradient: Any) -> Any:
            (x,) = ctx.saved_tensors
            return gradient * ctx.times * 10 + x, None

        m.library.register_autograd(f"tests::{name}", backward, setup_context=set_up)
        x = m.tensor([1.0, 2.0], requires_grad=True)
        y = twice(x, times=3.0)
        y.sum().backward()
        return [y.tolist(), x.grad.tolist()]

    assert outcome(tc, "ours") == outcome(torch, "theirs") == [[3.0, 6.0], [31.0, 32.0]]

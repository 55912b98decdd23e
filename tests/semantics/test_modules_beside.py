"""Modules of torch that scripts import beside their work, and what they find there."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest

from tests.semantics.harness import Watch, assert_same


def modules_beside(m: Any, t: Watch) -> None:
    for name in ("jit", "multiprocessing", "distributed", "version", "types", "accelerator", "mps", "xpu", "signal"):
        importlib.import_module(f"{m.__name__}.{name}")
    t.show(m.jit.is_scripting(), m.jit.is_tracing(), m.distributed.is_initialized(), m.version.cuda, m.version.hip)
    t.show(m.mps.is_available(), m.mps.device_count(), m.xpu.is_available(), m.xpu.device_count())
    t.show(m.multiprocessing.cpu_count(), m.multiprocessing.get_sharing_strategy(), m.version.debug)
    t.show(m.types.Number == (int | float | bool), m.types.Tensor is m.Tensor, m.types._dtype is m.dtype)
    t.show(m.accelerator.is_available(), m.accelerator.device_count(), m.accelerator.current_accelerator())
    t.tries(
        lambda: m.distributed.get_rank(),
        lambda: m.distributed.get_world_size(),
        lambda: m.distributed.barrier(),
        lambda: m.accelerator.synchronize(),
        lambda: m.accelerator.current_device_index(),
    )


def marked_code(m: Any, t: Watch) -> None:
    class Net(m.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.scale = m.nn.Parameter(m.full((2,), 3.0))

        def forward(self, x: Any) -> Any:
            return self.helper(x) * self.scale

        @m.jit.export  # type: ignore[untyped-decorator]
        def helper(self, x: Any) -> Any:
            return x + 1

        @m.jit.ignore  # type: ignore[untyped-decorator]
        def one(self, x: Any) -> Any:
            return x

        @m.jit.unused  # type: ignore[untyped-decorator]
        def other(self, x: Any) -> Any:
            return x

    x = m.ones(2)
    net = Net()
    t.show(net(x), m.jit.trace(m.nn.ReLU(), x)(x), net.one(x), net.other(x))


def forked_random_state(m: Any, t: Watch) -> None:
    m.manual_seed(4)
    with m.random.fork_rng():
        m.manual_seed(9)
        t.show(m.rand(2))
    t.show(m.rand(2))
    with m.random.fork_rng(enabled=False):
        m.manual_seed(9)
    t.show(m.rand(2))
    try:
        with m.random.fork_rng(devices=[]):
            m.rand(3)
            raise KeyError
    except KeyError:
        t.show(m.rand(2))


@pytest.mark.parametrize("program", [modules_beside, marked_code, forked_random_state], ids=lambda p: p.__name__)
def test_modules_beside_are_torch_s(tc: ModuleType, program: Any) -> None:
    if tc.cuda.is_available():
        pytest.skip("the oracle is a torch without a GPU")
    assert_same(program, tc, synchronous=False)


def test_code_to_be_compiled_stays_as_it_is(tc: ModuleType) -> None:
    def double(x: Any) -> Any:
        return x * 2

    assert tc.jit.script(double) is double
    assert tc.jit.ignore(drop=True)(double) is double
    assert tc.compile(double, disable=True) is double
    kinds: list[dict[str, Any]] = [{"mode": "reduce-overhead"}, {"fullgraph": True, "backend": "inductor"}]
    for options in kinds:
        assert tc.compile(double, **options)(tc.ones(1)).item() == 2
        assert tc.compile(**options)(double)(tc.ones(1)).item() == 2
    with pytest.raises(RuntimeError, match="both can't be specified"):
        tc.compile(double, mode="default", options={"a": 1})
    with pytest.raises(RuntimeError, match="Unrecognized mode=nope, should be one of: default"):
        tc.compile(double, mode="nope")


def test_what_cannot_be_served_says_so_at_its_use(tc: ModuleType) -> None:
    assert tc.distributed.is_available() is False
    with pytest.raises(RuntimeError, match="there are no groups of processes"):
        tc.distributed.init_process_group("gloo", rank=0, world_size=1)
    with pytest.raises(RuntimeError, match="state_dict"):
        tc.onnx.export(tc.nn.Linear(1, 1), (tc.ones(1),), "model.onnx")
    for module, name in ((tc.hub, "load"), (tc.jit, "save"), (tc.distributed, "all_reduce"), (tc, "while_loop")):
        with pytest.raises(AttributeError, match=f"no attribute '{name}': "):
            getattr(module, name)


def test_all_rooms_are_listed(tc: ModuleType) -> None:
    assert {"nn", "optim", "utils", "models", "testing", "jit", "backends", "zeros", "cuda"} <= set(dir(tc))


def test_a_formatted_element_is_waited_for_once(tc: ModuleType, server: Any) -> None:
    with tc.connect(server.address) as session:
        x = (tc.ones(3) * 2).sum()
        assert f"{x:.3f}" == "6.000"
        assert session.stats.waits == 1
        assert f"{x.requires_grad_():.1f} {x}" == "6.0 6.0"
        grown = tc.ones(2) + 1
        assert f"{grown}" == "tensor([2., 2.])"
        with pytest.raises(TypeError, match="unsupported format string"):
            f"{tc.ones(2) + 1:.3f}"
        with pytest.raises(RuntimeError, match="size"):
            f"{(tc.ones(2) + tc.ones(3)).sum():.2f}"
        session.synchronize()

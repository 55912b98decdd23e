"""A session on two real GPUs, beside torch on the same two."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.serving import ServerProcess

if torch.cuda.device_count() < 2:
    pytest.skip("needs two CUDA devices: docs/gpu.md", allow_module_level=True)


@pytest.fixture(scope="module")
def both() -> Iterator[ServerProcess]:
    """A server whose engine holds two GPUs. It must be the same process at the end as at the beginning."""
    with ServerProcess("--devices-per-engine", "2", device="cuda") as running:
        pid = running.engine_pid()
        yield running
        assert running.engine_pid() == pid, f"the server was started again\n{running.log()}"


@pytest.fixture
def two(both: ServerProcess) -> Iterator[Any]:
    """The client with a session on both."""
    import tclient

    with tclient.connect(both.address):
        yield tclient
    tclient.cuda.set_device(-1)


def told(program: Callable[[Any], Any], m: Any) -> Any:
    """What a program gives, or how it fails: where tensors are, and their elements."""
    m.cuda.set_device(0)
    try:
        found = program(m)
        found = found if isinstance(found, (tuple, list)) else (found,)
        return [
            (str(each.device), each.detach().cpu().tolist()) if isinstance(each, m.Tensor) else str(each)
            for each in found
        ]
    except Exception as error:
        return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"), str(error)
    finally:
        m.cuda.set_device(0)


def moved(m: Any) -> Any:
    """There, back, and by way of the host."""
    x = m.arange(6.0, device="cuda:0").reshape(2, 3)
    y = x.to("cuda:1") * 2
    return x, y, y.to("cuda:0") + x, y.cpu(), y.t().contiguous().cuda(0), x.cpu().cuda(1), y.to(0), m.ones(1).to(1)


def current(m: Any) -> Any:
    """Which one "cuda" means."""
    with m.cuda.device(1):
        x = m.ones(2, device="cuda")
        with m.cuda.device(0):
            y = m.ones(2, device="cuda")
        z = m.ones(2).cpu().cuda()
    return x, y, z, m.ones(2, device="cuda"), m.cuda.current_device(), m.cuda.device_count()


def seeded(m: Any) -> Any:
    """Numbers of both."""
    m.manual_seed(3)
    first = [m.rand(4, device=place) for place in ("cuda:0", "cuda:1", "cpu")]
    with m.cuda.device(1):
        m.cuda.manual_seed(7)
    state = m.cuda.get_rng_state(1)
    second = [m.rand(4, device=place) for place in ("cuda:0", "cuda:1", "cpu")]
    m.cuda.set_rng_state(state, 1)
    generator = m.Generator(device="cuda:1").manual_seed(5)
    return (
        *first,
        *second,
        m.rand(4, device="cuda:1"),
        m.rand(3, device="cuda:1", generator=generator),
        m.cuda.initial_seed(),
    )


def trained(m: Any) -> Any:
    """A network whose halves are on two GPUs."""
    m.manual_seed(1)
    first = m.nn.Sequential(m.nn.Linear(4, 16), m.nn.Tanh()).to("cuda:0")
    second = m.nn.Linear(16, 1).to("cuda:1")
    optimizer = m.optim.Adam([*first.parameters(), *second.parameters()], lr=0.05)
    x = m.linspace(-1, 1, 64, device="cuda:0").reshape(16, 4)
    target = x.sum(1, keepdim=True).to("cuda:1")
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = m.nn.functional.mse_loss(second(first(x).to("cuda:1")), target)
        loss.backward()
        optimizer.step()
        losses.append(round(loss.item(), 4))
    gradient = first[0].weight.grad
    return losses, str(gradient.device), str(second.weight.grad.device), losses[-1] < losses[0] / 2


def other_whole(m: Any) -> Any:
    """A network on the second GPU."""
    m.manual_seed(1)
    network = m.nn.Sequential(m.nn.Linear(4, 8), m.nn.BatchNorm1d(8), m.nn.ReLU()).to("cuda:1")
    return network(m.ones(3, 4, device="cuda:1")), network[1].running_mean


PROGRAMS = {
    "moved": moved,
    "the current one": current,
    "random numbers": seeded,
    "halves of a network": trained,
    "a network": other_whole,
    "a sum of both": lambda m: m.ones(2, device="cuda:0") + m.ones(2, device="cuda:1"),
    "a product of both": lambda m: m.ones(2, 2, device="cuda:0") @ m.ones(2, 2, device="cuda:1"),
    "one after the other": lambda m: m.cat([m.ones(2, device="cuda:0"), m.ones(2, device="cuda:1")]),
    "a network elsewhere": lambda m: m.nn.Linear(2, 2).to("cuda:1")(m.ones(1, 2, device="cuda:0")),
    "an index elsewhere": lambda m: m.ones(4, device="cuda:0")[m.tensor([1], device="cuda:1")],
    "a number on the host": lambda m: m.ones(2, device="cuda:1") + m.tensor(3.0, device="cpu"),
    "names": lambda m: [m.cuda.get_device_name(index) for index in (0, 1)],
    "no name": lambda m: m.cuda.get_device_name(99),
    "no current one": lambda m: m.cuda.set_device(99),
    "no tensor": lambda m: m.ones(2, device="cuda:99"),
    "not moved": lambda m: m.ones(2).to("cuda:99"),
    "no memory": lambda m: m.cuda.memory_allocated(99),
    "no wait": lambda m: m.cuda.synchronize(99),
    "no random state": lambda m: m.cuda.get_rng_state(99),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_program_on_two_gpus_gives_what_torch_gives(program: Callable[[Any], Any], two: Any) -> None:
    with torch.device("cuda"):
        expected = told(program, torch)
    got = told(program, two)
    assert got == expected
    assert two.ones(3).sum().item() == 3.0


def test_memory_is_told_of_each(two: Any) -> None:
    two.ones(1, device="cuda:1").item()
    before = [two.cuda.memory_allocated(index) for index in (0, 1)]
    held = two.ones(1 << 22, device="cuda:1")
    held[0].item()
    grown = [two.cuda.memory_allocated(index) - size for index, size in enumerate(before)]
    assert grown[0] < 1 << 20
    assert 1 << 24 <= grown[1] < 1 << 25
    for index in (0, 1):
        free, total = two.cuda.mem_get_info(index)
        assert 0 < free < total


def test_work_on_one_is_not_waited_for_by_a_read_of_the_other(two: Any) -> None:
    z = x = two.rand(8192, 8192, device="cuda:1") / 8192
    x[0, 0].item()
    y = two.ones(8, device="cuda:0")
    y.sum().item()
    ended: list[str] = []
    for _ in range(200):
        z = z @ x

    def wait() -> None:
        two.cuda.synchronize(1)
        ended.append("long")

    long = threading.Thread(target=wait)
    assert y.sum().item() == 8.0
    ended.append("small")
    long.start()
    long.join(60.0)
    assert ended == ["small", "long"]


def test_a_wait_is_as_long_as_the_work_of_that_gpu(two: Any) -> None:
    x = two.rand(4096, 4096, device="cuda:1") / 4096
    start, end = (two.cuda.Event(enable_timing=True) for _ in range(2))
    with two.cuda.device(1):
        (x @ x)[0, 0].item()
        start.record()
        y = x
        for _ in range(100):
            y = y @ x
        end.record()
    # 100 products of 4,096 by 4,096 are some 14 TFLOP: no GPU does that in a few milliseconds.
    assert start.elapsed_time(end) > 10.0


def test_a_recorded_function_gives_the_same_on_either(two: Any) -> None:
    def f(x: Any, w: Any) -> Any:
        for _ in range(20):
            x = (x @ w).relu() * 0.1 + x
        return x, x.sum()

    fast = two.compile(f)
    for step in range(20):
        for place in ("cuda:0", "cuda:1"):
            w = two.full((32, 32), 0.03, device=place)
            x = two.full((32, 32), float(step), device=place)
            out, total = fast(x, w)
            expected, wanted = f(x, w)
            assert str(out.device) == place
            np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=1e-5)
            assert total.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_a_served_network_stays_on_the_first(two: Any) -> None:
    served = two.models.create("on-the-first", two.nn.MLP([8, 16, 4], activation="relu"))
    try:
        x = two.rand(3, 8, device="cuda:1")
        by_value = served(x.numpy())
        with two.cuda.device(1):
            by_tensor = served(x)
        assert str(by_tensor.device) == "cuda:0"
        np.testing.assert_allclose(by_tensor.numpy(), by_value, rtol=1e-3, atol=1e-5)
    finally:
        served.delete()


def test_sessions_at_once_on_both(both: ServerProcess) -> None:
    import tclient

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        opened = [stack.enter_context(tclient.connect(both.address)) for _ in range(8)]

        def work(number: int) -> None:
            place = f"cuda:{number % 2}"
            with opened[number].use():
                x = y = tclient.full((64, 64), 1.0 / (64 + number), device=place)
                for _ in range(100):
                    y = y @ x
                    if number % 3 == 0:
                        y = y.to("cuda:0").to("cuda:1").to(place)
                start = expected = np.full((64, 64), 1.0 / (64 + number), np.float32)
                for _ in range(100):
                    expected = expected @ start
                np.testing.assert_allclose(y.numpy(), expected, rtol=1e-3, atol=1e-30)

        for done in [pool.submit(work, number) for number in range(8)]:
            done.result(120.0)

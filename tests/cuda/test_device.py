"""Sessions on a GPU: order, overlap, memory, random numbers, and what goes from one line of work to another."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.serving import ServerProcess, server_environment

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device: docs/gpu.md", allow_module_level=True)

MIB = 1 << 20


# ---- reads and uploads ----------------------------------------------------------------------------------------------


def test_reads_come_in_order_and_see_what_was_before_them(tc: Any) -> None:
    x = tc.zeros(64)
    seen = []
    for step in range(200):
        x += 1
        seen.append(x[0].item() if step % 3 else int(x.sum().item()) // 64)
    assert seen == [step + 1 for step in range(200)]


def test_a_read_is_not_reached_by_a_later_write(tc: Any) -> None:
    x = tc.arange(1 << 20, dtype=tc.float32)
    expected = np.arange(1 << 20, dtype=np.float32)
    for step in range(20):
        assert np.array_equal(x.numpy(), expected + step)
        x += 1


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool", "complex64", "uint8"])
@pytest.mark.parametrize("size", [0, 1, 1000, 3 * MIB])
def test_bytes_go_to_the_device_and_back(dtype: str, size: int, tc: Any) -> None:
    array = np.random.default_rng(0).integers(0, 2, size).astype(dtype)
    x = tc.from_numpy(array)
    back = x.to("cuda").numpy()
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    out = np.empty_like(array)
    x.cuda().numpy(out=out)
    assert np.array_equal(out, array)


def test_memory_that_uploads_come_in_is_not_used_again_too_soon(tc: Any) -> None:
    arrays = [np.full(4 * MIB, step, np.float32) for step in range(24)]
    sent = [tc.from_numpy(array).to("cuda") for array in arrays]
    for step, x in enumerate(sent):
        low, high = x.aminmax()
        assert (low.item(), high.item()) == (step, step)


def test_numbers_of_all_kinds(tc: Any) -> None:
    x = tc.tensor([3, -7], device="cuda")
    assert (int(x[0]), float(x[1]), bool(x[0] > x[1]), x.tolist()) == (3, -7.0, True, [3, -7])
    assert tc.equal(x, x.clone())
    assert tc.allclose(x.double(), x.double() + 1e-12)
    assert [1, 2, 3][tc.tensor(1, device="cuda")] == 2


# ---- sessions beside each other -------------------------------------------------------------------------------------


@contextlib.contextmanager
def sessions(server: ServerProcess, count: int) -> Iterator[list[Any]]:
    """So many sessions; which of them is meant, the tensors say."""
    import tclient

    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(tclient.connect(server.address)) for _ in range(count)]


def test_a_session_does_not_wait_for_the_work_of_another(server: ServerProcess) -> None:
    import tclient

    ended: list[str] = []
    with sessions(server, 2) as (long, small):
        with small.use():
            y = tclient.ones(8)
            y.sum().item()
        with long.use():
            z = x = tclient.rand(8192, 8192) / 8192
            x[0, 0].item()
        for _ in range(100):
            z = z @ x
        corner = z[0, 0]
        # All of it is given to the device now.
        long.synchronize()

        def wait() -> None:
            corner.item()
            ended.append("long")

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait)
            # Each kernel waits until the one that fills the device ends, so there are few of them.
            assert y.sum().item() == 8.0
            ended.append("small")
            waiting.result(60.0)
    assert ended == ["small", "long"]


def test_sessions_at_once_compute_what_they_should(server: ServerProcess) -> None:
    import tclient

    arrays = [np.random.default_rng(seed).random((128, 128), np.float32) for seed in range(24)]
    with sessions(server, len(arrays)) as opened:
        held = []
        for session, array in zip(opened, arrays, strict=True):
            with session.use():
                held.append(tclient.from_numpy(array).to("cuda"))

        def work(place: int) -> None:
            x, expected = held[place], torch.from_numpy(arrays[place]).cuda()
            for _ in range(200):
                x = (x * 0.5 + x.t() * 0.25).relu()
                expected = (expected * 0.5 + expected.t() * 0.25).relu()
            np.testing.assert_allclose(x.numpy(), expected.cpu().numpy(), rtol=1e-5)

        all_of(work, len(arrays))


def all_of(work: Callable[[int], None], count: int) -> None:
    """Run it for each number, all at once."""
    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(work, place) for place in range(count)]:
            done.result(120.0)


def test_random_numbers_are_those_of_the_device_and_the_sessions_own(server: ServerProcess) -> None:
    import tclient

    def torchs(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return torch.cat([torch.rand(5, device="cuda") for _ in range(4)]).tolist()

    with sessions(server, 2) as opened:
        drawn: list[list[float]] = [[], []]
        for seed, session in enumerate(opened):
            with session.use():
                tclient.manual_seed(seed)
        for _ in range(4):
            for numbers, session in zip(drawn, opened, strict=True):
                with session.use():
                    numbers += tclient.rand(5).tolist()
    assert drawn == [torchs(0), torchs(1)]


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_too_much_memory_is_refused_and_nothing_is_lost(tc: Any) -> None:
    x = tc.ones(4)
    for ask in (lambda: tc.zeros(1 << 40), lambda: tc.ones(1 << 20).expand(1 << 20, 1 << 20).contiguous()):
        with pytest.raises(tc.OutOfMemoryError):
            ask().sum().item()
    assert x.sum().item() == 4.0


def test_memory_comes_back(tc: Any) -> None:
    tc.ones(1).item()
    before = tc.cuda.memory_allocated()
    for _ in range(50):
        x = [tc.rand(MIB) for _ in range(8)]
        y = sum(x[1:], x[0])
        y.sum().item()
    del x, y
    tc.ones(1).item()
    assert tc.cuda.memory_allocated() - before <= MIB


@pytest.mark.parametrize("index", [1, 99])
def test_a_gpu_that_the_engine_does_not_hold_is_refused_in_torchs_words(index: int, tc: Any) -> None:
    with pytest.raises(RuntimeError) as expected:
        torch.ones(2, device=f"cuda:{max(index, torch.cuda.device_count())}")
    for ask in (
        lambda: tc.ones(2, device=f"cuda:{index}").shape,
        lambda: tc.ones(2).to(f"cuda:{index}").tolist(),
        lambda: tc.ones(2).cuda(index).tolist(),
        lambda: tc.cuda.set_device(index),
        lambda: tc.cuda.synchronize(index),
    ):
        with pytest.raises(tc.AcceleratorError) as refused:
            ask()
        assert str(refused.value).splitlines()[0] == str(expected.value).splitlines()[0]
    assert tc.cuda.device_count() == 1
    assert tc.ones(3).sum().item() == 3.0


# ---- programs and models --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 1024], ids=["inputs that are copied", "inputs that are read where they are"])
def test_a_recorded_function_gives_the_same_every_time(size: int, tc: Any) -> None:
    def f(x: Any, w: Any) -> Any:
        for _ in range(20):
            x = (x @ w).relu() * 0.1 + x
        return x, x.sum()

    fast = tc.compile(f)
    w = tc.rand(size, size) / size
    for step in range(30):
        x = tc.rand(size, size) * step
        out, total = fast(x, w)
        expected, wanted = f(x, w)
        np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)
        assert total.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_programs_of_several_sessions_and_a_model_at_once(server: ServerProcess) -> None:
    import tclient

    def f(x: Any) -> Any:
        for _ in range(30):
            x = (x * 0.9).tanh() + 0.1
        return x

    with sessions(server, 8) as opened:
        held = []
        for number, session in enumerate(opened):
            with session.use():
                if not number:
                    tclient.models.create("at-once", tclient.nn.MLP([32, 64, 8], activation="relu"))
                held.append((tclient.rand(16, 32), tclient.models.get("at-once"), tclient.compile(f)))

        def work(place: int) -> None:
            x, model, fast = held[place]
            for _ in range(40):
                x = (x * 1.7 + 0.3).frac()
                y = fast(x)
                by_tensor, by_value = model(y).numpy(), model(y.numpy())
                np.testing.assert_allclose(y.numpy(), f(x).numpy(), rtol=1e-5, atol=1e-6)
                np.testing.assert_allclose(by_tensor, by_value, rtol=1e-3, atol=1e-5)

        all_of(work, len(held))
        held[0][1].delete()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_a_model_of_every_dtype_and_size_of_batch(dtype: str, tc: Any) -> None:
    network = tc.nn.MLP([24, 32, 5], activation="gelu")
    served = tc.models.create(f"sizes-{dtype}", network, dtype=getattr(tc, dtype))
    reference = tc.models.create(f"reference-{dtype}", network, dtype=tc.float64)
    tolerance = {"float64": 1e-12, "float32": 1e-4}.get(dtype, 3e-2)
    for rows in (1, 2, 3, 7, 8, 100, 1000, 4096, 5000):
        x = tc.rand(rows, 24)
        got = served(x.to(getattr(tc, dtype))).double().numpy()
        np.testing.assert_allclose(got, reference(x.double()).numpy(), rtol=tolerance, atol=tolerance)
    served.delete()
    reference.delete()


def test_a_model_is_replaced_under_load_without_a_mixed_answer(server: ServerProcess) -> None:
    import tclient

    def constant(value: float) -> list[Any]:
        return [
            (np.zeros((16, 8), np.float32), np.full(16, value, np.float32), "relu"),
            (np.ones((4, 16), np.float32), None, None),
        ]

    stop = threading.Event()

    def ask(model: Any) -> set[float]:
        seen: set[float] = set()
        while not stop.is_set():
            answers = set(model(np.ones((3, 8), np.float32)).ravel().tolist())
            assert len(answers) == 1, answers
            seen |= answers
        return seen

    with sessions(server, 4) as opened, ThreadPoolExecutor(8) as pool:
        tclient.models.create("turns", constant(1.0), version=1)
        models = []
        for session in opened:
            with session.use():
                models.append(tclient.models.get("turns"))
        try:
            asked = [pool.submit(ask, model) for model in (*models, *models)]
            for version in range(2, 12):
                tclient.models.create("turns", constant(float(version)), version=version)
                tclient.models.get("turns", version - 1).delete()
        finally:
            stop.set()
        for each in asked:
            assert each.result(60.0) <= {16.0 * version for version in range(1, 12)}
        tclient.models.get("turns").delete()


def test_training_on_the_device_is_that_of_torch(tc: Any) -> None:
    def train(torch: Any) -> list[float]:
        torch.manual_seed(3)
        model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        x = torch.rand(256, 8)
        target = x.sum(1, keepdim=True).sin()
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    with torch.device("cuda"):
        expected = train(torch)
    assert train(tc) == pytest.approx(expected, rel=1e-3)
    assert expected[-1] < expected[0] / 2


_LOSES_THE_DEVICE = """
import torch
from tserver.config import Config
from tserver.engine.engine import Engine

causes = []
engine = Engine(Config(device="cuda"), on_fatal=causes.append)
engine.start()
queue = engine.open_queue()
queue.run(lambda store: torch._assert_async(torch.zeros(1, device="cuda"))).result(30.0)
queue.run(lambda store: torch.cuda.synchronize())
engine._thread.join(30.0)
print(causes)
"""


def test_a_device_that_is_lost_is_noticed_and_named() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOSES_THE_DEVICE],
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert "the device failed: CUDA error: device-side assert triggered" in done.stdout, done.stderr

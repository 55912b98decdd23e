"""What the client knows without asking: shapes that follow from shapes, gradients; and how often loops wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

FRESH: dict[str, Callable[[Any], Any]] = {
    "sizes": lambda t: [t.zeros(3, 4), t.ones((2, 0)), t.empty([5]), t.rand(()), t.randn(2, 3, dtype=t.float64)],
    "numbers": lambda t: [t.full((2,), 1), t.full([2, 2], 1.5), t.full((1,), True), t.full((2,), 1, dtype=t.int32)],
    "counted": lambda t: [t.arange(5), t.arange(2, 9, 3), t.arange(5, 0, -2), t.eye(3), t.eye(2, 4), t.randperm(6)],
    "spaced": lambda t: [t.linspace(0, 1, 5), t.randint(10, (2, 3)), t.randint(1, 5, (4,)), t.zeros(2, device="cpu")],
    "data": lambda t: [t.tensor([1, 2]), t.tensor([[1.5], [2]]), t.tensor([]), t.tensor(True), t.tensor([True, 2])],
    "arrays": lambda t: [t.from_numpy(np.ones((2, 3), np.int16)), t.tensor(np.zeros(2)), t.as_tensor([1, 2.5])],
    "same": lambda t: [x for w in [t.ones(2, 3)] for x in (w + 1, 2 * w, w.detach(), -w, w * w, w.relu(), w.data)],
}


@pytest.mark.parametrize("make", FRESH.values(), ids=list(FRESH))
def test_what_is_made_of_numbers_is_known_without_asking(tc: ModuleType, make: Callable[[Any], Any]) -> None:
    session = tc._session.current.current()
    mine = make(tc)
    before = session.stats.waits
    told = [(tuple(x.shape), str(x.dtype), str(x.device), x.dim(), x.numel()) for x in mine]
    assert session.stats.waits == before
    assert told == [(tuple(x.shape), str(x.dtype), str(x.device), x.dim(), x.numel()) for x in make(torch)]
    assert [x.requires_grad for x in mine] == [False] * len(mine)


def shapes_that_hang_on_values(t: Any) -> Iterator[Any]:
    """Calls alike in all but the elements, whose results differ."""
    for limit in (1, 2, 4):
        x = t.arange(5)
        yield x[x > limit].shape
        yield t.where(x > limit)[0].shape
        yield x[: t.tensor(limit)].shape
        yield x[[True, False, limit > 1, True, False]].shape
        yield t.nonzero(x > limit).shape
        yield x[x.clamp(max=1).bool()].shape
        yield t.unique(x // limit).shape
        yield x.repeat_interleave(t.tensor([limit] * 5)).shape
        yield t.zeros(3, 6).sum(t.tensor(min(limit, 1))).shape
        yield t.zeros(t.tensor(limit), 2).shape
        yield x[limit:].shape, x[:, None].shape, x[-limit].shape, x[::limit].shape
        yield [part.shape for part in x.split(limit)], [part.shape for part in x.tensor_split(t.tensor([limit]))]


def shapes_that_change(t: Any) -> Iterator[Any]:
    """What was known and holds no more."""
    for size in (2, 3):
        x = t.ones(2, 2)
        y = x.detach()
        yield (x + 1).shape, y.shape
        x.resize_(size, 1)
        yield x.shape, (x + 1).shape, x.t().shape
        y.data = t.zeros(size, dtype=t.float64)
        yield y.shape, y.dtype, (y * 2).shape, y.relu().dtype
        z = t.zeros(2, 3)
        z.t_()
        yield z.shape, z.sum(0).shape, z.unsqueeze_(0).shape, z.squeeze_().shape
        z = t.zeros(0)
        t.add(t.ones(size, 2), 1, out=z)
        yield z.shape, (z + z).shape
    w = t.ones(2, requires_grad=True)
    w.data = w.data - 1
    yield w.shape, w.requires_grad, (w * 2).requires_grad, w.detach().requires_grad
    for dtype in (t.float32, t.float64, t.float32):
        t.set_default_dtype(dtype)
        yield (
            [(t.arange(3) / 2).dtype for _ in range(2)],
            t.zeros(2).dtype,
            t.tensor(1.5).dtype,
            t.full((1,), 2.0).dtype,
        )
    for enabled in (False, True):
        with t.autocast("cpu", dtype=t.bfloat16, enabled=enabled):
            yield [(t.ones(2, 2) @ t.ones(2, 2)).dtype for _ in range(2)], (t.ones(2) + 1).dtype


def _told(found: Any) -> Any:
    if isinstance(found, (list, tuple)):
        return [_told(each) for each in found]
    return found if found is None or isinstance(found, (int, float)) else str(found)


@pytest.mark.parametrize("program", [shapes_that_hang_on_values, shapes_that_change])
def test_what_is_not_known_is_asked_for(tc: ModuleType, program: Callable[[Any], Iterator[Any]]) -> None:
    assert _told(list(program(tc))) == _told(list(program(torch)))


def test_an_error_is_raised_where_the_shape_of_its_like_was_told_before(tc: ModuleType) -> None:
    for _ in range(2):
        assert tc.stack([tc.ones(2), tc.ones(2)]).shape == (2, 2)
        with pytest.raises(RuntimeError):
            _ = tc.stack([tc.ones(2), tc.ones(3)]).shape
    with tc.synchronous(), pytest.raises(IndexError):
        tc.ones(2)[5]


# ---- gradients -------------------------------------------------------------------------------------------------------


def gradients_by_hand(t: Any) -> Iterator[Any]:
    """Gradients that come, go, and are others."""
    x, w, b = t.arange(6.0).view(3, 2), t.ones(2, 1, requires_grad=True), t.zeros(1, requires_grad=True)
    yield w.grad, b.grad
    for step in range(6):
        if step % 3 == 1:
            w.grad, b.grad = None, None
        elif step % 3 == 2:
            w.grad.zero_()
        yield w.grad is None, b.grad is None
        loss = (x @ w + b).square().mean()
        if step % 2:
            loss = (x @ w).sum() if step == 3 else loss + w.sum()
        loss.backward()
        with t.no_grad():
            for p in (w, b):
                if p.grad is not None:
                    p -= 0.1 * p.grad
                    yield p.grad.tolist(), p.grad is p.grad
        yield w.tolist(), b.tolist()
    alias = w.float()
    alias.grad = t.ones(2, 1) * 7
    yield w.grad.tolist()
    w.grad = t.ones(2, 1) * 3
    yield alias.grad.tolist(), w.grad.tolist()
    optimizer = t.optim.SGD([w, b], lr=0.5)
    optimizer.step()
    yield w.tolist()
    optimizer.zero_grad()
    yield w.grad, alias.grad
    net = t.nn.Linear(2, 1)
    yield [p.grad for p in net.parameters()]
    net(x).sum().backward()
    yield [p.grad.tolist() for p in net.parameters()], [p.grad is None for p in net.double().parameters()]
    yield [str(p.grad.dtype) for p in net.parameters()]
    net.zero_grad(set_to_none=False)
    yield [p.grad.tolist() for p in net.parameters()]
    net.zero_grad()
    yield [p.grad for p in net.parameters()]


def test_gradients_read_by_hand_are_those_of_torch(tc: ModuleType) -> None:
    mine, theirs = (list(gradients_by_hand(t)) for t in (tc, torch))
    assert repr(mine) == repr(theirs)


def test_the_gradient_of_what_is_no_leaf_warns_each_time(tc: ModuleType) -> None:
    for t in (torch, tc):
        y = t.ones(2, requires_grad=True) * 2
        for _ in range(2):
            with pytest.warns(UserWarning, match="not a leaf"):
                assert y.grad is None


# ---- loops -----------------------------------------------------------------------------------------------------------


def mlp(t: Any) -> Callable[[], Any]:
    """A step that reads its loss."""
    net = t.nn.Sequential(t.nn.Linear(8, 16), t.nn.ReLU(), t.nn.Linear(16, 2)).to("cpu")
    optimizer = t.optim.Adam(net.parameters())
    x, y = t.randn(32, 8), t.randint(0, 2, (32,))

    def step() -> Any:
        optimizer.zero_grad()
        loss = t.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item() * x.size(0)

    return step


def convolutional(t: Any) -> Callable[[], Any]:
    """A network that asks for shapes on its way."""
    conv, norm, linear = t.nn.Conv2d(1, 4, 3), t.nn.BatchNorm2d(4), t.nn.Linear(36, 2)
    x = t.randn(5, 1, 8, 8)

    def step() -> Any:
        y = t.nn.functional.max_pool2d(norm(conv(x)).relu(), 2)
        y = linear(y.view(y.size(0), -1))
        a, b = y.chunk(2, dim=1)
        return (a - b).mean().item(), len(y)

    return step


def recurrent(t: Any) -> Callable[[], Any]:
    """An LSTM, attention, and clipping."""
    rnn, attention = t.nn.LSTM(4, 8, batch_first=True), t.nn.MultiheadAttention(8, 2, batch_first=True)
    x = t.randn(3, 5, 4)

    def step() -> Any:
        out, _ = rnn(x, (t.zeros(1, x.size(0), 8), t.zeros(1, x.size(0), 8)))
        out, _ = attention(out, out, out)
        b, _, c = out.shape
        out[:, -1].reshape(b * c).sum().backward()
        t.nn.utils.clip_grad_norm_(rnn.parameters(), 1.0)

    return step


def by_hand(t: Any) -> Callable[[], Any]:
    """Gradient descent written out."""
    net = t.nn.Sequential(t.nn.Linear(8, 16), t.nn.Tanh(), t.nn.Linear(16, 2))
    x = t.randn(32, 8)

    def step() -> Any:
        loss = net(x).square().mean()
        net.zero_grad()
        loss.backward()
        for p in net.parameters():
            p.data -= 0.1 * p.grad
        return loss.item()

    return step


LOOPS = {
    "a step with loss.item()": (mlp, 1),
    "shapes asked for within a network": (convolutional, 1),
    "LSTM, attention and clipping": (recurrent, 1),
    "gradient descent by hand": (by_hand, 2),
}


@pytest.mark.parametrize(("make", "most"), LOOPS.values(), ids=list(LOOPS))
def test_a_step_of_a_loop_waits_no_oftener_than_it_must(
    tc: ModuleType, make: Callable[[Any], Callable[[], Any]], most: int
) -> None:
    session = tc._session.current.current()
    step = make(tc)
    for _ in range(4):  # until every shape was told once
        step()
    before = session.stats.waits
    for _ in range(3):
        step()
    assert session.stats.waits - before <= 3 * most


@pytest.mark.parametrize("answered", [False, True], ids=["at once", "once it is there"])
def test_a_network_goes_where_it_is_without_asking(tc: ModuleType, answered: bool) -> None:
    session = tc._session.current.current()
    net = tc.nn.Sequential(tc.nn.Linear(4, 8), tc.nn.BatchNorm1d(8), tc.nn.LSTM(8, 2))
    if answered:
        tc.synchronize()
    before = session.stats.waits
    assert net.to("cpu").to(tc.float32).float() is net
    assert session.stats.waits == before
    net(tc.ones(3, 4))[0].sum().backward()
    before = session.stats.waits
    net.double()
    assert session.stats.waits <= before + 3  # for the gradients of each module
    assert {str(each.dtype) for each in net.parameters()} == {"torch.float64"}
    assert all(str(p.grad.dtype) == "torch.float64" for p in net.parameters())

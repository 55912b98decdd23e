"""Memory that sessions of one engine share: both see it, and only its owner writes to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

import tclient
from tclient import Session, nn
from tests.moving.test_moving import held, opened
from tests.support.serving import HasAddress, serving, wait_until


class Two(NamedTuple):
    """Two sessions of one engine."""

    owner: Session
    reader: Session


@pytest.fixture
def two(server: HasAddress) -> Iterator[Two]:
    """The owner's is the current one."""
    with opened(server.address, server.address) as (owner, reader), owner.use():
        yield Two(owner, reader)


def test_what_the_owner_writes_shows_in_the_other_session(two: Two) -> None:
    x = tclient.arange(6.0).reshape(2, 3)
    y = tclient.share(x, with_session=two.reader)
    assert y._ref.session is two.reader
    assert (y.tolist(), y.stride(), y.requires_grad, y.is_leaf) == (x.tolist(), (3, 1), False, True)
    x[0] = 7
    two.owner.synchronize()
    assert y.tolist() == [[7.0, 7.0, 7.0], [3.0, 4.0, 5.0]]
    assert (y.T @ y).tolist() == (x.T @ x).tolist()
    assert y.data_ptr() == y.view(-1).data_ptr() != 0


def test_it_takes_no_memory_of_the_reader_and_is_there_as_long_as_one_has_it(two: Two) -> None:
    x = tclient.ones(250_000)
    y = tclient.share(x, with_session=two.reader)
    assert held(two.owner) == (1, 1_000_000)
    assert held(two.reader) == (1, 0)
    z = y + 1
    assert held(two.reader) == (2, 1_000_000)
    del z, x
    assert held(two.owner) == (0, 0)
    assert y.sum().item() == 250_000
    del y
    assert held(two.reader) == (0, 0)


def test_it_outlives_its_owner_and_counts_for_who_has_it(server: HasAddress) -> None:
    with opened(server.address) as (reader,):
        with opened(server.address) as (owner,), owner.use():
            y = tclient.share(tclient.ones(250_000), with_session=reader)
        wait_until(lambda: held(reader) == (1, 1_000_000), 10.0, "it counts for the reader")
        assert y.sum().item() == 250_000
        refused(reader, lambda: y.add_(1))


def refused(session: Session, write: Callable[[], Any], words: str = "only be read") -> None:
    """Whether a write is refused, at once or when it is waited for."""

    def wait() -> None:
        write()
        session.synchronize()

    with session.use(), pytest.raises(RuntimeError, match=words):
        wait()
    with contextlib.suppress(RuntimeError):
        session.synchronize()  # a failed effect is told of once more than its result


def _optimized(y: Any) -> None:
    parameter = nn.Parameter(y)
    parameter.grad = tclient.ones_like(y)
    tclient.optim.SGD([parameter], lr=0.1).step()


def _accumulated(y: Any) -> None:
    x = tclient.ones(2, 3, requires_grad=True)
    x.grad = y
    (x * 2).sum().backward()


def _normalized(y: Any) -> None:
    nn.functional.batch_norm(tclient.randn(4, 3), y[0], y[1], training=True).tolist()


def _recorded(y: Any) -> None:
    tclient.compile(lambda a: a.mul_(2))(y)


WRITES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda y: y.add_(1),
    "an item": lambda y: y.__setitem__(0, 5.0),
    "through a view": lambda y: y[0].unsqueeze(0).T.zero_(),
    "through a view of other elements": lambda y: y.view(tclient.int32).zero_(),
    "through its data": lambda y: y.data.fill_(3),
    "detached": lambda y: y.detach().exp_(),
    "out": lambda y: tclient.add(tclient.ones(2, 3), 1, out=y),
    "copied to": lambda y: y.copy_(tclient.ones(2, 3)),
    "random": lambda y: y.uniform_(),
    "resized": lambda y: y.resize_(100),
    "initialised": nn.init.ones_,
    "several": lambda y: getattr(tclient, "_foreach_add_")([tclient.ones(2, 3), y], 1),  # noqa: B009
    "by an optimiser": _optimized,
    "a gradient": _accumulated,
    "running statistics": _normalized,
    "renormalised": lambda y: nn.functional.embedding(tclient.tensor([0]), y, max_norm=0.1),
    "in a program": _recorded,
    "a real part": lambda y: setattr(y, "real", tclient.ones(2, 3)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_who_only_reads_cannot_write(two: Two, write: Callable[[Any], Any]) -> None:
    x = tclient.arange(6.0).reshape(2, 3) + 1
    before = x.tolist()
    y = tclient.share(x, with_session=two.reader)
    refused(two.reader, lambda: write(y))
    assert x.tolist() == before
    assert y.tolist() == before
    with two.reader.use():
        assert y.clone().add_(1).tolist() == (x + 1).tolist()
    write(x)
    two.owner.synchronize()


def test_a_network_is_shared_to_be_asked(two: Two) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    x = tclient.randn(5, 3)
    expected = model(x).tolist()
    state = tclient.share(model.state_dict(), with_session=two.reader)
    with two.reader.use():
        reader = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
        reader.load_state_dict(state, assign=True)
        given = x.to(session=two.reader)
        assert reader(given).tolist() == expected
        assert tclient.compile(reader)(given).tolist() == expected
        reader.train()
    refused(two.reader, lambda: reader(given).tolist())
    assert model(x).tolist() == expected


def test_what_the_reader_computes_is_its_own(two: Two) -> None:
    w = tclient.arange(6.0).reshape(2, 3).requires_grad_()
    shared = tclient.share(w, with_session=two.reader)
    with two.reader.use():
        x = tclient.ones(3, requires_grad=True)
        (shared @ x).sum().backward()
        assert x.grad.tolist() == [3.0, 5.0, 7.0]
        leaf = shared.requires_grad_()
        (leaf * 2).sum().backward()
        assert leaf.grad.add_(1).tolist() == [[3.0] * 3] * 2
    assert w.grad is None
    assert w.requires_grad


def test_a_backward_over_what_the_owner_has_changed_is_refused_as_by_torch(two: Two) -> None:
    w = tclient.ones(3)
    shared = tclient.share(w, with_session=two.reader)
    with two.reader.use():
        x = tclient.ones(3, requires_grad=True)
        loss = (shared * x).sum()
    two.reader.synchronize()
    w.add_(1)
    two.owner.synchronize()
    refused(two.reader, loss.backward, "modified by an inplace operation")


def test_containers_are_shared_and_shared_on_and_moved(two: Two, server: HasAddress) -> None:
    model = nn.Linear(3, 2)
    state = tclient.share(model.state_dict(), with_session=two.reader)
    with opened(server.address) as (third,):
        again = tclient.share(state, with_session=third)
        assert again["weight"].tolist() == model.weight.tolist()
        refused(third, again["weight"].zero_)
        back = tclient.share(again["weight"], with_session=two.owner)
        moved = again["weight"].to(session=two.reader)
    moved.add_(1)
    assert moved.tolist() == (model.weight + 1).tolist()
    with tclient.no_grad():
        back.zero_()
    assert model.weight.sum().item() == 0.0


def test_large_ones_are_read_whole_while_the_owner_writes(two: Two) -> None:
    x = tclient.zeros(500_000)
    y = tclient.share(x, with_session=two.reader)
    for count in range(1, 5):
        x.add_(1)
        two.owner.synchronize()
        read = y.numpy()
        assert (read.min(), read.max()) == (count, count)


def test_sessions_of_two_engines_share_nothing(two: Two, other_server: HasAddress) -> None:
    with opened(other_server.address) as (far,), pytest.raises(ValueError, match=r"x\.to\(session=…\)"):
        tclient.share(tclient.ones(2), with_session=far)
    with pytest.raises(ValueError, match=r"to_dense\(\)"):
        tclient.share(tclient.eye(2).to_sparse(), with_session=two.reader)


def test_the_quota_counts_it_once(server: HasAddress) -> None:
    with (
        serving("--max-session-bytes", "3000000") as small,
        opened(small.address, small.address) as (owner, reader),
        owner.use(),
    ):
        x = tclient.ones(500_000)
        y = tclient.share(x, with_session=reader)
        with reader.use():
            z = y + 1
            assert z.sum().item() == 1_000_000
        with pytest.raises(tclient.OutOfMemoryError):
            (x + 1).sum().item()

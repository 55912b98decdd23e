"""What one principal shares with another: that one alone has it, on its terms, and until it is revoked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

import tclient as tc
from tclient import Session
from tests.trust.principals import Server, serving_principals


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving_principals() as server:
        yield server


class Sessions(NamedTuple):
    """One of each principal."""

    alice: Session
    bob: Session
    mallory: Session


@pytest.fixture
def of(server: Server) -> Iterator[Sessions]:
    """Alice's is the current one."""
    made = [
        Session.open("127.0.0.1:1", transport=server.raw(name).channel, lane=False)
        for name in ("alice", "bob", "mallory")
    ]
    with made[0].use():
        yield Sessions(*made)
    for session in made:
        session.close()


def borrowed(session: Session, grant: Any) -> Any:
    with session.use():
        return tc.borrow(grant.text())


def waited(action: Callable[[], object]) -> None:
    """Run something, and wait for what becomes of it."""
    action()
    tc.synchronize()


def test_the_principal_that_is_named_reads_what_its_owner_writes(of: Sessions) -> None:
    x = tc.arange(6.0).reshape(2, 3)
    grant = tc.share(x, with_="bob")
    y = borrowed(of.bob, grant)
    x[0] = 7
    of.alice.synchronize()
    assert y.tolist() == [[7.0, 7.0, 7.0], [3.0, 4.0, 5.0]]
    assert (y @ y.T).sum().item() == (x @ x.T).sum().item()
    state = {"weight": tc.ones(2), "bias": tc.zeros(1)}
    taken = borrowed(of.bob, tc.share(state, with_="bob"))
    assert {key: each.tolist() for key, each in taken.items()} == {"weight": [1.0, 1.0], "bias": [0.0]}


def test_nobody_else_has_it_also_with_the_secret(of: Sessions) -> None:
    grant = tc.share(tc.ones(2), with_="bob")
    with pytest.raises(ValueError, match="nothing waits under this name"):
        borrowed(of.mallory, grant)
    # Its owner's other sessions are of another principal than the named one, too.
    with pytest.raises(ValueError, match="nothing waits under this name"):
        borrowed(of.alice, grant)
    name = grant._name
    from tclient._issue import call_builtin

    for session in (of.mallory, of.bob):
        for operation in ("tc.borrow", "tc.take_over", "tc.revoke"):
            with session.use(), pytest.raises(ValueError, match="nothing waits under this name"):
                call_builtin(operation, name)
    assert borrowed(of.bob, grant).tolist() == [1.0, 1.0]


WRITES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda y: y.add_(1),
    "through a view": lambda y: y[0].zero_(),
    "with out=": lambda y: tc.add(y, 1, out=y),
    "by index": lambda y: y.__setitem__(0, 5.0),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_it_is_written_to_where_that_was_allowed_and_only_there(of: Sessions, write: Callable[[Any], Any]) -> None:
    x, local = tc.ones(3), tc.ones(3)
    y = borrowed(of.bob, tc.share(x, with_="bob"))
    with of.bob.use():
        with pytest.raises(RuntimeError, match="can only be read"):
            waited(lambda: write(y))
        z = borrowed(of.bob, tc.share(x, with_="bob", write=True))
        write(z)
        tc.synchronize()
    write(local)
    assert x.tolist() == local.tolist() == z.tolist()


def test_it_is_not_given_another_size_by_who_may_write(of: Sessions) -> None:
    x = tc.ones(3)
    y = borrowed(of.bob, tc.share(x, with_="bob", write=True))
    with of.bob.use(), pytest.raises(RuntimeError, match="shared by another session"):
        waited(lambda: y.resize_(1000))
    assert x.tolist() == [1.0, 1.0, 1.0]


def test_a_backward_notices_what_the_other_has_written(of: Sessions) -> None:
    x = tc.ones(3)
    w = tc.ones(3, requires_grad=True)
    y = borrowed(of.bob, tc.share(x, with_="bob", write=True))
    loss = (w * x).sum()
    tc.synchronize()
    with of.bob.use():
        y.mul_(2)
        tc.synchronize()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        waited(loss.backward)


USES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "read": lambda had: had["y"].tolist(),
    "numpy": lambda had: had["y"].numpy(),
    "printed": lambda had: repr(had["y"]),
    "computed with": lambda had: (had["y"] + 1).tolist(),
    "a view": lambda had: had["view"].tolist(),
    "a part": lambda had: had["parts"][1].tolist(),
    "another name": lambda had: had["same"].tolist(),
    "by its name": lambda had: had["session"].tensors()["y"].tolist(),
    "as a gradient": lambda had: had["other"].grad.tolist(),
    "by a backward": lambda had: waited(had["loss"].backward),
    "by an optimiser": lambda had: waited(had["optimiser"].step),
    "taken again": lambda had: tc.borrow(had["text"]),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_it_is_gone_once_it_is_revoked(of: Sessions, use: Callable[[dict[str, Any]], Any]) -> None:
    x = tc.arange(6.0)
    grant = tc.share(x, with_="bob", write=True)
    text = grant.text()
    y = borrowed(of.bob, grant)
    with of.bob.use():
        had: dict[str, Any] = {"y": y, "view": y[2:], "parts": y.split(3), "same": y.detach(), "session": of.bob}
        y.name = "y"
        had["other"] = tc.zeros(6, requires_grad=True)
        had["other"].grad = y
        w = tc.ones(6, requires_grad=True)
        had["loss"] = (w * y).sum()
        had["optimiser"] = tc.optim.SGD([had["other"]], lr=0.1)
        had["text"] = text
        own = y + 1
        tc.synchronize()
    grant.revoke()
    grant.revoke()
    with of.bob.use():
        with pytest.raises((RuntimeError, LookupError, ValueError)) as caught:
            use(had)
        assert isinstance(caught.value, tc.TensorError) or "y" in str(caught.value)
        # What was computed from it stays, and the session goes on.
        assert own.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        assert tc.ones(2).tolist() == [1.0, 1.0]
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    # Another grant of the same is good again.
    assert borrowed(of.bob, tc.share(x, with_="bob")).tolist() == x.tolist()


def test_who_has_it_does_not_hand_it_on(of: Sessions) -> None:
    y = borrowed(of.bob, tc.share(tc.ones(2), with_="bob"))
    with of.bob.use(), pytest.raises(ValueError, match="alone may share it"):
        tc.share(y, with_="mallory")
    with of.bob.use():
        assert borrowed(of.mallory, tc.share(y.clone(), with_="mallory")).tolist() == [1.0, 1.0]


def test_what_cannot_be_shared_says_so(of: Sessions) -> None:
    x = tc.ones(1)
    both: list[dict[str, Any]] = [{}, {"with_session": of.bob, "with_": "bob"}]
    for given in both:
        with pytest.raises(TypeError, match="with_session"):
            tc.share(x, **given)
    with pytest.raises(TypeError, match="name of a principal"):
        tc.share(x, with_="")
    for text in ("", "tcgrant1.", "tcgrant1.e30", "x"):
        with pytest.raises(ValueError, match="Grant"):
            tc.borrow(text)
    assert "tcgrant1" not in repr(tc.share(x, with_="bob"))

"""Tensors, modules and containers that go to another session are there what torch's `to` makes of them."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import tclient
from tclient import Session, nn
from tclient._by_value import elements_of
from tensorcompute.tables.dtypes import DTYPES
from tests.support.proxy import Direction, Proxy
from tests.support.raw import Raw
from tests.support.serving import HasAddress, serving

ROADS = ("one engine", "two servers", "by way of the client")


class Pair(NamedTuple):
    """Two sessions: tensors go from the first to the second."""

    here: Session
    there: Session
    road: str


@contextlib.contextmanager
def opened(*addresses: str, **options: Any) -> Iterator[list[Session]]:
    """Sessions that are nobody's current one."""
    before = tclient._session.session.connected()
    sessions = [tclient.connect(address, **options) for address in addresses]
    tclient._session.session.make_current(before)
    try:
        yield sessions
    finally:
        for session in sessions:
            session.close()


@pytest.fixture(params=ROADS)
def pair(request: pytest.FixtureRequest, server: HasAddress, other_server: HasAddress) -> Iterator[Pair]:
    """Both sessions, on each of the roads."""
    here = request.getfixturevalue("lonely_server") if request.param == ROADS[2] else server
    there = server if request.param == ROADS[0] else other_server
    with opened(here.address, there.address) as (one, other), one.use():
        yield Pair(one, other, request.param)


FORMS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda x: x,
    "no dimensions": lambda x: x[1, 2, 3],
    "empty": lambda x: x[:, :0],
    "transposed": lambda x: x.transpose(0, 2),
    "permuted": lambda x: x.permute(1, 2, 0),
    "every second": lambda x: x[:, ::2],
    "a part, transposed": lambda x: x[:, :2].transpose(0, 2),
    "expanded": lambda x: x[:1].expand(3, 4, 5),
    "another beginning": lambda x: x[1:],
    "one of each size": lambda x: x[:, :, :1],
}


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_every_dtype_in_every_form_arrives_as_torch_copies_it(pair: Pair) -> None:
    numbers = np.arange(60).reshape(3, 4, 5) % 7
    ours, theirs, names = [], [], []
    for row in DTYPES:
        mine = tclient.tensor(numbers).to(getattr(tclient, row.name))
        its = torch.tensor(numbers).to(getattr(torch, row.name))
        for name, form in FORMS.items():
            ours.append(form(mine))
            theirs.append(form(its))
            names.append(f"{row.name}, {name}")
    arrived = tclient.move(ours, pair.there)
    for name, given, made, tensor in zip(names, ours, arrived, theirs, strict=True):
        expected = tensor.clone()  # keeps the strides as a copy to another device does
        assert made._ref.session is pair.there, name
        assert (str(made.dtype), tuple(made.shape)) == (str(expected.dtype), tuple(expected.shape)), name
        if expected.numel():
            assert made.stride() == expected.stride(), name
        assert elements_of(made) == bytes_of(expected), name
        assert not made._is_view(), name
        assert not made.requires_grad, name
        assert made is not given
    stats = pair.here.stats
    assert (stats.moves, stats.downloads) == {
        ROADS[0]: (0, 0),
        ROADS[1]: (len(ours), 0),
        ROADS[2]: (0, len(ours)),
    }[pair.road]


@pytest.mark.parametrize(
    "prepared",
    [
        pytest.param(lambda t: t.arange(6.0).requires_grad_(), id="a leaf"),
        pytest.param(lambda t: t.arange(6.0).requires_grad_() * 2, id="of a graph"),
        pytest.param(lambda t: t.arange(6.0), id="none"),
    ],
)
def test_what_arrives_is_a_leaf_that_requires_gradients_where_the_original_does(
    pair: Pair, prepared: Callable[[Any], Any]
) -> None:
    x = prepared(tclient)
    y = x.to(session=pair.there)
    assert y.is_leaf
    assert y.requires_grad == x.requires_grad
    if y.requires_grad:
        (y * y).sum().backward()
        assert y.grad.tolist() == (2 * x).tolist()


def test_conjugated_and_negated_views_arrive_as_what_they_show(pair: Pair) -> None:
    x = tclient.tensor([1 + 2j, 3 - 4j])
    one, two = tclient.move([x.conj(), x.conj().imag], pair.there)
    assert one.tolist() == [1 - 2j, 3 + 4j]
    assert two.tolist() == [-2.0, 4.0]


def test_a_tensor_goes_as_it_is_in_its_place_among_the_calls(pair: Pair) -> None:
    x = tclient.zeros(300_000)
    x += 1
    y = x.to(session=pair.there)
    x += 1
    z = x.to(session=pair.there)
    y += 10
    assert (y.min().item(), y.max().item()) == (11.0, 11.0)
    assert (z.min().item(), z.max().item()) == (2.0, 2.0)
    assert (x.min().item(), x.max().item()) == (2.0, 2.0)


def test_an_error_before_it_is_raised_where_it_is_moved(pair: Pair) -> None:
    x = tclient.ones(2) @ tclient.ones(3)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        x.to(session=pair.there)


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        pytest.param(lambda: tclient.eye(3).to_sparse(), ValueError, r"to_dense\(\)", id="sparse"),
        pytest.param(lambda: tclient.ones(3, device="meta"), NotImplementedError, "no data", id="meta"),
    ],
)
def test_what_has_no_elements_in_a_row_is_refused(
    pair: Pair, made: Callable[[], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        made().to(session=pair.there)


def test_containers_keep_their_form_and_what_is_the_same_stays_the_same(pair: Pair) -> None:
    class Point(NamedTuple):
        x: Any
        y: Any

    x = tclient.tensor([1.0, 2.0])
    given = {"a": [x, (x, "text")], "b": Point(x + 1, None), "c": OrderedDict(d=3)}
    made = tclient.move(given, pair.there)
    assert made["a"][0] is made["a"][1][0]
    assert (made["a"][1][1], made["b"].y, made["c"]) == ("text", None, {"d": 3})
    assert type(made["b"]) is Point
    assert made["b"].x.tolist() == [2.0, 3.0]


def test_what_is_there_already_stays_the_object_that_it_is(pair: Pair) -> None:
    with pair.there.use():
        x = tclient.ones(2)
    assert x.to(session=pair.there) is x
    there, here = tclient.move([x, tclient.zeros(2)], pair.there)
    assert there is x
    assert (here + there).tolist() == [1.0, 1.0]


def test_a_device_may_be_named_and_nothing_else(pair: Pair) -> None:
    x = tclient.ones(2)
    assert str(x.to("cpu", session=pair.there).device) == "cpu"
    assert str(x.to(device="cpu", session=pair.there).device) == "cpu"
    for wrong in ({"dtype": tclient.float16}, {"copy": True}):
        with pytest.raises(TypeError, match="only a device"):
            x.to(session=pair.there, **wrong)
    with pytest.raises(TypeError, match="must be a Session"):
        x.to(session="there")  # type: ignore[call-overload]
    with pytest.raises((RuntimeError, AssertionError), match=r"device|CUDA"):
        x.to(session=pair.there, device="cuda:77").tolist()


def test_a_module_goes_with_its_gradients_and_stays_the_object_that_it_is(pair: Pair) -> None:
    tclient.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    model[3].weight.requires_grad_(False)
    x = tclient.randn(5, 3)
    model(x).sum().backward()
    model.eval()
    before, parameters = model(x).tolist(), list(model.parameters())
    gradient = model[0].weight.grad.tolist()
    assert model.to(session=pair.there) is model
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    assert model(x.to(session=pair.there)).tolist() == before
    assert model[0].weight.grad.tolist() == gradient
    assert model[3].weight.grad is None
    assert [each.requires_grad for each in model[3].parameters()] == [False, True]
    with pair.there.use():
        optimizer = tclient.optim.SGD(model.parameters(), lr=0.1)
        model.train()(tclient.ones(2, 3)).sum().backward()
        optimizer.step()
    with pytest.raises(ValueError, match=r"x\.to\(session"):
        model(x)


def test_tied_weights_stay_tied(pair: Pair) -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    model.to(session=pair.there)
    assert model[1].weight is model[0].weight


def test_a_state_goes_by_one_transfer_and_can_be_loaded(pair: Pair) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    state: Any = tclient.move(model.state_dict(), pair.there)
    original: Any = model.state_dict()
    assert state._metadata == original._metadata
    with pair.there.use():
        copy = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        copy.load_state_dict(state)
    for name, value in copy.state_dict().items():
        assert value.tolist() == model.state_dict()[name].tolist()


def test_large_tensors_go_from_server_to_server(server: HasAddress, other_server: HasAddress) -> None:
    with (
        Proxy(server.address) as one,
        Proxy(other_server.address) as other,
        opened(one.address, other.address) as (here, there),
        here.use(),
    ):
        x = tclient.arange(25_000_000)
        total = x.sum().item()
        for session in (here, there):
            y = x.to(session=session)
            assert y.sum().item() == total
        assert (here.stats.moves, here.stats.downloads, there.stats.uploads) == (1, 0, 0)
        passed = [proxy.passed_bytes(way) for proxy in (one, other) for way in Direction]
        assert max(passed) < 100_000


def test_nothing_is_left_behind(pair: Pair) -> None:
    x = tclient.ones(500_000)
    y = x.to(session=pair.there)
    assert held(pair.here) == (1, 2_000_000)
    assert held(pair.there) == (1, 2_000_000)
    del y
    assert held(pair.there) == (0, 0)


def held(session: Session) -> tuple[int, int]:
    """How many tensors a session holds, and their bytes with those that are on their way."""
    with session.use():
        tclient.manual_seed(0)  # takes what was dropped along
    session.synchronize()
    with Raw(session.address) as raw:
        raw.secret = session.secret
        count, size = raw.held()
    return count, size


def test_the_quota_of_the_receiver_holds(server: HasAddress) -> None:
    with serving("--max-session-bytes", "3000000") as small, opened(server.address, small.address) as (here, there):
        with here.use():
            x = tclient.ones(500_000)
        y = x.to(session=there)
        with pytest.raises(tclient.OutOfMemoryError, match="may hold 3000000"):
            x.to(session=there)
        del y
        assert x.to(session=there).sum().item() == 500_000
        with opened(small.address) as (beside,):
            z = x.to(session=there)
            for _ in range(2):
                assert z.to(session=beside).sum().item() == 500_000


def test_a_parcel_is_taken_once_and_goes_with_its_session(server: HasAddress) -> None:
    name = "0123456789abcdef0123456789abcdef"
    with opened(server.address) as (there,):
        with opened(server.address) as (here,):
            with here.use():
                parcel = tclient._issue.call_builtin("tc.hand_over", name, [tclient.ones(2)])
            with there.use():
                (taken,) = tclient._issue.call_builtin("tc.take_over", name, None)
                assert taken.tolist() == [1.0, 1.0]
                with pytest.raises(ValueError, match="taken already"):
                    tclient._issue.call_builtin("tc.take_over", name, None)
            with here.use():
                other = tclient._issue.call_builtin("tc.hand_over", name[::-1], [tclient.ones(2)])
        with there.use(), pytest.raises(ValueError, match="its session has ended"):
            tclient._issue.call_builtin("tc.take_over", name[::-1], None)
    del parcel, other


def test_a_name_that_can_be_guessed_is_refused(tc: Any) -> None:
    with pytest.raises(ValueError, match="32 characters"):
        tclient._issue.call_builtin("tc.hand_over", "1", [tclient.ones(2)])


def test_engines_of_one_house_send_to_each_other() -> None:
    with serving("--engines", "2") as house, opened(*[house.address] * 2) as (here, there), here.use():
        assert here.opened.boot_id != there.opened.boot_id
        x = tclient.arange(500_000)
        assert x.to(session=there).sum().item() == x.sum().item()
        assert (here.stats.moves, here.stats.downloads) == (1, 0)

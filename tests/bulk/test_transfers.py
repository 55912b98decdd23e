"""Large tensors come and go whole, by the data endpoint or by gRPC, and whatever happens on the way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import trustme

from tclient import TensorError
from tclient._session.current import current
from tclient._session.session import Session
from tests.support.proxy import Direction, Proxy
from tests.support.serving import HasAddress, serving

COUNT = (6 << 20) // 4


@pytest.fixture(params=["data endpoint", "shared memory", "gRPC", "gRPC with checksums"])
def way(request: pytest.FixtureRequest, tc: ModuleType, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the bytes move; the other way is blocked."""
    session = current()
    if request.param in ("data endpoint", "shared memory"):
        assert session.transfers.endpoint.address
        if request.param == "shared memory":
            session.transfers.endpoint.shared_memory = session.opened.shared_memory
            session.transfers.endpoint.address = ""
            assert session.transfers.endpoint.shared_memory

        def refuse(*_: Any) -> None:
            raise AssertionError("bytes went over gRPC")

        monkeypatch.setattr(session.channel, "client_stream", refuse)
        monkeypatch.setattr(session.channel, "server_stream", refuse)
    else:
        session.transfers.endpoint.address = ""
        session.checksums = "checksums" in request.param
    return str(request.param)


@pytest.fixture
def numbers() -> np.ndarray[Any, Any]:
    """More than fits into one message, one chunk or one buffer of a socket."""
    return np.arange(COUNT, dtype=np.float32).reshape(2, -1)


@pytest.mark.parametrize("dtype", ["float32", "bool", "complex64", "int8", "float64"])
def test_a_large_array_comes_back_as_it_went(way: str, tc: ModuleType, dtype: str) -> None:
    array = (np.arange(4 << 20) % 3).astype(dtype).reshape(4, 1024, -1)
    back = tc.from_numpy(array).numpy()
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_the_array_may_be_changed_as_soon_as_the_call_returns(
    way: str, tc: ModuleType, numbers: np.ndarray[Any, Any]
) -> None:
    before = numbers.copy()
    x = tc.from_numpy(numbers)
    numbers[:] = -1
    assert np.array_equal(x.numpy(), before)


def test_elements_go_into_an_array_of_the_callers(way: str, tc: ModuleType, numbers: np.ndarray[Any, Any]) -> None:
    out = np.zeros_like(numbers)
    assert tc.from_numpy(numbers).numpy(out=out) is out
    assert np.array_equal(out, numbers)


def test_elements_go_into_an_array_with_gaps(way: str, tc: ModuleType, numbers: np.ndarray[Any, Any]) -> None:
    whole = np.zeros((4, numbers.shape[1]), np.float32)
    tc.from_numpy(numbers).numpy(out=whole[::2])
    assert np.array_equal(whole[::2], numbers)
    assert not whole[1::2].any()


def test_few_elements_go_into_an_array_too(tc: ModuleType) -> None:
    out = np.zeros((2, 3), np.float32)
    assert tc.ones(2, 3).numpy(out=out) is out
    assert out.all()


@pytest.mark.parametrize(
    ("out", "error", "naming"),
    [
        pytest.param(np.zeros((2, COUNT // 2)), TypeError, "float64", id="dtype"),
        pytest.param(np.zeros((3, 5), np.float32), ValueError, "(3, 5)", id="shape"),
        pytest.param(np.broadcast_to(np.float32(0), (2, COUNT // 2)), ValueError, "read-only", id="read-only"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(
    way: str, tc: ModuleType, numbers: np.ndarray[Any, Any], out: Any, error: type[Exception], naming: str
) -> None:
    x = tc.from_numpy(numbers)
    with pytest.raises(error) as caught:
        x.numpy(out=out)
    assert naming in str(caught.value)
    assert not out.any()
    assert x[0, 5].item() == 5


def test_a_write_during_a_download_is_not_seen_by_it(way: str, tc: ModuleType, numbers: np.ndarray[Any, Any]) -> None:
    x = tc.from_numpy(np.tile(numbers, (8, 1)))
    before = x.numpy()
    written = threading.Event()

    def write(done: int, total: int) -> None:
        if not written.is_set():
            written.set()
            x.zero_()
            assert x[0, 1].item() == 0

    current().progress = write
    assert np.array_equal(x.numpy(), before)
    assert written.is_set()
    assert not x.numpy().any()


def test_a_function_is_told_how_a_transfer_gets_on(way: str, tc: ModuleType, numbers: np.ndarray[Any, Any]) -> None:
    told: list[tuple[int, int]] = []
    current().progress = lambda done, total: told.append((done, total))
    x = tc.from_numpy(numbers)
    assert told[-1] == (numbers.nbytes, numbers.nbytes)
    told.clear()
    x.numpy()
    assert told[-1] == (numbers.nbytes, numbers.nbytes)
    assert told == sorted(told)


def test_threads_move_tensors_at_once(way: str, tc: ModuleType, numbers: np.ndarray[Any, Any]) -> None:
    session = current()
    wrong: list[int] = []

    def there_and_back(number: int) -> None:
        with session.use():
            if not np.array_equal(tc.from_numpy(numbers + number).numpy(), numbers + number):
                wrong.append(number)

    threads = [threading.Thread(target=there_and_back, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert not wrong


def test_where_the_port_is_closed_bytes_go_over_grpc(tc: ModuleType, numbers: np.ndarray[Any, Any]) -> None:
    session = current()
    # A reserved port: nobody listens there.
    session.transfers.endpoint.address = ":1"
    assert np.array_equal(tc.from_numpy(numbers).numpy(), numbers)
    assert session.transfers.endpoint.address == "", "it is not tried again"


def test_a_connection_carries_many_transfers(way: str, tc: ModuleType, numbers: np.ndarray[Any, Any]) -> None:
    session = current()
    tickets = []
    call = session.channel.call

    def counted(path: str, *args: Any, **kwargs: Any) -> Any:
        tickets.append(path.rpartition("/")[2])
        return call(path, *args, **kwargs)

    session.channel.call = counted  # type: ignore[method-assign]
    for number in range(3):
        assert np.array_equal(tc.from_numpy(numbers + number).numpy(), numbers + number)
    assert tickets == ([] if way.startswith("gRPC") else ["OpenTransfer"])


def test_a_connection_that_ended_while_it_rested_is_replaced(
    tc: ModuleType, numbers: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = current()
    monkeypatch.setattr(session.channel, "client_stream", None)
    tc.from_numpy(numbers)
    (rested,) = session.transfers.endpoint.resting
    rested.socket.shutdown(socket.SHUT_RDWR)
    assert np.array_equal(tc.from_numpy(numbers)[1].numpy(), numbers[1])
    assert rested not in session.transfers.endpoint.resting


def test_memory_is_shared_only_where_the_client_wants_it(server: HasAddress, numbers: np.ndarray[Any, Any]) -> None:
    import tclient

    with tclient.connect(server.address) as session:
        assert session.opened.shared_memory
        assert session.transfers.endpoint.shared_memory == ""
    with tclient.connect(server.address, shared_memory=True) as session:
        assert np.array_equal(tclient.from_numpy(numbers).numpy(), numbers)
        assert session.transfers.endpoint.resting[0].where == session.opened.shared_memory


def test_where_memory_cannot_be_shared_bytes_go_over_the_data_endpoint(
    tc: ModuleType, numbers: np.ndarray[Any, Any]
) -> None:
    session = current()
    session.transfers.endpoint.shared_memory = "nobody-listens-here"
    assert np.array_equal(tc.from_numpy(numbers).numpy(), numbers)
    assert session.transfers.endpoint.shared_memory == "", "it is not tried again"
    assert session.transfers.endpoint.resting[0].where == session.transfers.endpoint.address


@pytest.fixture
def cut_after(server: HasAddress, tc: ModuleType) -> Iterator[Any]:
    """A function that has the data connection of the session cut after so many bytes."""
    session = current()
    with Proxy(f"127.0.0.1{session.transfers.endpoint.address}") as proxy:

        def cut(direction: Direction, count: int) -> Session:
            proxy.cut_after(count, direction)
            session.transfers.endpoint.address = proxy.address
            return session

        cut.proxy = proxy  # type: ignore[attr-defined]
        yield cut


@pytest.mark.parametrize("count", [8, 3 << 20], ids=["in the ticket", "in the middle"])
def test_an_upload_that_is_cut_goes_on_over_grpc(
    cut_after: Any, tc: ModuleType, numbers: np.ndarray[Any, Any], count: int
) -> None:
    cut_after(Direction.TO_SERVER, count)
    assert np.array_equal(tc.from_numpy(numbers)[0, :100].numpy(), numbers[0, :100])
    assert cut_after.proxy.cuts == 1


@pytest.mark.parametrize("count", [1, 3 << 20], ids=["at once", "in the middle"])
def test_a_download_that_is_cut_goes_on_over_grpc(
    cut_after: Any, tc: ModuleType, numbers: np.ndarray[Any, Any], count: int
) -> None:
    x = tc.from_numpy(numbers)
    cut_after(Direction.TO_CLIENT, count)
    assert np.array_equal(x.numpy(), numbers)
    assert cut_after.proxy.cuts == 1


@pytest.fixture(scope="module")
def small() -> Iterator[HasAddress]:
    """A server with no data endpoint, and a quota."""
    with serving("--data-listen", "", "--max-session-bytes", str(16 << 20)) as server:
        yield server


def test_a_server_may_have_no_data_endpoint(small: HasAddress, numbers: np.ndarray[Any, Any]) -> None:
    import tclient

    with tclient.connect(small.address, shared_memory=True) as session:
        assert session.transfers.endpoint.address == ""
        assert session.transfers.endpoint.shared_memory == ""
        assert np.array_equal(tclient.from_numpy(numbers).numpy(), numbers)


def test_a_failed_upload_fails_the_call_that_needs_it(small: HasAddress, numbers: np.ndarray[Any, Any]) -> None:
    import tclient

    with tclient.connect(small.address):
        with pytest.raises(TensorError) as caught:
            tclient.from_numpy(np.tile(numbers, (4, 1)))
        assert str(16 << 20) in str(caught.value)
        assert tclient.ones(2).sum().item() == 2


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HasAddress, Path]]:
    """A server that speaks TLS, and who signed its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    both = str(folder / "both.pem")
    with serving("--tls-cert", both, "--tls-key", both) as server:
        yield server, folder / "authority.pem"


def test_with_tls_the_bytes_go_over_tls(
    secure: tuple[HasAddress, Path], numbers: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tclient

    server, authority = secure
    with tclient.connect(server.address, tls=authority) as session:
        monkeypatch.setattr(session.channel, "client_stream", None)
        monkeypatch.setattr(session.channel, "server_stream", None)
        assert np.array_equal(tclient.from_numpy(numbers).numpy(), numbers)
        assert session.transfers.endpoint.address, "it could be trusted"


@pytest.mark.slow
def test_a_tensor_of_more_than_two_gib_comes_and_goes(way: str, tc: ModuleType) -> None:
    count = (2 << 30) + (100 << 20)
    array = np.zeros(count, np.uint8)
    array[-3:] = 7
    x = tc.from_numpy(array)
    assert x[-4:].tolist() == [0, 7, 7, 7]
    array[:] = 1
    x.numpy(out=array)
    assert array[-4:].tolist() == [0, 7, 7, 7]
    assert array[: 1 << 20].sum() == 0

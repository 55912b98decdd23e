"""A server that is told to stop, and the next one in its place: clients go on as if it were one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tclient as tc
from tests.checkpoints.place import END_S, Place, trained
from tests.support.serving import serving, wait_until


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A server that keeps sessions."""
    made = Place(tmp_path)
    yield made
    made.server.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("kind", "steps", "reads"), [("SGD", 120, "behind"), ("Adam", 120, "before"), ("Adam", 600, "seldom")]
)
def test_a_loss_curve_is_the_same_bit_by_bit(place: Place, kind: str, steps: int, reads: str) -> None:
    with serving() as other:
        expected, _ = trained(other.address, kind, steps, reads).communicate(timeout=END_S)
    running = trained(place.address, kind, steps, reads)
    lines = []
    assert running.stdout is not None
    for line in running.stdout:
        lines.append(line)
        if line.split()[0] in (("37", "81") if steps == 120 else ("149", "399")):
            place.restart()
    _, errors = running.communicate(timeout=END_S)
    assert "".join(lines) == expected, errors
    assert expected.count("\n") > 8
    assert place.kept() == []


def test_two_thousand_additions_through_ten_restarts(place: Place) -> None:
    with tc.connect(place.address):
        x, y = tc.zeros(3), tc.zeros(3)
        for number in range(2000):
            x.add_(1)
            y = y + x
            if number % 200 == 100:
                place.restart()
        assert x.tolist() == [2000.0] * 3
        assert y.tolist() == [2000.0 * 2001 / 2] * 3
    assert place.kept() == []


def test_a_session_whose_files_were_tampered_with_is_lost_and_the_server_goes_on(place: Place) -> None:
    session = tc.connect(place.address)
    x = tc.ones(1000)
    session.synchronize()
    place.stop()
    (folder,) = place.kept()
    tensors = folder / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[len(data) // 2] ^= 1
    tensors.write_bytes(data)
    place.start()
    with pytest.raises(tc.SessionLost, match=r"could not be brought back .* does not have the sha256"):
        x.sum().item()
    session.close()
    with tc.connect(place.address):
        assert tc.ones(2).sum().item() == 2.0
    assert place.kept() == []


def test_bulk_bytes_and_lanes_go_to_where_they_are_after_a_restart(place: Place) -> None:
    with tc.connect(place.address) as session:
        data = np.arange(1 << 20, dtype=np.float32)
        x = tc.tensor(data)
        endpoint = session.transfers.endpoint
        assert endpoint.resting, "no connection to the data endpoint"
        before = endpoint.address, endpoint.lane_socket
        place.restart()
        assert np.array_equal((x + 1).numpy(), data + 1)
        assert [each.where for each in endpoint.resting] == [endpoint.address]

        def has_lane() -> bool:
            x.sum().item()
            return session._batches._sender.lane is not None

        wait_until(has_lane, 10.0, "a lane")
        assert endpoint.address != before[0]
        assert endpoint.lane_socket != before[1]


def test_what_needs_its_graph_says_after_a_restart_that_it_is_gone(place: Place) -> None:
    with tc.connect(place.address):
        w = tc.ones(3, requires_grad=True)
        loss = (w * w).sum()
        assert loss.item() == 3.0
        # It waits in vain for a point at which no graph is needed.
        place.restart()
        assert loss.item() == 3.0
        assert str(loss) == "tensor(3., grad_fn=<SumBackward0>)"
        loss.backward()
        with pytest.raises(RuntimeError, match="the graph of this tensor is gone, as the server was restarted"):
            tc.synchronize()
        (w * 2).sum().backward()
        assert w.grad is not None
        assert w.grad.tolist() == [2.0] * 3


def test_a_session_that_nobody_keeps_is_lost(tmp_path: Path) -> None:
    with serving("--data-dir", str(tmp_path)) as server:
        session = tc.connect(server.address)
        x = tc.ones(3)
        assert x.sum().item() == 3.0
        server.terminate()
        with serving("--data-dir", str(tmp_path), "--checkpoint-on-drain", listen=server.address):
            with pytest.raises(tc.SessionLost, match="earlier run"):
                x.sum().item()
            session.close()

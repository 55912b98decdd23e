"""An upload whose caller goes away while it waits for its turn takes no memory that nobody gives back."""

from __future__ import annotations

import asyncio

import pytest

from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as service_pb
from tserver.config import Config
from tserver.engine.engine import Engine
from tserver.session.session import Session

HEADER = service_pb.UploadHeader(id=5, dtype=pb.D_TYPE_FLOAT32, shape=[1000])


@pytest.mark.parametrize("gives_up", [True, False], ids=["goes away", "stays"])
def test_a_caller_who_goes_away_before_its_turn_leaves_nothing(engine: Engine, gives_up: bool) -> None:
    # The engine is not started yet: everything waits for its turn.
    queue = engine.open_queue()

    async def upload() -> None:
        session = Session(
            b"secret", "me", queue, config=Config(lease_s=60.0, max_unacked_bytes=1 << 20, max_batches_in_flight=4)
        )
        begun = asyncio.create_task(session.begin_upload(HEADER))
        await asyncio.sleep(0)
        if gives_up:
            begun.cancel()
            with pytest.raises(asyncio.CancelledError):
                await begun
        engine.start()
        if not gives_up:
            assert len((await begun).data) == 4000

    asyncio.run(upload())
    assert queue.run(lambda store: store.uploads.held_bytes).result() == (0 if gives_up else 4000)
    engine.stop()

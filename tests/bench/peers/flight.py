"""Arrow Flight in Python: uploads end in one contiguous array, downloads come from one, in batches of 4 MiB."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import flight

BATCH_BYTES = 4 << 20
SCHEMA = pa.schema([("bytes", pa.uint8())])


class Bulk(flight.FlightServerBase):  # type: ignore[misc] # pyarrow has no types
    """Takes and gives bytes."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._held = np.empty(0, np.uint8)

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Gather the batches in a fresh array of the announced size."""
        taken = np.empty(int(descriptor.path[0]), np.uint8)
        place = 0
        for chunk in reader:
            part = chunk.data.column(0).to_numpy(zero_copy_only=True)
            taken[place : place + part.size] = part
            place += part.size
        self._held = taken
        writer.write(b"done")

    def do_get(self, context: Any, ticket: Any) -> Any:
        """Send what was put last, or as many ones."""
        size_bytes = int(ticket.ticket)
        if self._held.size != size_bytes:
            self._held = np.ones(size_bytes // 4, np.float32).view(np.uint8)
            self._held.view(np.float32)[-1] = 7
        held = self._held
        starts = range(0, size_bytes, BATCH_BYTES)
        batches = (pa.record_batch([pa.array(held[at : at + BATCH_BYTES])], schema=SCHEMA) for at in starts)
        return flight.GeneratorStream(SCHEMA, batches)


def main() -> None:
    """Serve on a free port."""
    server = Bulk()
    print(server.port, flush=True)
    server.serve()


if __name__ == "__main__":
    main()

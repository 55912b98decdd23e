"""The bulk bytes of one session: which road they take, and what is open for them.

They go by the data endpoint where there is one, else in chunks over gRPC. Knows the channel; does not know what a
tensor is.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tclient._transfer import chunks
from tclient._transfer.arrays import Array, Fetched, memory_for
from tclient._transfer.data_endpoint import DataEndpoint
from tclient._transfer.progress import Progress, Wish
from tclient._transport.channel import Channel
from tclient._transport.limits import transferring
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc

# A connection is silent when nothing was heard of it for so long.
_HEARD_S = 0.5
# How long a chunk may take over gRPC: that of a mebibyte at 1 Mbit/s; and how much slower than others one may be, once
# it is known how long they take.
_CHUNK_S = 8.0
_SLOWER = 4.0


class Transfers:
    """Uploads and downloads of a session."""

    def __init__(self, channel: Channel, opened: rpc.OpenSessionResponse, *, shared_memory: bool) -> None:
        self.channel = channel
        self.endpoint = DataEndpoint(channel, opened, shared_memory=shared_memory)
        # Whether bulk bytes carry a checksum of ours. They go over gRPC then.
        self.checksums = False
        # Whether a transfer of more than a second shows a bar on a terminal; or a function of (done, total) in bytes.
        self.progress: Wish = True
        # Servers that this one was not reached from, by their addresses, and until when that is not tried again.
        self.unreached: dict[str, float] = {}
        self.context = rpc.SessionContext(session=opened.session)
        self.max_chunk_bytes = opened.limits.max_chunk_bytes
        self.lease_s = opened.lease_s
        # Those that are under way, and a number that is another one whenever they get on.
        self._under_way: set[object] = set()
        self._step = 0
        self._last_chunk = 0.0
        self._chunk_bytes = 0

    # ---- for who notices that the network is silent (_session/vigil.py) -------------------------------------------

    # Calls wait for bytes that move, and not the other way round.
    yields_to_bulk = False

    def first_owed(self) -> int:
        """See vigil.Owing. The kernel knows when something was heard of a connection; of gRPC's, the chunks do."""
        if not self._under_way:
            return 0
        heard_ago_s = self.endpoint.heard_ago_s()
        chunks = self.channel.chunks
        last = chunks[-1] if chunks else 0.0
        if last != self._last_chunk or (heard_ago_s is not None and heard_ago_s < _HEARD_S):
            self._last_chunk = last
            self._step += 1
        return self._step

    def question(self, owed: int) -> rpc.GetSessionProgressRequest:
        """See vigil.Owing."""
        return rpc.GetSessionProgressRequest(session=self.context.session)

    def on_its_way(self, owed: int, progress: rpc.GetSessionProgressResponse) -> int | None:
        """See vigil.Owing. What waits for the engine has come."""
        moved, self._chunk_bytes = progress.chunk_bytes != self._chunk_bytes, progress.chunk_bytes
        return None if progress.waiting or moved else 0

    def patience_s(self) -> float:
        """See vigil.Owing. So long a chunk may take; of the data endpoint's connections more is known."""
        if not self.channel.moves_bulk:
            return 0.0
        times = list(self.channel.chunks)
        if len(times) < (self.channel.chunks.maxlen or 0):
            return _CHUNK_S
        return min(_CHUNK_S, _SLOWER * (times[-1] - times[0]) / (len(times) - 1))

    @contextlib.contextmanager
    def _moving(self, what: str) -> Iterator[None]:
        token = object()
        self._step += 1
        self._under_way.add(token)
        try:
            with transferring(self.channel, what):
                yield
        finally:
            self._under_way.discard(token)

    # ---- transfers -----------------------------------------------------------------------------------------------

    def upload(self, number: int, dtype_code: int, shape: Sequence[int], data: memoryview | bytes) -> None:
        """Send the bytes of an array under an id, for HostArray.upload. Raises: a ServerError."""
        view = memoryview(data)
        header = rpc.UploadHeader(id=number, dtype=pb.DType.Name(pb.DType.ValueType(dtype_code)), shape=shape)
        self.channel.stats.uploads += 1
        with self._moving("upload"):
            if self.checksums:
                header.crc32 = zlib.crc32(view)
            elif self.endpoint.upload(header, view, self.progress):
                return
            with Progress(self.progress, "upload", len(view)) as progress:
                self.upload_chunks(header, view, progress.reach)

    def upload_chunks(self, header: rpc.UploadHeader, view: memoryview, reach: Callable[[int], object]) -> None:
        """The same over gRPC. `reach` is told how many bytes are sent. Raises: a ServerError."""
        header.context.CopyFrom(self.context)
        chunks.upload(self.channel, header, view, reach, max_chunk_bytes=self.max_chunk_bytes, within_s=self.lease_s)

    def download(self, number: int, out: Array | None = None) -> Fetched:
        """Fetch a staged copy: its dtype code, its shape, and its bytes, which are those of `out` where that can be
        filled as it is. Raises: a ServerError; TypeError and ValueError if `out` does not fit.
        """
        request = rpc.DownloadRequest(tensor=pb.Ref(id=number), without_crc32=not self.checksums)
        self.channel.stats.downloads += 1
        with self._moving("download"):
            if not self.checksums:
                buffer = np.empty(0, np.uint8)

                def memory(answer: rpc.OpenTransferResponse) -> memoryview:
                    nonlocal buffer
                    buffer = memory_for(answer.dtype, answer.shape, answer.size_bytes, out)
                    return buffer.data

                answer = self.endpoint.download(request, memory, self.progress)
                if answer is not None:
                    return answer.dtype, tuple(answer.shape), buffer
            request.context.CopyFrom(self.context)
            return chunks.download(self.channel, request, out, self.progress, within_s=self.lease_s)

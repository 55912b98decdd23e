"""The bulk bytes of one session: which road they take, and what is open for them.

They go by the data endpoint where there is one, else in chunks over gRPC. Knows the channel; does not know what a
tensor is.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from tclient._transfer import chunks
from tclient._transfer.arrays import Array, Fetched, memory_for
from tclient._transfer.data_endpoint import DataEndpoint
from tclient._transfer.progress import Progress, Wish
from tclient._transport.channel import Channel
from tclient._transport.limits import transferring
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc


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

    def upload(self, number: int, dtype_code: int, shape: Sequence[int], data: memoryview | bytes) -> None:
        """Send the bytes of an array under an id, for HostArray.upload. Raises: a ServerError."""
        view = memoryview(data)
        header = rpc.UploadHeader(id=number, dtype=pb.DType.Name(pb.DType.ValueType(dtype_code)), shape=shape)
        self.channel.stats.uploads += 1
        with transferring(self.channel, "upload"):
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
        with transferring(self.channel, "download"):
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

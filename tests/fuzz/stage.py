"""An engine in this process, with the session that is attacked from and one beside it that nothing may happen to.

Fresh and freed memory is marked, so that bytes that nobody has written for the session show; what the other session
holds is marked, too. Tensors that arrive with a call lie against a page that nobody may touch: a read or write behind
their end is a fault and not a quiet leak.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tests.fuzz import words
from tserver.config import Config
from tserver.engine import values
from tserver.engine.engine import Engine
from tserver.engine.object_store import Parts
from tserver.engine.operations import Operation

_M_PERTURB = -6
_MEMORY_BYTES = 1 << 30
_SCANNED_BYTES = 1 << 16
# glibc fills freed memory with this byte, and fresh memory with its complement. No drawn number has them, nor has what
# it is rounded to in a dtype of one byte.
MARKS = (0x7D, 0x7A)
SECRET = b"\x5e\xc2\xe7\x5e\xc2\xe7\x33\x47"
# So many marked bytes in a row are no chance; but a sorted tensor of bytes has as many of each.
_RUN = 8
_RUN_OF_BYTES = 256
_PAGE = mmap.PAGESIZE


class Fence:
    """Memory that ends at a page that nobody may touch, and begins with the secret."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def place(self, content: bytes, dtype: torch.dtype) -> torch.Tensor:
        """A flat tensor of these bytes, against a fence. Its memory goes when the tensor does."""
        pages = -(-len(content) // _PAGE)
        memory = mmap.mmap(-1, (pages + 1) * _PAGE)
        start = pages * _PAGE - len(content)
        memory[:start] = (SECRET * (start // len(SECRET) + 1))[:start]
        memory[start : pages * _PAGE] = content
        whole = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._libc.mprotect(whole + pages * _PAGE, _PAGE, 0)
        return torch.frombuffer(memory, dtype=dtype, offset=start, count=len(content) // dtype.itemsize)


class Stage:
    """The engine and its two sessions. For a child: it changes limits and the C library's settings for good."""

    def __init__(self) -> None:
        _restrain()
        self._libc = ctypes.CDLL(None)
        self._faults: list[str] = []
        self._engine = Engine(Config(device="cpu", threads=1), on_fatal=self._faults.append)
        self._fence = Fence()
        self._unfenced = values.tensor_from_bytes
        values.tensor_from_bytes = self._place
        self._queue = self._engine.open_queue()
        self.objects = self._queue.store.objects
        self._victim = self._engine.open_queue()
        self._marks = self._marks_of_bytes = _marks(MARKS[0], _RUN)
        self._kept: list[torch.Tensor] = []
        self._replies: list[bytes] = []
        self._seq = 0
        self._defined: list[Operation] = []

    def _place(self, dtype: torch.dtype, shape: list[int], data: Any, *, copy: bool = True) -> torch.Tensor:
        tensor = self._unfenced(dtype, shape, data, copy=copy)
        if not tensor.nbytes or dtype is torch.bool:
            return tensor
        return self._fence.place(bytes(data), dtype).reshape(shape)

    def begin(self, operations: Sequence[str], contexts: Sequence[pb.Context], mark: int = MARKS[0]) -> None:
        """An empty session with these operations and contexts, and memory that is marked anew."""
        self._libc.mallopt(_M_PERTURB, mark)
        self._marks = _marks(mark, _RUN)
        self._marks_of_bytes = _marks(mark, _RUN_OF_BYTES)
        self._queue.close()
        self._turn()
        self._queue = self._engine.open_queue()
        self._queue.store.state.load()
        self.objects = self._queue.store.objects
        self._seq = 0
        self._kept.clear()
        self._furnish()
        if self._defined:
            # To define more than a thousand names by a batch takes as long as all the calls of a sequence.
            self._queue.store.operations.extend(self._defined)
            self._submit(pb.Batch(define_contexts=contexts))
        else:
            self._submit(pb.Batch(define_operations=operations, define_contexts=contexts))
            self._defined = list(self._queue.store.operations)

    def _furnish(self) -> None:
        """The other session's tensors, with holes between them where freed ones were."""
        secret = torch.frombuffer(bytearray(SECRET * 512), dtype=torch.float32)
        held = [secret[: 2 << (index % 9)].clone() for index in range(54)]
        self._kept = held[::2]
        self._victim.store.objects.update(enumerate(self._kept, 1))

    def run(self, batch: pb.Batch) -> pb.BatchReply:
        """Run the calls of a batch."""
        return self._submit(pb.Batch(calls=batch.calls, packed=batch.packed))

    def _submit(self, batch: pb.Batch) -> pb.BatchReply:
        self._seq += 1
        batch.seq = self._seq
        self._queue.submit(batch, self._replies.append)
        self._turn()
        self._reply = self._replies.pop()
        return pb.BatchReply.FromString(self._reply)

    def _turn(self) -> None:
        self._engine.ready.get()
        executor = self._engine.executor
        while self._queue.run_slice(executor, lambda: False):
            pass
        executor.leave_mode()

    def look(self, batch: pb.Batch, reply: pb.BatchReply) -> tuple[str, int]:
        """What is wrong after a batch ("" if nothing), and a sum over all that it showed or could have written."""
        if self._faults:
            return f"broken: the engine gave up: {self._faults.pop()}", 0
        for result in reply.results:
            if result.error.reason == "INTERNAL":
                return f"broken: {result.error.message}", 0
        if words.keeps_rules(batch) is any("break the rules" in result.error.message for result in reply.results):
            return "rules: of the words of a batch the engine holds otherwise than the contract", 0
        for mark in self._marks_of_bytes:
            if mark in self._reply:
                return f"shown: the reply has bytes {mark[:2].hex()}, which were not written for this session", 0
        total = 0
        for tensor in self._touched(batch):
            trouble = misfit(tensor)
            if trouble:
                return trouble, 0
            content = _content(tensor)
            for mark in self._marks if tensor.itemsize > 1 else self._marks_of_bytes:
                if mark in content:
                    return f"shown: a tensor has bytes {mark[:2].hex()}, which were not written for this session", 0
            total = zlib.crc32(content, total)
        return "", total

    def look_around(self) -> str:
        """What is wrong after a sequence: with any tensor held, or with the other session."""
        for tensor in _tensors(self.objects.values()):
            trouble = misfit(tensor)
            if trouble:
                return trouble
        whole = SECRET * 512
        for tensor in self._kept:
            if _content(tensor) != whole[: tensor.nbytes]:
                return "changed: a tensor of another session"
        return ""

    def _touched(self, batch: pb.Batch) -> Iterator[torch.Tensor]:
        ids = touched(batch)
        for tensor in _tensors([self.objects[one] for one in ids if one in self.objects]):
            yield tensor
            # A view whose base was changed may refuse even to say this.
            with contextlib.suppress(RuntimeError):
                if tensor.is_leaf and tensor.grad is not None:
                    yield tensor.grad


def _marks(mark: int, run: int) -> tuple[bytes, ...]:
    """What shows memory that nobody has written: freed, fresh, of another session."""
    return bytes([mark]) * run, bytes([mark ^ 0xFF]) * run, SECRET


def misfit(tensor: torch.Tensor) -> str:
    """Why a tensor must not be held, or "". Its extent is added up in integers that cannot wrap."""
    if tensor.layout is torch.sparse_coo:
        return _misfit_of_sparse(tensor)
    if tensor.layout is not torch.strided:
        return f"layout: a tensor of layout {tensor.layout} is held"
    if tensor.device.type == "meta" or not all(tensor.shape):
        return ""
    steps = [(size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True)]
    first = tensor.storage_offset() + sum(step for step in steps if step < 0)
    last = tensor.storage_offset() + sum(step for step in steps if step > 0)
    room = tensor.untyped_storage().nbytes() // tensor.itemsize
    if first < 0 or last >= room:
        return f"extent: a tensor is held that reaches from {first} to {last} in a storage of {room} elements"
    return ""


def _misfit_of_sparse(tensor: torch.Tensor) -> str:
    indices, values = tensor._indices(), tensor._values()
    try:
        torch._validate_sparse_coo_tensor_args(indices, values, tensor.shape, tensor.is_coalesced())
    except RuntimeError as error:
        return f"indices: a sparse tensor is held that is none: {error}"
    return misfit(indices) or misfit(values)


def _content(tensor: torch.Tensor) -> bytes:
    if tensor.layout is not torch.strided:
        # What is behind the parts of a result is unwritten, too, and nobody gets to see it.
        parts = (tensor._indices(), tensor._values()) if tensor.is_cpu else ()
        return b"".join(ctypes.string_at(part.data_ptr(), part.nbytes) for part in parts if part.is_contiguous())
    if tensor.device.type != "cpu" or torch._is_zerotensor(tensor):
        return b""
    storage = tensor.untyped_storage()
    size = min(storage.nbytes(), _SCANNED_BYTES)
    return ctypes.string_at(storage.data_ptr(), size) if size else b""


def _tensors(held: Any) -> Iterator[torch.Tensor]:
    for one in held:
        if isinstance(one, torch.Tensor):
            yield one
        elif isinstance(one, Parts):
            yield from (part for part in one.by_path.values() if isinstance(part, torch.Tensor))


def _named(arguments: Any) -> Iterator[int]:
    for value in arguments:
        match value.WhichOneof("kind"):
            case "result":
                yield value.result
            case "ref":
                yield value.ref.id
            case "list":
                yield from _named(value.list.items)
            case "tuple":
                yield from _named(value.tuple.items)


def touched(batch: pb.Batch) -> list[int]:
    """The ids that the calls of a batch make or refer to, each once."""
    found: dict[int, None] = {}
    for call in words.calls_of(batch):
        found |= dict.fromkeys((call.id, *_named(call.args), *_named([entry.value for entry in call.kwargs])))
    return list(found)


def _restrain() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_BYTES, used + _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

"""The hunt for crashes: every operation of the table, on damaged arguments, in children that may die.

Tensors lie against a forbidden page, so that a read or write behind their end is a fault and not a quiet leak.
Run by hand to look for more: python -m tests.operations.hunt SEED ROUNDS [NAME,NAME…]
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import random
import resource
import struct
import sys
import time
import warnings
from itertools import islice
from typing import Any

import torch

from tests.operations.calls import Invocation, copied, from_torch, from_us, operators, tensors
from tests.operations.samples import SAMPLES
from tserver.engine.guards import guarded

_PAGE = mmap.PAGESIZE
_PER_CHILD = 4000
_BLOCKED_AFTER_S = 15.0
_MEMORY_BYTES = 6 << 30
# They say the same of every argument, or change the process that hunts. rfftfreq makes the gigabytes it is asked for.
_SPARED = {"seed", "set_default_dtype", "set_printoptions", "fft.rfftfreq", "fft.fftfreq"}

_INTEGERS = [
    0,
    -1,
    1,
    2,
    -2,
    3,
    5,
    7,
    64,
    -100,
    1000,
    2**20,
    2**31 - 1,
    2**31,
    -(2**31),
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
]
_SMALL = [0, -1, 1, 2, -2, 3, 4, 5, 7, -7]
_FLOATS = [0.0, -1.0, 1.0, 0.5, float("nan"), float("inf"), -float("inf"), 1e308, 1e-308, 2.0**63, -3.7]
_DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.int8),
    *(torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn),
]


class _Fence:
    """Memory that ends at a page that nobody may touch."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self._libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._maps: list[tuple[int, int]] = []

    def place(self, value: Any) -> Any:
        """The same argument, with its dense tensors against a fence."""
        if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
            return type(value)(self.place(item) for item in value)
        if not isinstance(value, torch.Tensor) or not value.numel() or not value.is_contiguous():
            return value
        size = value.numel() * value.itemsize
        pages = -(-size // _PAGE)
        start = self._libc.mmap(None, (pages + 1) * _PAGE, 3, 0x22, -1, 0)
        self._libc.mprotect(start + pages * _PAGE, _PAGE, 0)
        self._maps.append((start, (pages + 1) * _PAGE))
        buffer = (ctypes.c_char * size).from_address(start + pages * _PAGE - size)
        return torch.frombuffer(buffer, dtype=value.dtype).view(value.shape).copy_(value)

    def clear(self) -> None:
        """Give the memory back."""
        for start, size in self._maps:
            self._libc.munmap(start, size)
        self._maps.clear()


def _damaged_tensor(tensor: torch.Tensor, chance: random.Random) -> torch.Tensor:
    real = tensor.is_floating_point() or tensor.is_complex()
    numbers: list[Any] = [*_FLOATS, 2.0**40] if real else list(_INTEGERS)
    sizes = list(tensor.shape)
    match chance.choice(range(10) if real else [0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]):
        case 0 if sizes:
            sizes[chance.randrange(len(sizes))] = 0
            return torch.zeros(sizes, dtype=tensor.dtype)
        case 1 if tensor.numel() and tensor.is_contiguous():
            damaged = tensor.clone()
            damaged.view(-1)[chance.randrange(tensor.numel())] = chance.choice(numbers)
            return damaged
        case 2:
            return torch.full_like(tensor, chance.choice(numbers))
        case 3:
            return tensor.to(chance.choice(_DTYPES))
        case 4:
            return tensor.reshape(-1)[:1].reshape(()) if tensor.numel() else tensor.new_zeros(())
        case 5:
            return tensor.unsqueeze(chance.randrange(tensor.dim() + 1))
        case 6:
            return torch.ones([max(0, size + chance.choice([-1, 0, 1, 2])) for size in sizes]).to(tensor.dtype)
        case 7 if sizes and sizes[0]:
            return tensor[:1].expand(chance.choice([1, 3, 5]), *sizes[1:])
        case 8 if tensor.dim() > 1:
            return tensor.transpose(0, -1)
        case _:
            return torch.ones([chance.randrange(4) for _ in range(chance.randrange(6))]).to(tensor.dtype)


def _damaged(value: Any, chance: random.Random) -> Any:
    match value:
        case torch.Tensor():
            return _damaged_tensor(value, chance)
        case bool():
            return not value
        case int():
            return chance.choice(chance.choice([_INTEGERS, _SMALL]))
        case float():
            return chance.choice(_FLOATS)
        case None:
            return chance.choice([None, 0, 1, -1, torch.ones(2), torch.zeros(3, dtype=torch.int64), [0], 2.0])
        case str():
            return chance.choice(["", "mean", "sum", "none", "constant", "reflect", "circular", "replicate"])
        case torch.dtype():
            return chance.choice(_DTYPES)
        case slice():
            return slice(chance.choice(_SMALL), chance.choice(_SMALL), chance.choice([1, 2, 3]))
        case list() | tuple():
            return _damaged_sequence(list(value), chance)
    return value


def _damaged_sequence(items: list[Any], chance: random.Random) -> list[Any]:
    where = chance.randrange(len(items)) if items else 0
    match chance.randrange(6):
        case 0 if items:
            items.pop(where)
        case 1:
            items.append(items[-1] if items else 1)
        case 2:
            items.clear()
        case _ if items:
            items[where] = _damaged(items[where], chance)
    return items


def _text(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        elements = f"={value.tolist()}" if value.numel() <= 12 else ""
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}{elements}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_text, value))}]"
    return repr(value)


class _Hunt:
    """One seed's cases, and the shared page on which a child says what it is about to do."""

    def __init__(self, seed: str, rounds: int, only: set[str] | None) -> None:
        self._seed = seed
        self._fence = _Fence()
        self._page = mmap.mmap(-1, 2 * _PAGE)
        self._by_name: dict[str, list[Invocation]] = {}
        calls = [call for name in SAMPLES for call in from_us(name)]
        calls += [call for operator in operators() for call in from_torch(operator, 6)]
        for call in calls:
            name = call.entry["name"]
            if call.entry["kind"] != "property" and name not in _SPARED and (not only or name in only):
                self._by_name.setdefault(name, []).append(call)
        self._cases = [(name, turn) for turn in range(rounds) for name in sorted(self._by_name)]

    def run(self) -> list[str]:
        """What ended or blocked a child."""
        found: list[str] = []
        position = 0
        while position < len(self._cases):
            self._announce(position, "")
            child = os.fork()
            if child == 0:
                self._be_the_child(position)
            how = self._wait(child)
            last, text = self._announced()
            if how:
                found.append(f"{how}: {text}")
            position = last + 1
        return found

    def _be_the_child(self, position: int) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        warnings.simplefilter("ignore")
        for index in range(position, min(position + _PER_CHILD, len(self._cases))):
            with contextlib.suppress(Exception):
                self._try(index)
            self._fence.clear()
        os._exit(0)

    def _try(self, index: int) -> None:
        name, turn = self._cases[index]
        chance = random.Random(f"{self._seed}:{name}:{turn}")
        call = chance.choice(self._by_name[name])
        args, kwargs = list(copied(call.args)), copied(call.kwargs)
        places: list[Any] = [*range(len(args)), *kwargs]
        for _ in range(chance.choice([1, 1, 2, 3]) if places else 0):
            place = chance.choice(places)
            holder: Any = args if isinstance(place, int) else kwargs
            holder[place] = _damaged(holder[place], chance)
        args = [self._fence.place(value) for value in args]
        kwargs = {key: self._fence.place(value) for key, value in kwargs.items()}
        with_gradients = chance.random() < 0.3
        if with_gradients:
            for tensor in tensors(args):
                tensor.requires_grad_(tensor.is_floating_point() or tensor.is_complex())
        named = ", ".join([*map(_text, args), *(f"{key}={_text(value)}" for key, value in kwargs.items())])
        self._announce(index, f"{name}({named}) gradients={with_gradients}")
        result = guarded(name, call.target)(*args, **kwargs)
        made = [tensor for tensor in islice(tensors(result), 8) if tensor.numel() < 1 << 20]
        for tensor in made:
            tensor.detach().clone()
        wanted = [tensor for tensor in made if tensor.requires_grad]
        if wanted:
            torch.autograd.backward(wanted, [torch.ones_like(tensor) for tensor in wanted])

    def _announce(self, index: int, text: str) -> None:
        data = text.encode()[:_PAGE]
        self._page[:16] = struct.pack("qd", index, time.monotonic())
        self._page[16 : 17 + len(data)] = data + b"\0"

    def _announced(self) -> tuple[int, str]:
        index, _ = struct.unpack("qd", self._page[:16])
        return index, self._page[16 : 16 + _PAGE].split(b"\0")[0].decode(errors="replace")

    def _wait(self, child: int) -> str:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return "" if status == 0 else f"ended with status {status}"
            _, since = struct.unpack("qd", self._page[:16])
            if time.monotonic() - since > _BLOCKED_AFTER_S:
                os.kill(child, 9)
                os.waitpid(child, 0)
                return f"blocked for {_BLOCKED_AFTER_S:.0f} s"
            time.sleep(0.02)


def hunt(seed: str, rounds: int, only: set[str] | None = None) -> list[str]:
    """Every operation so many times on damaged arguments; what ended or blocked a process."""
    torch.set_num_threads(1)
    return _Hunt(seed, rounds, only).run()


if __name__ == "__main__":
    names = set(sys.argv[3].split(",")) if len(sys.argv) > 3 else None
    print("\n".join(hunt(sys.argv[1], int(sys.argv[2]), names)) or "nothing found")

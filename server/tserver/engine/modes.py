"""The modes a call runs under: gradients, inference, autocast, the current GPU; and a session's state of the process.

Both are put in place before a session's calls and taken away after them, on the one thread that runs torch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
import torch._tensor_str as tensor_str

from tensorcompute.v1 import tensor_pb2 as pb
from tserver.engine.dtypes import DTYPES
from tserver.engine.streams import StreamPair, pair_like, take_pair
from tserver.errors import InvalidArgument


class Mode:
    """What a thread of the client has switched on."""

    __slots__ = ("_autocast", "_gpu", "_inference", "_no_grad", "_stacks")

    def __init__(self, context: pb.Context) -> None:
        self._no_grad = context.no_grad
        self._inference = context.inference
        self._autocast = []
        for entry in context.autocast:
            if entry.device_type not in ("cpu", "cuda"):
                raise InvalidArgument(f"autocast has device type {entry.device_type!r}; use 'cpu' or 'cuda'")
            dtype = DTYPES.get(entry.dtype)
            self._autocast.append((entry.device_type, dtype, entry.enabled, entry.cache_enabled))
        self._gpu = context.cuda_device if context.HasField("cuda_device") else None
        if self._gpu is not None and self._gpu >= (count := torch.cuda.device_count()):
            raise InvalidArgument(f"cuda:{self._gpu} is to be the current GPU; there are {count} here")
        # One for each time that it is in force: a program may enter it again within itself.
        self._stacks: list[ExitStack] = []

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *error: object) -> None:
        self.leave()

    def enter(self) -> None:
        """Switch on."""
        stack = ExitStack()
        # Entered first, so that what follows may change grad mode within it.
        if self._inference:
            stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.set_grad_enabled(not self._no_grad))
        for device_type, dtype, enabled, cache_enabled in self._autocast:
            stack.enter_context(torch.autocast(device_type, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled))
        if self._gpu is not None:
            stack.enter_context(torch.cuda.device(self._gpu))
        self._stacks.append(stack)

    def leave(self) -> None:
        """Switch off."""
        self._stacks.pop().close()


class ProcessState:
    """A session's share of what torch keeps once per process: random state, default dtype, print options, streams.

    To change sessions costs no wait: the random state of a CUDA device is a seed and an offset, which torch keeps on
    the host.
    """

    __slots__ = ("_beside", "_cuda", "_dtype", "_print_options", "_random", "device", "others", "pair")

    def __init__(self, device: torch.device, beside: Sequence[torch.device] = ()) -> None:
        """`device` is the default one; `beside` are the other GPUs that the session may name."""
        fresh = torch.Generator()
        fresh.seed()
        self._random = fresh.get_state()
        self._cuda: list[torch.Tensor] | None = None
        self.device, self._beside = device, beside
        # Where the session's work runs; None before it first runs, and where work is done at once. And the same on the
        # other GPUs.
        self.pair: StreamPair | None = None
        self.others: list[StreamPair] = []
        self._dtype = torch.float32
        self._print_options = copy.copy(_DEFAULT_PRINT_OPTIONS)

    def load(self) -> None:
        """Put this session's state in place."""
        torch.default_generator.set_state(self._random)
        if torch.cuda.is_initialized():
            if self.pair is None and (pair := take_pair(self.device)) is not None:
                self.pair = pair
                self.others = [pair_like(pair, other) for other in self._beside]
            self.enter_streams()
            if self._cuda is None:
                seed = torch.default_generator.initial_seed()
                for generator in torch.cuda.default_generators:
                    generator.manual_seed(seed)
            else:
                for generator, state in zip(torch.cuda.default_generators, self._cuda, strict=True):
                    generator.set_state(state)
        torch.set_default_dtype(self._dtype)
        tensor_str.PRINT_OPTS = self._print_options

    def enter_streams(self) -> None:
        """Let this thread's work run where the session's does; the default GPU is the current one then."""
        for other in self.others:
            other.enter()
        # To enter a stream has its GPU become the current one.
        if self.pair is not None:
            self.pair.enter()

    def pair_on(self, device: torch.device) -> StreamPair | None:
        """Where the session's work runs on a device."""
        for other in self.others:
            if other.work.device == device:
                return other
        return self.pair

    def save(self) -> None:
        """Take this session's state away."""
        self._random = torch.default_generator.get_state()
        if torch.cuda.is_initialized():
            self._cuda = [generator.get_state() for generator in torch.cuda.default_generators]
        self._dtype = torch.get_default_dtype()
        self._print_options = tensor_str.PRINT_OPTS

    def written(self) -> tuple[torch.Tensor, list[torch.Tensor] | None, torch.dtype, dict[str, Any]]:
        """What was saved: the random states, the default dtype and the print options."""
        return self._random, self._cuda, self._dtype, dict(vars(self._print_options))

    def put_back(
        self, random: torch.Tensor, cuda: list[torch.Tensor] | None, dtype: torch.dtype, print_options: dict[str, Any]
    ) -> None:
        """Go on with what was written by another process, from now on. Raises: what torch raises for a state that is
        none; ValueError for other options.
        """
        torch.Generator().set_state(random)
        if not dtype.is_floating_point:
            raise ValueError(f"{dtype} is no default dtype")
        options = copy.copy(_DEFAULT_PRINT_OPTIONS)
        if print_options.keys() - vars(options).keys():
            raise ValueError("there are print options that torch does not have")
        vars(options).update(print_options)
        has_cuda = torch.cuda.is_initialized()
        if has_cuda and cuda is not None and len(cuda) != len(torch.cuda.default_generators):
            raise ValueError(f"there are random states of {len(cuda)} GPUs, and another number of GPUs")
        self._random, self._cuda, self._dtype, self._print_options = random, cuda if has_cuda else None, dtype, options
        self.load()


def draw_anew() -> None:
    """Have all generators of this process begin elsewhere, where another has begun with their state."""
    torch.seed()
    np.random.seed()


_DEFAULT_PRINT_OPTIONS = copy.copy(tensor_str.PRINT_OPTS)

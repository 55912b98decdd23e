"""torch.random: the random state of the session, and the generator that stands for it.

The state is the server's, one for each session. Knows operations; does not know where they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tclient._codec import wire
from tclient._codec.device import device
from tclient._codec.operations import TABLE
from tclient._codec.values import register
from tclient._issue import dispatch, issue_effect
from tclient._namespace import missing


class Generator:
    """The source of the random numbers of whichever session is the current one; `Generator()` makes others."""

    __slots__ = ()

    @property
    def device(self) -> device:
        """Where the seed is kept."""
        return device("cpu")

    def manual_seed(self, seed: int) -> Generator:
        """Set the seed."""
        return manual_seed(seed)

    def seed(self) -> int:
        """Set a seed that nobody knows before, and return it. Waits."""
        return seed()

    def initial_seed(self) -> int:
        """The seed that was set last. Waits."""
        return initial_seed()

    def get_state(self) -> Any:
        """The state, as a tensor of bytes."""
        return get_rng_state()

    def set_state(self, new_state: Any) -> Generator:
        """Go back to a state."""
        set_rng_state(new_state)
        return self

    def __repr__(self) -> str:
        return "<tclient.default_generator>"


default_generator = Generator()
# To torch, no generator is this generator.
register(Generator, lambda value, scope: wire.NONE)


def manual_seed(seed: int) -> Generator:
    """Set the seed of this session's random numbers. Returns the generator that draws them; does not wait."""
    issue_effect(TABLE["manual_seed"], (seed,))
    return default_generator


def seed() -> int:
    """Set a seed that nobody knows before, and return it. Waits."""
    chosen: int = dispatch(TABLE["seed"], (), None)
    return chosen


def initial_seed() -> int:
    """The seed that was set last. Waits."""
    chosen: int = dispatch(TABLE["initial_seed"], (), None)
    return chosen


def get_rng_state() -> Any:
    """The random state of this session, as a tensor of bytes."""
    return dispatch(TABLE["get_rng_state"], (), None)


def set_rng_state(new_state: Any) -> None:
    """Go back to a random state of this session."""
    dispatch(TABLE["set_rng_state"], (new_state,), None)


@contextmanager
def fork_rng(
    devices: Any = None,
    enabled: bool = True,
    _caller: str = "fork_rng",
    _devices_kw: str = "devices",
    device_type: Any = None,
) -> Iterator[None]:
    """Within it random numbers are drawn as wanted; behind it, as if none had been."""
    if not enabled:
        yield
        return
    from tclient import cuda

    # Of the GPUs, those that are named; all of them, if none are.
    gpus = range(cuda.device_count()) if devices is None else list(devices)
    before, of_gpus = get_rng_state(), [cuda.get_rng_state(gpu) for gpu in gpus]
    try:
        yield
    finally:
        set_rng_state(before)
        for gpu, state in zip(gpus, of_gpus, strict=True):
            cuda.set_rng_state(state, gpu)


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())

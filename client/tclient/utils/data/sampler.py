"""In which order items come. Random orders are those of torch on a CPU for the same seed, whatever the server runs on.

Knows the session's random state; does not know what the items are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import tclient

T_co = TypeVar("T_co", covariant=True)
# Portions of random indices that are drawn before they are taken.
_MOST_TOGETHER = 32


def permutation(size: int, generator: Any = None) -> list[int]:
    """The numbers below size in a random order. Waits."""
    order: list[int] = tclient.randperm(size, generator=generator, device=device_of(generator)).tolist()
    return order


def draw_seed(generator: Any = None) -> Any:
    """A number of the random state that torch draws seeds from. Does not wait: a tensor."""
    return tclient.empty((), dtype=tclient.int64, device=device_of(generator)).random_(generator=generator)


def device_of(generator: Any) -> Any:
    """Where to draw: on the CPU, whose numbers do not depend on the hardware, unless the generator lives elsewhere."""
    return "cpu" if generator is None else generator.device


class Sampler(Generic[T_co]):
    """Base of all samplers: subclasses define `__iter__`, and `__len__` if they know it."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError


class SequentialSampler(Sampler[int]):
    """All indices in their order."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """Indices in a random order, or drawn with replacement. Waits for a seed and for the order."""

    def __init__(
        self, data_source: Sized, replacement: Any = False, num_samples: Any = None, generator: Any = None
    ) -> None:
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got replacement={replacement}")
        if not isinstance(num_samples, int | None) or self.num_samples <= 0:
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={self.num_samples}")

    @property
    def num_samples(self) -> int:
        """How many indices one pass gives."""
        wanted: int = len(self.data_source) if self._num_samples is None else self._num_samples
        return wanted

    def __iter__(self) -> Iterator[int]:
        size, wanted = len(self.data_source), self.num_samples
        options: dict[str, Any] = {"generator": self.generator, "device": device_of(self.generator)}
        if self.generator is None:
            options["generator"] = tclient.Generator(device="cpu").manual_seed(int(draw_seed().item()))
        if self.replacement:
            # By 32, as torch draws them: other portions would give other numbers. A few portions come at once, fewer of
            # them at first, and only as they are taken: there may be more than anybody takes. With a generator of the
            # caller's, who may look at it in between, each portion is drawn when torch draws it.
            sizes: Iterator[int] = itertools.chain(itertools.repeat(32, wanted // 32), (wanted % 32,))
            together = 1
            while portion := list(itertools.islice(sizes, together)):
                drawn = [tclient.randint(size, (count,), dtype=tclient.int64, **options) for count in portion]
                yield from (drawn[0] if len(drawn) == 1 else tclient.cat(drawn)).tolist()
                if self.generator is None:
                    together = min(2 * together, _MOST_TOGETHER)
            return
        for _ in range(wanted // size):
            yield from tclient.randperm(size, **options).tolist()
        # Drawn even where nothing of it is needed: the generator must go on as in torch.
        rest = tclient.randperm(size, **options)
        if wanted % size:
            yield from rest[: wanted % size].tolist()

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """Given indices in a random order."""

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        for place in permutation(len(self.indices), self.generator):
            yield self.indices[place]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices drawn with these weights, which need not sum up to one."""

    def __init__(
        self, weights: Sequence[float] | Any, num_samples: Any, replacement: Any = True, generator: Any = None
    ) -> None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={num_samples}")
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a boolean value, but got replacement={replacement}")
        self.weights = tclient.tensor(weights, dtype=tclient.float64, device=device_of(generator))
        if self.weights.dim() != 1:
            raise ValueError(
                f"weights should be a 1d sequence but given weights have shape {tuple(self.weights.shape)}"
            )
        self.num_samples: int = num_samples
        self.replacement: bool = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        drawn = tclient.multinomial(self.weights, self.num_samples, self.replacement, generator=self.generator)
        yield from drawn.tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of batch_size indices of another sampler; the last may be shorter, or is dropped."""

    def __init__(self, sampler: Iterable[int], batch_size: Any, drop_last: Any) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler: Any = sampler
        self.batch_size: int = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        count = len(self.sampler)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

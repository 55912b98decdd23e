"""Sequences of different lengths as one tensor: padded, or packed without the padding.

Knows tensors and lengths; does not know layers. Lengths that are numbers are never asked for again: packing and padding
are calls that nobody waits for.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import tclient
from tclient._namespace import functions
from tclient.nn._core import Tensor

pad_sequence = functions("nn.utils.rnn.")["pad_sequence"]


class _Fields(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Fields):
    """Sequences one step behind the other: first the first element of all, the longest sequence first.

    Shapes: data (sum of the lengths, *), batch_sizes (longest length,): how many sequences have that step.
    """

    _known_sizes: list[int] | None = None

    def __new__(
        cls,
        data: Any,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> Self:
        if batch_sizes is None:
            if not isinstance(data, list | tuple) or len(data) != 2:
                raise AssertionError("Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def _sizes(self) -> list[int]:
        """The batch sizes as numbers; waits only if nobody here has counted them."""
        if self._known_sizes is None:
            self._known_sizes = [int(size) for size in self.batch_sizes.tolist()]
        return self._known_sizes

    def _with(self, data: Tensor) -> Self:
        """The same sequences with other elements."""
        return self._knowing(type(self)(data, *self[1:]))

    def _knowing(self, made: Self) -> Self:
        made._known_sizes = self._known_sizes
        return made

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves and casts data as Tensor.to does, and moves the indices along; the batch sizes stay on the host."""
        data = self.data.to(*args, **kwargs)
        device = data.device
        indices = [
            index if index is None else index.to(device) for index in (self.sorted_indices, self.unsorted_indices)
        ]
        return self._knowing(type(self)(data, self.batch_sizes, *indices))

    def cuda(self, *args: Any, **kwargs: Any) -> Self:
        """On a GPU of the server."""
        return self if self.is_cuda else self.to(*args, **{"device": "cuda", **kwargs})

    def cpu(self, *args: Any, **kwargs: Any) -> Self:
        """In the server's memory."""
        return self.to(*args, **{"device": "cpu", **kwargs})

    def double(self) -> Self:
        """As float64."""
        return self.to(dtype=tclient.float64)

    def float(self) -> Self:
        """As float32."""
        return self.to(dtype=tclient.float32)

    def half(self) -> Self:
        """As float16."""
        return self.to(dtype=tclient.float16)

    def long(self) -> Self:
        """As int64."""
        return self.to(dtype=tclient.int64)

    def int(self) -> Self:
        """As int32."""
        return self.to(dtype=tclient.int32)

    def short(self) -> Self:
        """As int16."""
        return self.to(dtype=tclient.int16)

    def char(self) -> Self:
        """As int8."""
        return self.to(dtype=tclient.int8)

    def byte(self) -> Self:
        """As uint8."""
        return self.to(dtype=tclient.uint8)

    @property
    def is_cuda(self) -> bool:
        """Whether data is on a GPU of the server."""
        return bool(self.data.is_cuda)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The indices that undo a permutation."""
    return None if permutation is None else tclient.argsort(permutation)


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Padded sequences without their padding.

    Shapes: input (L, N, *), or (N, L, *) with batch_first. Lengths in a tensor are read, which waits.
    Raises: RuntimeError if the lengths do not fit the input, or are not sorted although that is enforced.
    """
    counts = _counted(lengths)
    sorted_indices = unsorted_indices = None
    if not enforce_sorted:
        order = sorted(range(len(counts)), key=lambda index: -counts[index])
        back = sorted(range(len(order)), key=order.__getitem__)
        device = input.device
        sorted_indices, unsorted_indices = tclient.tensor(order, device=device), tclient.tensor(back, device=device)
        counts = [counts[index] for index in order]
        input = input.index_select(0 if batch_first else 1, sorted_indices)
    shape = tuple(input.shape)
    if batch_first:
        input = input.transpose(0, 1)
        shape = (shape[1], shape[0], *shape[2:])
    sizes = _batch_sizes(counts, shape)
    steps = [step for step, size in enumerate(sizes) for _ in range(size)]
    rows = [row for size in sizes for row in range(size)]
    data = input[_indices(steps), _indices(rows)]
    batch_sizes = tclient.tensor(sizes, dtype=tclient.int64, device="cpu")
    packed = PackedSequence(data, batch_sizes, sorted_indices, unsorted_indices)
    packed._known_sizes = sizes
    return packed


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """Packed sequences as a padded tensor, and their lengths: the inverse of pack_padded_sequence.

    Raises: ValueError if total_length is less than the longest length.
    """
    sizes = sequence._sizes()
    longest = len(sizes)
    if total_length is not None:
        if total_length < longest:
            raise ValueError(
                "Expected total_length to be at least the length of the longest sequence in input, but got "
                f"total_length={total_length} and max sequence length being {longest}"
            )
        longest = total_length
    lengths = [sum(1 for size in sizes if size > row) for row in range(sizes[0])]
    # The row behind the data is the padding, so that one index gathers both.
    starts = [sum(sizes[:step]) for step in range(len(sizes) + 1)]
    places = [
        [starts[step] + row if step < lengths[row] else starts[-1] for row in range(sizes[0])]
        for step in range(longest)
    ]
    padding = tclient.full_like(sequence.data[:1], padding_value)
    padded = tclient.cat([sequence.data, padding])[_indices(places)]
    known = tclient.tensor(lengths, dtype=tclient.int64, device="cpu")
    if batch_first:
        padded = padded.transpose(0, 1)
    if sequence.unsorted_indices is not None:
        padded = padded.index_select(0 if batch_first else 1, sequence.unsorted_indices)
        known = known[sequence.unsorted_indices.cpu()]
    return padded, known


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences of shape (L, *) without padding."""
    lengths = [int(sequence.size(0)) for sequence in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False
) -> list[Tensor]:
    """Each of the padded sequences without its padding."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [rows[row, :length] for row, length in enumerate(_counted(lengths))]


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """Each of the packed sequences as a tensor of its own."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)


def _counted(lengths: Tensor | Sequence[int]) -> list[int]:
    """The lengths as numbers."""
    given: Any = lengths.tolist() if isinstance(lengths, Tensor) else lengths
    dims, inner = 0, given
    while isinstance(inner, list | tuple):
        dims, inner = dims + 1, inner[0] if inner else None
    if dims != 1:
        raise RuntimeError(f"'lengths' argument should be a 1D CPU int64 tensor, but got {dims}D cpu Long tensor")
    return [int(count) for count in given]


def _batch_sizes(lengths: list[int], shape: tuple[int, ...]) -> list[int]:
    """How many sequences have each step; lengths are those of an input of that shape (L, N, *)."""
    if 0 in shape:
        raise RuntimeError("Cannot pack empty tensors.")
    if len(lengths) != shape[1]:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(lengths)} (batch_size={shape[1]})"
        )
    if min(lengths) <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    if any(one < other for one, other in itertools.pairwise(lengths)):
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement if you "
            "do not need ONNX exportability."
        )
    if lengths[0] > shape[0]:
        raise RuntimeError(f"pack_padded_sequence: a length is {lengths[0]}, but the input has {shape[0]} steps")
    return [sum(1 for length in lengths if length > step) for step in range(lengths[0])]


def _indices(values: list[Any]) -> Tensor:
    return tclient.tensor(values, device="cpu")

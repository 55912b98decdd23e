"""A program for all sizes, made of recordings at some: where they differ in whole numbers, there is a formula.

Knows the contract's calls and values; does not know how they were recorded, nor run any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from tclient._codec.operations import USED
from tclient._recording import values_of
from tclient.models._formulas import Formula, fit
from tclient.models._network import not_servable
from tclient.models._recorder import Sample, Site
from tensorcompute.v1 import tensor_pb2 as pb

_VIEWS = frozenset({"Tensor.view", "Tensor.reshape", "reshape"})
_WHOLE = frozenset({pb.D_TYPE_INT8, pb.D_TYPE_INT16, pb.D_TYPE_INT32, pb.D_TYPE_INT64})


class _Mark(NamedTuple):
    """A value that becomes a slot, since it differs: what it was in each recording."""

    value: pb.Value
    seen: tuple[int, ...]
    call: int


class Template:
    """The program, and the formulas of the numbers that it takes behind inputs and weights.

    Raises: an error of `not_servable`, with the line, for what differs and is no such number.
    """

    def __init__(self, label: str, samples: Sequence[Sample], inputs: int) -> None:
        self._label = label
        self._samples = samples
        self._marks: list[_Mark] = []
        base = samples[0]
        self.program = pb.Program()
        self.program.CopyFrom(base.program)
        self.weights = base.weights
        self._compare()
        self.formulas: list[Formula] = []
        slots: dict[tuple[int, ...], int] = {}
        for mark in self._marks:
            if mark.seen not in slots and (formula := self._fit(mark)) is not None:
                slots[mark.seen] = len(self.formulas)
                self.formulas.append(formula)
        self._make_room(inputs + len(self.weights), slots)

    def _compare(self) -> None:
        programs = [sample.program for sample in self._samples]
        weights = [[(one._ref.id, one._ref.path) for one in sample.weights] for sample in self._samples]
        for index in range(min(len(program.calls) for program in programs)):
            calls = [program.calls[index] for program in programs]
            if len({call.operation for call in calls}) > 1:
                raise self._refused(index, "is made for some sizes only")
            if len({call.SerializeToString(deterministic=True) for call in calls}) > 1:
                self._call(index, calls)
        counts = [len(program.calls) for program in programs]
        if len(set(counts)) > 1:
            longest = max(range(len(counts)), key=counts.__getitem__)
            raise self._refused(min(counts), "is made for some sizes only", self._samples[longest])
        if any(names != weights[0] for names in weights):
            raise not_servable(f"{self._label} cannot be served: at other sizes it reads other tensors from outside")
        results = [program.result.SerializeToString(deterministic=True) for program in programs]
        if len(set(results)) > 1:
            raise not_servable(f"{self._label} cannot be served: at other sizes it returns results of other calls")

    def _call(self, index: int, calls: Sequence[pb.Call]) -> None:
        if len({(len(call.args), tuple(entry.name for entry in call.kwargs)) for call in calls}) > 1:
            raise self._refused(index, "has other arguments")
        if len({(call.id, call.context, tuple(call.frees)) for call in calls}) > 1:
            raise self._refused(index, "is about results of other calls")
        own = self.program.calls[index]
        for position, value in enumerate(own.args):
            self._value(index, value, [call.args[position] for call in calls])
        for position, entry in enumerate(own.kwargs):
            self._value(index, entry.value, [call.kwargs[position].value for call in calls])

    def _value(self, index: int, own: pb.Value, seen: Sequence[pb.Value]) -> None:
        if len({value.SerializeToString(deterministic=True) for value in seen}) == 1:
            return
        kinds = {value.WhichOneof("kind") for value in seen}
        kind = kinds.pop()
        compare = None if kinds else self._kinds.get(kind or "")
        if compare is None:
            raise self._refused(index, f"takes a {kind} that differs and is no whole number")
        compare(self, index, own, seen)

    def _integer(self, index: int, own: pb.Value, seen: Sequence[pb.Value]) -> None:
        self._marks.append(_Mark(own, tuple(value.integer for value in seen), index))

    def _number(self, index: int, own: pb.Value, seen: Sequence[pb.Value]) -> None:
        numbers = [value.number for value in seen]
        if not all(number.is_integer() for number in numbers):
            raise self._refused(
                index, f"takes a number that differs ({numbers[0]:g}, {numbers[-1]:g}) and is no whole one"
            )
        self._marks.append(_Mark(own, tuple(map(int, numbers)), index))

    def _array(self, index: int, own: pb.Value, seen: Sequence[pb.Value]) -> None:
        # Of arrays, numpy's whole numbers alone: `np.prod(x.shape)`.
        dtypes = {value.array.data.dtype for value in seen}
        if {value.array.kind for value in seen} != {pb.HostArray.KIND_NUMBER} or not dtypes <= _WHOLE:
            raise self._refused(index, "takes data of this process's that differs")
        numbers = tuple(int.from_bytes(value.array.data.data, "little", signed=True) for value in seen)
        self._marks.append(_Mark(own, numbers, index))

    def _size(self, index: int, own: pb.Value, seen: Sequence[pb.Value]) -> None:
        columns = self._columns(index, [value.size.dims for value in seen])
        items = [pb.Value(integer=column[0]) for column in columns]
        own.tuple.items.extend(items)  # in the place of the size
        for item, column in zip(own.tuple.items, columns, strict=True):
            if len(set(column)) > 1:
                self._marks.append(_Mark(item, tuple(column), index))

    def _items(self, index: int, own: pb.Value, seen: Sequence[pb.Value]) -> None:
        kind = own.WhichOneof("kind") or ""
        columns = self._columns(index, [getattr(value, kind).items for value in seen])
        for item, column in zip(getattr(own, kind).items, columns, strict=True):
            self._value(index, item, column)

    def _mapping(self, index: int, own: pb.Value, seen: Sequence[pb.Value]) -> None:
        columns = self._columns(index, [value.mapping.entries for value in seen])
        for entry, column in zip(own.mapping.entries, columns, strict=True):
            if len({each.name for each in column}) > 1:
                raise self._refused(index, "has other arguments")
            self._value(index, entry.value, [each.value for each in column])

    def _slice(self, index: int, own: pb.Value, seen: Sequence[pb.Value]) -> None:
        for name in ("start", "stop", "step"):
            there = {value.slice.HasField(name) for value in seen}
            if len(there) > 1:
                raise self._refused(index, "takes a slice that is open for some sizes only")
            if there == {True}:
                self._value(index, getattr(own.slice, name), [getattr(value.slice, name) for value in seen])

    _kinds: ClassVar[dict[str, Callable[[Template, int, pb.Value, Sequence[pb.Value]], None]]] = {
        "array": _array,
        "integer": _integer,
        "number": _number,
        "size": _size,
        "list": _items,
        "tuple": _items,
        "mapping": _mapping,
        "slice": _slice,
    }

    def _columns(self, index: int, rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
        if len({len(row) for row in rows}) > 1:
            raise self._refused(index, f"takes {len(rows[0])} items at some sizes and other numbers of them at others")
        return [list(column) for column in zip(*rows, strict=True)]

    def _fit(self, mark: _Mark) -> Formula | None:
        """The formula of a number; None for one that its call infers."""
        found = fit([(sample.sizes, number) for sample, number in zip(self._samples, mark.seen, strict=True)])
        if found is None and not self._is_inferred(mark):
            shown = ", ".join(
                f"{number} at {sizes_text(sample.sizes)}"
                for sample, number in zip(self._samples[:3], mark.seen, strict=False)
            )
            raise self._refused(mark.call, f"takes a number for which there is no simple formula ({shown})")
        return found

    def _is_inferred(self, mark: _Mark) -> bool:
        """Whether it is the one size of a view that follows from the others: -1 stands for it then."""
        call = self.program.calls[mark.call]
        if USED[call.operation] not in _VIEWS or call.kwargs:
            return False
        given = call.args[1:]
        sizes = given[0].tuple.items if len(given) == 1 and given[0].HasField("tuple") else given
        sizes = given[0].list.items if len(given) == 1 and given[0].HasField("list") else sizes
        if any(size.integer == -1 for size in sizes if size.HasField("integer")):
            return False
        mark.value.integer = -1
        return True

    def _make_room(self, before: int, slots: dict[tuple[int, ...], int]) -> None:
        """Move what calls make behind the numbers, and put those in the place of the marks."""
        count = len(self.formulas)
        self.program.inputs = before + count

        def moved(slot: int) -> int:
            return slot + count if slot > before else slot

        result = pb.Call(args=[self.program.result])
        for call in (*self.program.calls, result):
            for value in values_of(call):
                if value.result:
                    value.result = moved(value.result)
                else:
                    value.ref.id = moved(value.ref.id)
            if call.id:
                call.id = moved(call.id)
            call.frees[:] = [moved(slot) for slot in call.frees]
        self.program.result.CopyFrom(result.args[0])
        for mark in self._marks:
            if mark.seen in slots:
                mark.value.result = before + 1 + slots[mark.seen]

    def _refused(self, index: int, what: str, sample: Sample | None = None) -> Exception:
        """The error for a call that differs."""
        base = self._samples[0]
        own = base.program.calls[index].SerializeToString(deterministic=True) if sample is None else b""
        other = sample or next(
            each
            for each in self._samples
            if index < len(each.program.calls)
            and each.program.calls[index].SerializeToString(deterministic=True) != own
        )
        sample = sample or base
        site: Site = sample.sites[index]
        name = USED[sample.program.calls[index].operation]
        sizes = sizes_text(other.sizes if other is not base else self._samples[-1].sizes)
        return not_servable(
            f"{self._label} cannot be served with dimensions that vary: `{name}` {what}, at {site} "
            f"(where {sizes_text(base.sizes)} and {sizes} differ)",
            name,
            (site.filename, site.lineno),
        )


def sizes_text(sizes: Any) -> str:
    """batch=3, length=5."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())

"""Sequences of calls, drawn one at a time from samples and from what the session holds by then.

Knows the contract and what a store holds; does not run anything. The same seed draws the same calls as long as the
calls before had the same results.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Set
from enum import Enum
from functools import cache
from typing import Any

import torch

from tensorcompute.v1 import tensor_pb2 as pb
from tests.fuzz import aimed, damage, sparse, words
from tests.operations.calls import Invocation, from_torch, from_us, operators, table
from tests.operations.samples import SAMPLES
from tests.support.values import Kept, encode

# What these draw is different each time.
_SPARED = {"seed", "Generator.seed", "initial_seed", "Generator.initial_seed"}
_GENERATOR = Kept(1)
_LIVE = 24
# Of a call that gives thousands of tensors, those that a backward pass begins at.
_MOST_OUTPUTS = 32
_TRIES = 20
# The share of drawn calls that go in one batch with what prepares them, plain ones as words; and of those batches, such
# whose words are tampered with.
_PACKED, _BROKEN = 0.4, 0.3
NAMES = sorted(table())
_INDEX = {name: index for index, name in enumerate(NAMES)}
CONTEXTS = [
    pb.Context(no_grad=True),
    pb.Context(inference=True),
    pb.Context(autocast=[pb.Autocast(device_type="cpu", dtype=pb.D_TYPE_BFLOAT16, enabled=True)]),
]


class Part(Enum):
    """What a call of a sequence is there for."""

    PREPARES = 0
    DRAWN = 1
    # A backward pass over something that was changed since its forward pass.
    TAMPERED = 2


Step = tuple[Part, pb.Batch]


@cache
def samples(most: int) -> dict[str, list[Invocation]]:
    """Calls by the name of their operation; torch's shipped samples at most so many for each of its operators."""
    found: dict[str, list[Invocation]] = {}
    calls = [call for name in SAMPLES for call in from_us(name)]
    calls += [call for operator in operators() for call in from_torch(operator, most)]
    for call in calls:
        if call.entry["name"] not in _SPARED:
            found.setdefault(call.entry["name"], []).append(call)
    return found


class Drawer:
    """Draws the calls of one sequence. `objects` is what the session holds, and is looked at before each call."""

    def __init__(
        self,
        seed: str,
        by_name: dict[str, list[Invocation]],
        objects: dict[int, Any],
        *,
        tampering: float = 0.3,
        sparse: float = 0.15,
        barren: Set[str] = frozenset(),
    ) -> None:
        """`tampering` is the share of sequences that change things before a backward, `sparse` of those with sparse
        tensors; `barren` has no gradients.
        """
        self._tampers = tampering
        self._sparse = sparse
        self._barren = barren
        # Whether an operation had a gradient, each time that it was tried.
        self.bore: list[tuple[str, bool]] = []
        self.chance = self._chance = random.Random(seed)
        self._by_name = by_name
        self._names = list(by_name)
        self._objects = objects
        self._id = _GENERATOR.id
        self._preparations: list[pb.Call] = []
        # The share of the arguments that are made sparse.
        self._thins = 0.0

    def steps(self, count: int) -> Iterator[Step]:
        """Batches with about so many drawn calls, each of which is to be run before the next is asked for."""
        waiting: list[tuple[Part, pb.Call]] = []
        for part, call in self._calls(count):
            waiting.append((part, call))
            if part is not Part.PREPARES:
                yield from self._in_batches(waiting)
                waiting.clear()
        yield from self._in_batches(waiting)

    def _in_batches(self, steps: list[tuple[Part, pb.Call]]) -> Iterator[Step]:
        """In a batch each, or in one of words and calls."""
        chance = self._chance
        if not steps or chance.random() >= _PACKED:
            for part, call in steps:
                yield part, pb.Batch(calls=[call])
            return
        batch = words.written([call for _, call in steps], chance)
        if chance.random() < _BROKEN:
            batch = words.tampered(batch, chance, len(NAMES))
        yield steps[-1][0], batch

    def _calls(self, count: int) -> Iterator[tuple[Part, pb.Call]]:
        """About so many drawn calls, and what prepares each; nothing behind a drawn one before that has run."""
        yield Part.PREPARES, self._call("manual_seed", [self._chance.randrange(1000)], keep=False)
        yield Part.PREPARES, self._call("Generator", [], to=_GENERATOR.id)
        ways: list[Callable[[], pb.Call]] = [self._sampled, self._aimed, self._own, self._of_sparse]
        weights = [6, 3.6, 0.4, 0.0]
        if self._chance.random() < self._sparse:
            self._thins, weights = 0.3, [2, 1, 0.2, 6]
        elif self._chance.random() < self._tampers:
            for _ in range(count // 4):
                yield from self._tampering()
            return
        for _ in range(count):
            (way,) = self._chance.choices(ways, weights)
            call = way()
            if self._chance.random() < 0.03:
                call = self._as_program(call)
            yield from ((Part.PREPARES, preparation) for preparation in self._preparations)
            self._preparations.clear()
            if self._chance.random() < 0.12:
                call.context = self._chance.randint(1, len(CONTEXTS))
            self._let_go(call)
            yield Part.DRAWN, call

    def _call(
        self, name: str, args: list[Any], kwargs: dict[str, Any] | None = None, *, keep: bool = True, to: int = 0
    ) -> pb.Call:
        """A call; arguments that no message can say are left out."""
        if keep and not to:
            self._id += 1
            to = self._id
        call = pb.Call(id=to, operation=_INDEX[name])
        for value in args:
            call.args.append(self._value(value))
        for key, value in (kwargs or {}).items():
            call.kwargs.append(pb.NamedValue(name=key, value=self._value(value)))
        return call

    def _value(self, value: Any) -> pb.Value:
        if isinstance(value, torch.Tensor):
            if value.is_contiguous() and value.device.type == "cpu" and not value.requires_grad:
                return encode(value)
            return encode(self._prepared(value))
        if isinstance(value, (list, tuple)) and any(isinstance(item, torch.Tensor) for item in value):
            return encode([self._value(item) for item in value])
        if isinstance(value, torch.Generator):
            return encode(_GENERATOR)
        try:
            return encode(value)
        except (TypeError, ValueError, KeyError, RuntimeError):
            return encode(None)

    def _prepared(self, value: torch.Tensor, gradients: bool = False) -> Kept:
        """A tensor that the session holds, with the strides, the device and the gradients of this one."""
        plain = value.detach()
        if plain.layout is not torch.strided:
            made = self._prepare("sparse_coo_tensor", [plain._indices(), plain._values(), tuple(plain.shape)])
        elif plain.device.type == "meta":
            made = self._prepare("empty", [tuple(plain.shape)], {"dtype": plain.dtype, "device": "meta"})
        elif plain.is_contiguous() or plain.is_conj() or plain.is_neg():
            made = self._prepare("as_tensor", [plain.contiguous()])
        else:
            room = plain.untyped_storage().nbytes() // plain.itemsize
            whole = self._prepare("as_tensor", [plain.as_strided((room,), (1,), 0)])
            made = self._prepare(
                "Tensor.as_strided", [whole, tuple(plain.shape), tuple(plain.stride()), plain.storage_offset()]
            )
        if (gradients or value.requires_grad) and (plain.is_floating_point() or plain.is_complex()):
            self._preparations.append(self._call("Tensor.requires_grad_", [made], keep=False))
            if self._chance.random() < 0.3:
                # One that may be changed in place.
                made = self._prepare("Tensor.clone", [made])
        return made

    def _prepare(self, name: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> Kept:
        call = self._call(name, args, kwargs)
        self._preparations.append(call)
        return Kept(call.id)

    def live(self) -> list[tuple[Kept, torch.Tensor]]:
        """The tensors that the session holds."""
        return aimed.held(self._objects)

    def _let_go(self, call: pb.Call) -> None:
        """Let a result go now and then, before this call."""
        if self._objects and (len(self._objects) > _LIVE or self._chance.random() < 0.05):
            free = self._chance.choice(list(self._objects))
            if free != _GENERATOR.id:
                call.frees.append(free)

    def _bent(self, name: str, most: int) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a sample, with at most so many damaged."""
        sample = self._chance.choice(self._by_name[name])
        args, kwargs = list(sample.args), dict(sample.kwargs)
        places: list[Any] = [*range(len(args)), *kwargs]
        for _ in range(min(most, self._chance.choice([0, 1, 1, 1, 2, 3])) if places else 0):
            place = self._chance.choice(places)
            holder: Any = args if isinstance(place, int) else kwargs
            holder[place] = damage.argument(holder[place], self._chance)
        return args, kwargs

    def _sampled(self) -> pb.Call:
        """A sample of any operation, damaged, on new tensors and on what is there already."""
        chance = self._chance
        name = chance.choice(self._names)
        args, kwargs = self._bent(name, 3)
        live = self.live()
        share = chance.choice([0.0, 0.0, 0.4])
        gradients = chance.random() < 0.3
        hold = chance.random() < 0.5

        def place(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                if live and chance.random() < share:
                    return chance.choice(live)[0]
                if chance.random() < self._thins:
                    return self._thinned(self._prepared(value), gradients)
                return self._prepared(value, gradients) if gradients or hold else value
            if isinstance(value, (list, tuple)) and any(isinstance(item, torch.Tensor) for item in value):
                return [place(item) for item in value]
            return value

        args = [place(value) for value in args]
        kwargs = {key: place(value) for key, value in kwargs.items()}
        if not name.startswith("Tensor.") and chance.random() < 0.15:
            kwargs["out"] = self._out([*args, *kwargs.values()])
        if chance.random() < 0.06:
            key = chance.choice(list(_EXTRAS))
            kwargs.setdefault(key, _EXTRAS[key](chance))
        if args and not name.startswith("Tensor.") and chance.random() < 0.03:
            kwargs["input"] = args.pop(0)
        return self._call(name, args, kwargs)

    def _out(self, args: list[Any]) -> Any:
        """Something to write a result to, that often is none."""
        chance = self._chance
        dtype = chance.choice([torch.float32, torch.float32, torch.int64, *damage.DTYPES])
        known = [value for value in args if isinstance(value, Kept)]
        match chance.randrange(7):
            case 0 if known:
                return chance.choice(known)
            case 1 if self.live():
                return chance.choice(self.live())[0]
            case 2:
                return self._prepared(torch.zeros(3, 4).to(dtype).t())
            case 3:
                return self._prepared(torch.zeros(1, 4).to(dtype).expand(3, 4))
            case 4:
                return [self._prepared(torch.empty(0, dtype=dtype)) for _ in range(chance.choice([1, 2, 3]))]
            case 5:
                return self._prepared(torch.empty(0, dtype=dtype, device=chance.choice(["cpu", "meta"])))
        return self._prepared(torch.empty(0, dtype=dtype))

    def _aimed(self) -> pb.Call:
        """A view, a write or a read of a tensor that is there: what strides, versions and memory depend on."""
        live = self.live()
        for _ in range(_TRIES if live else 0):
            name, args = aimed.draw(self._chance, live)
            if name in self._by_name:
                return self._call(name, args)
        return self._sampled()

    def _thinned(self, dense: Kept, gradients: bool) -> Kept:
        made = self._prepare("Tensor.to_sparse", [dense])
        if gradients:
            self._preparations.append(self._call("Tensor.requires_grad_", [made], keep=False))
        return made

    def _of_sparse(self) -> pb.Call:
        """A call on a sparse tensor, or one that makes one."""
        chance = self._chance
        found = sparse.draw(chance, self.live()) if chance.random() < 0.75 else None
        if found is not None and found[0] in self._by_name:
            return self._call(*found)
        indices, values, size = sparse.parts(chance)
        kwargs = {"is_coalesced": chance.random() < 0.5} if chance.random() < 0.2 else {}
        given: list[Any] = [indices, self._prepared(values, chance.random() < 0.4), size]
        if chance.random() < 0.1:
            return self._call("tc.constructed", ["sparse.FloatTensor", *given])
        return self._call("sparse_coo_tensor", given, kwargs)

    def _own(self) -> pb.Call:
        """An operation of ours."""
        name, args = aimed.own(self._chance, self.live(), self._objects)
        return self._call(name, args)

    def _as_program(self, call: pb.Call) -> pb.Call:
        """The same call as a program that is run once."""
        inner = pb.Call()
        inner.CopyFrom(call)
        inputs: list[Kept] = []
        _renumber([*inner.args, *(entry.value for entry in inner.kwargs)], inputs)
        inner.id = len(inputs) + 1
        program = pb.Program(inputs=len(inputs), calls=[inner], result=pb.Value(result=inner.id))
        kept = self._prepare("tc.program", [pb.Value(program=program)])
        return self._call("tc.run_with_effects", [kept, *inputs], to=call.id)

    def _tampering(self) -> Iterator[tuple[Part, pb.Call]]:
        """A forward pass, changes behind the back of autograd, and the backward pass."""
        chance = self._chance
        for _ in range(_TRIES):
            name = chance.choice(self._names)
            if name not in self._barren:
                break
        args, kwargs = self._bent(name, chance.choice([0, 0, 1]))
        targets: list[Kept] = []

        def place(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                targets.append(self._prepared(value, gradients=True))
                return targets[-1]
            if isinstance(value, (list, tuple)) and any(isinstance(item, torch.Tensor) for item in value):
                return [place(item) for item in value]
            return value

        args = [place(value) for value in args]
        kwargs = {key: place(value) for key, value in kwargs.items()}
        aliases: list[Kept] = []
        while targets and chance.random() < 0.3:
            way, of = aimed.alias(chance, chance.choice(targets), chance.choice(targets))
            aliases.append(self._prepare(way, of))
        call = self._call(name, args, kwargs)
        yield from ((Part.PREPARES, preparation) for preparation in self._preparations)
        self._preparations.clear()
        yield Part.DRAWN, call
        inputs = [kept for kept in targets if aimed.requires_grad(self._objects, kept)]
        results = aimed.held({call.id: self._objects.get(call.id)})
        outputs = [kept for kept, tensor in results if tensor.requires_grad]
        self.bore.append((name, bool(outputs and inputs)))
        if not outputs or not inputs:
            return
        outputs = outputs[:_MOST_OUTPUTS]
        seeds = [self._prepare("ones_like", [kept]) for kept in outputs]
        live = [
            *results[:_MOST_OUTPUTS],
            *aimed.held({kept.id: self._objects.get(kept.id) for kept in [*targets, *aliases]}),
        ]
        for _ in range(chance.choice([1, 1, 2, 3])):
            for name, args in aimed.tamper(chance, live):
                self._id += 1
                self._preparations.append(
                    self._call(name, [Kept(self._id - 1) if a is None else a for a in args], to=self._id)
                )
        yield from ((Part.PREPARES, preparation) for preparation in self._preparations)
        self._preparations.clear()
        flags = {"allow_unused": True, "retain_graph": chance.random() < 0.3, "create_graph": chance.random() < 0.1}
        if chance.random() < 0.2:
            seeds = [chance.choice([seed, *inputs]) for seed in seeds]
        yield Part.TAMPERED, self._call("autograd.grad", [outputs, inputs, seeds], flags)
        yield Part.PREPARES, self._freeing()

    def _freeing(self) -> pb.Call:
        call = self._call("get_rng_state", [])
        call.frees.extend(one for one in self._objects if one != _GENERATOR.id)
        return call


_EXTRAS: dict[str, Callable[[random.Random], Any]] = {
    "dtype": lambda chance: chance.choice(damage.DTYPES),
    "device": lambda chance: torch.device(chance.choice(["cpu", "meta"])),
    "layout": lambda chance: pb.Value(layout=chance.choice(pb.Layout.keys()[1:])),
    "memory_format": lambda chance: pb.Value(memory_format=chance.choice(pb.MemoryFormat.keys()[1:])),
    "generator": lambda chance: _GENERATOR,
    "dim": damage.integer,
    "keepdim": lambda chance: True,
    "correction": damage.integer,
    "requires_grad": lambda chance: True,
    "pin_memory": lambda chance: True,
    "sparse_grad": lambda chance: True,
    "sparse": lambda chance: True,
    "reduction": damage.small,
}


def _renumber(values: Any, inputs: list[Kept]) -> None:
    """Make what values name the inputs of a program."""
    for value in values:
        match value.WhichOneof("kind"):
            case "result" | "ref" as kind:
                inputs.append(Kept(value.result) if kind == "result" else Kept(value.ref.id, tuple(value.ref.path)))
                value.result = len(inputs)
            case "list" | "tuple" as kind:
                _renumber(getattr(value, kind).items, inputs)

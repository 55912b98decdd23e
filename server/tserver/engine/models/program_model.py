"""A network of any kind as a model: calls that were recorded, on inputs and weights that have names.

What a program is, engine/programs.py says; here is what makes a model of one. It is run before it serves, on zeros:
what cannot run, draws random numbers, writes to weights or gives something else than it says is refused then.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from google.protobuf import json_format
from torch.utils.flop_counter import FlopCounterMode

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.engine import streams
from tserver.engine.failures import is_device_lost
from tserver.engine.memory import check_bytes, is_out_of_memory
from tserver.engine.models.files import PROGRAM_KEY, check_dtype, save_tensors
from tserver.engine.models.model import Content, Model, NewStore
from tserver.engine.models.spec import Sizes, TensorSpec, bind, read_specs, shown
from tserver.engine.object_store import ObjectStore
from tserver.engine.pieces import whole
from tserver.engine.programs import Program
from tserver.engine.values import dtype_of
from tserver.errors import InvalidArgument, ServerError

_MAX_WEIGHTS = 20_000
_MAX_FORMULAS = 20_000
_MAX_FACTORS = 8
_MAX_TEXT = 256 << 10
_MAX_RECORDED = 1 << 20
# Operations of our own that compute as torch's do. Others look at a session, or run programs and models, which could
# make calls without number.
_OURS = frozenset({"tc.constructed"})
# What the inputs of the first run may take.
_MAX_TRIAL_BYTES = 1 << 30


class ProgramModel(Model):
    """A program and its weights."""

    def __init__(
        self, program: ms.ServedProgram, weights: Sequence[torch.Tensor], device: torch.device, store: ObjectStore
    ) -> None:
        """Copy the weights to the device, and try the program. The store is its own from now on.

        Raises: InvalidArgument, and torch's OutOfMemoryError before memory is taken.
        """
        self.program, self.device = program, device
        self.layers = ()
        self.calls = len(program.program.calls)
        self.inputs, self.outputs = read_specs("input", program.inputs), read_specs("output", program.outputs)
        self.is_batched = program.is_batched
        self.text = program.text
        if len(self.text) > _MAX_TEXT:
            raise InvalidArgument(f"the text of the program has {len(self.text)} characters; at most {_MAX_TEXT}")
        if self.is_batched:
            self._check_batch()
        self._default_dtype = dtype_of(program.default_dtype) if program.default_dtype else torch.float32
        if not self._default_dtype.is_floating_point:
            raise InvalidArgument(f"the default dtype of the program is {self._default_dtype}; it is a floating one")
        varying = {size for spec in self.inputs for size in spec.dimensions if isinstance(size, str)}
        _check_formulas(program.sizes, varying)
        self._formulas = tuple(
            (tuple(each.dimensions), each.scale, each.offset, each.divisor) for each in program.sizes
        )
        self._check_names(varying)
        taken = len(self.inputs) + len(program.weights) + len(program.sizes)
        if program.program.inputs != taken:
            raise InvalidArgument(
                f"the program takes {program.program.inputs} inputs, but there are {taken} inputs, weights and sizes"
            )
        for name in program.operations:
            if name.startswith("tc.") and name not in _OURS:
                raise InvalidArgument(f"{name[:100]} cannot be a call of a model; it is made of torch's operations")
        self._weights = self._copied(weights)
        buffers = set(program.buffers)
        if not buffers.issubset(program.weights):
            raise InvalidArgument("the program names buffers that are none of its weights")
        self.parameters = sum(
            weight.numel() for name, weight in zip(program.weights, self._weights, strict=True) if name not in buffers
        )
        self.parameter_bytes = sum(weight.nbytes for weight in self._weights)
        counted = Counter[torch.dtype]()
        for weight in self._weights:
            if weight.is_floating_point():
                counted[weight.dtype] += weight.numel()
        self.dtype = max(counted, key=counted.__getitem__) if counted else self.inputs[0].torch_dtype
        self.non_finite_parameters = sum(
            int(weight.isfinite().logical_not_().sum()) for weight in self._weights if weight.is_floating_point()
        )
        self.made = next((streams.mark(weight) for weight in self._weights), None)
        self._places = {weight.untyped_storage().data_ptr() for weight in self._weights}
        self._store = store
        store.define(program.operations, program.contexts)
        self._run = Program(store, program.program)
        # Positions of inputs that the program writes to: what others hold is copied before.
        self.written: frozenset[int] = frozenset()
        self.flops_per_row = self._try(varying)

    def run(self, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """See Model. Outputs have memory of their own. Raises: InvalidArgument for what the calls refuse."""
        sizes = bind(self.inputs, [tensor.dtype for tensor in inputs], [tensor.shape for tensor in inputs])
        try:
            with _surroundings(self._default_dtype):
                result = whole(self._run.run(self._store, [*inputs, *self._weights, *self._numbers(sizes)]))
        except ServerError:
            raise
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            NotImplementedError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            if is_device_lost(error) or is_out_of_memory(error):
                raise
            where = "; ".join(getattr(error, "__notes__", ()))
            raise InvalidArgument(
                f"the model refuses inputs of {self._told(sizes)}: {str(error)[:2000]}{f' ({where})' if where else ''}"
            ) from error
        outputs = result if isinstance(result, tuple) else (result,)
        if len(outputs) != len(self.outputs):
            raise InvalidArgument(f"the program gives {len(outputs)} outputs, and {len(self.outputs)} are described")
        taken = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        return [self._checked(spec, output, sizes, taken) for spec, output in zip(self.outputs, outputs, strict=True)]

    def tensors(self) -> Sequence[torch.Tensor]:
        """See Model."""
        return self._weights

    def content(self) -> Content:
        """See Model."""
        return ProgramContent(self.program, [streams.adopt(weight, self.made).cpu() for weight in self._weights])

    # --- what is checked at the beginning ---

    def _check_batch(self) -> None:
        name = self.inputs[0].dimensions[0] if self.inputs[0].dimensions else 0
        for spec in (*self.inputs, *self.outputs):
            if not isinstance(name, str) or not spec.dimensions or spec.dimensions[0] != name:
                raise InvalidArgument(
                    f"the program is said to be batched, but {spec.name!r} is {spec.text()}: the first dimension of "
                    "all inputs and outputs must be one that varies, of one name"
                )
            if name in spec.dimensions[1:]:
                raise InvalidArgument(
                    f"{spec.name!r} is {spec.text()}: the batch is its first dimension, and only that"
                )

    def _check_names(self, varying: set[str]) -> None:
        for spec in self.outputs:
            for size in spec.dimensions:
                if isinstance(size, str) and size and size not in varying:
                    raise InvalidArgument(f"output {spec.name!r} has a dimension {size[:100]!r} that no input has")
        for name in varying:
            if not 1 <= self.program.recorded_sizes.get(name, 0) <= _MAX_RECORDED:
                raise InvalidArgument(f"recorded_sizes has no size from 1 to {_MAX_RECORDED} for {name[:100]!r}")

    def _copied(self, weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The weights on the device, each in memory of its own."""
        names = self.program.weights
        if len(names) > _MAX_WEIGHTS:
            raise InvalidArgument(f"the program has {len(names)} weights; at most {_MAX_WEIGHTS} are kept")
        if len(set(names)) != len(names) or not all(0 < len(name) <= 1024 for name in names):
            raise InvalidArgument("the names of weights are 1 to 1024 characters, each once")
        if len(weights) != len(names):
            raise InvalidArgument(f"the program names {len(names)} weights, but {len(weights)} are given")
        for name, weight in zip(names, weights, strict=True):
            if weight.layout is not torch.strided:
                raise InvalidArgument(f"the weight {name[:100]!r} is a {weight.layout} tensor; call to_dense() first")
            check_dtype(name, weight.dtype)
        check_bytes(f"a model of {len(names)} weights", sum(weight.nbytes for weight in weights), self.device)
        with torch.inference_mode(mode=False), torch.no_grad():
            return [
                weight.detach().to(device=self.device, copy=True, memory_format=torch.contiguous_format)
                for weight in weights
            ]

    def _try(self, varying: set[str]) -> int:
        """Run the program on zeros. The operations of floating point that a row takes, about."""
        sizes: Sizes = {name: self.program.recorded_sizes[name] for name in varying}
        before = [weight._version for weight in self._weights]
        random = _random_state(self.device)
        inputs = self._zeros(sizes)
        with FlopCounterMode(display=False) as counter:
            self.run(inputs)
        self.written = frozenset(index for index, tensor in enumerate(inputs) if tensor._version)
        batch = self.inputs[0].dimensions[0] if self.is_batched else None
        if isinstance(batch, str):
            self.run(self._zeros({**sizes, batch: sizes[batch] + 1}))
        for name, weight, version in zip(self.program.weights, self._weights, before, strict=True):
            if weight._version != version:
                raise InvalidArgument(f"the program writes to the weight {name[:100]!r}; a model is never changed")
        if not all(map(torch.equal, random, _random_state(self.device))):
            raise InvalidArgument("the program draws random numbers; a model gives the same for the same inputs")
        return int(counter.get_total_flops()) // (sizes[batch] if isinstance(batch, str) else 1)

    def _zeros(self, sizes: Sizes) -> list[torch.Tensor]:
        size_bytes = sum(prod(spec.shape_at(sizes)) * spec.torch_dtype.itemsize for spec in self.inputs)
        if size_bytes > _MAX_TRIAL_BYTES:
            raise InvalidArgument(
                f"inputs of the recorded sizes have {size_bytes} bytes; record the program at smaller ones, of at most "
                f"{_MAX_TRIAL_BYTES}"
            )
        check_bytes("a first run", size_bytes, self.device)
        with torch.inference_mode(mode=False):
            return [
                torch.zeros(spec.shape_at(sizes), dtype=spec.torch_dtype, device=self.device) for spec in self.inputs
            ]

    # --- at each run ---

    def _numbers(self, sizes: Sizes) -> Iterator[int]:
        for names, scale, offset, divisor in self._formulas:
            number = (scale * prod([sizes[name] for name in names]) + offset) // divisor
            if not -(1 << 63) <= number < 1 << 63:
                raise InvalidArgument(f"a size of the program is {number} for {self._told(sizes)}; give smaller inputs")
            yield number

    def _checked(self, spec: TensorSpec, output: object, sizes: Sizes, taken: set[int]) -> torch.Tensor:
        """An output that is as it is described, and shares no memory with what others may write to."""
        if not isinstance(output, torch.Tensor) or output.layout is not torch.strided:
            what = f"a {output.layout} tensor" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
            raise InvalidArgument(f"output {spec.name!r} is {what}; outputs are dense tensors")
        fits = output.dtype == spec.torch_dtype and output.dim() == len(spec.dimensions)
        if fits:
            for size, wanted in zip(output.shape, spec.dimensions, strict=True):
                fits = fits and size == (sizes.get(wanted, size) if isinstance(wanted, str) else wanted)
        if not fits:
            raise InvalidArgument(
                f"output {spec.name!r} is {str(output.dtype)[6:]} of shape {shown(output.shape)} for "
                f"{self._told(sizes)}, but is described as {spec.text()}"
            )
        output = output.detach()
        place = output.untyped_storage().data_ptr()
        if place in taken or place in self._places or output.is_conj() or output.is_neg():
            output = output.resolve_conj().resolve_neg().clone()
        return output

    def _told(self, sizes: Mapping[str, int]) -> str:
        return ", ".join(f"{name[:100]} {size}" for name, size in sizes.items()) or "these sizes"


@dataclass(frozen=True, slots=True)
class ProgramContent:
    """A program, and a weight for each name in it."""

    program: ms.ServedProgram
    weights: Sequence[torch.Tensor]

    def manifest(self) -> dict[str, Any]:
        """See Content."""
        return {"program": json_format.MessageToDict(self.program, preserving_proto_field_name=True)}

    def file(self) -> bytes:
        """See Content."""
        tensors = dict(zip(self.program.weights, self.weights, strict=True))
        return save_tensors(tensors, {PROGRAM_KEY: json.dumps(self.manifest()["program"])})

    def model(self, new_store: NewStore, device: torch.device) -> Model:
        """See Content."""
        return ProgramModel(self.program, self.weights, device, new_store())


def _check_formulas(formulas: Sequence[ms.SizeFormula], varying: set[str]) -> None:
    if len(formulas) > _MAX_FORMULAS:
        raise InvalidArgument(f"the program has {len(formulas)} sizes; at most {_MAX_FORMULAS} are computed")
    for formula in formulas:
        if not formula.divisor or len(formula.dimensions) > _MAX_FACTORS or not varying.issuperset(formula.dimensions):
            factors = " * ".join(map(str, (formula.scale, *formula.dimensions)))
            raise InvalidArgument(
                f"a size is ({factors[:200]} + {formula.offset}) / {formula.divisor}; it is of at most {_MAX_FACTORS} "
                "dimensions of the inputs, and a divisor of 1 or more"
            )


@contextlib.contextmanager
def _surroundings(default_dtype: torch.dtype) -> Iterator[None]:
    """What a program finds around it, whoever it is run for."""
    before = torch.get_default_dtype()
    if before is not default_dtype:
        torch.set_default_dtype(default_dtype)
    try:
        with torch.no_grad():
            yield
    finally:
        if before is not default_dtype:
            torch.set_default_dtype(before)


def _random_state(device: torch.device) -> list[torch.Tensor]:
    states = [torch.default_generator.get_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states

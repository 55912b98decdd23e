"""A served program of a network: what is sent to the server to be kept.

Knows the contract's messages; sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tclient._codec.operations import TABLE, USED
from tclient._exceptions import TensorError
from tclient._issue import dispatch
from tclient._layers import operand_of
from tclient._recording import name_of
from tclient._session.modes import CONTEXTS
from tclient._session.session import Session
from tclient._tensor import Tensor
from tclient.models._checks import Programmed
from tclient.models._derived import derived_inputs, first_layer
from tclient.models._inputs import Spec, spec_message, specs_of
from tclient.models._network import Network, is_refusal, not_servable
from tclient.models._program import program_of
from tclient.models._recorder import plain_modes
from tclient.models._rpcs import code_of
from tclient.models._trials import Trials
from tclient.nn.parameter import Parameter
from tensorcompute.v1 import model_service_pb2 as rpc
from tensorcompute.v1 import tensor_pb2 as pb


def served_program(given: Any, inputs: Any, session: Session) -> tuple[rpc.ServedProgram, list[rpc.Operand]]:
    """The network as a program, and its weights.

    Raises: an error of `not_servable` for what cannot be served; whatever the network itself raises on its examples.
    """
    network = Network(given)
    named, keywords = network.named(_inputs_of(network) if inputs is None else inputs)
    specs = specs_of(named)
    with plain_modes(), network.evaluating():
        trials, made = _tried(network, session, specs, keywords)
    return _message(network, trials, made, session), [operand_of(weight) for weight in made.template.weights]


def _inputs_of(network: Network) -> Any:
    """The inputs that a network has, where the caller names none. Raises: an error of `not_servable`."""
    told = network.described("inputs")
    if told:
        return told
    if network.module is None:
        raise not_servable(f"{network.label} is a function, which does not say what it takes; {network.remedy()}")
    found = derived_inputs(network.module)
    if found is None:
        path, layer = first_layer(network.module)
        where = f"`{path} ({type(layer).__name__})`, its first layer," if path else f"`{network.label}`"
        raise not_servable(
            f"{network.label} cannot be served without its inputs: {where} does not say what it takes; "
            f"{network.remedy()}"
        )
    return found


def _tried(
    network: Network, session: Session, specs: Sequence[Spec], keywords: Mapping[str, int] | None
) -> tuple[Trials, Programmed]:
    """The program. Of examples, the first dimension is the batch where that works for all inputs."""
    batched = [spec.batched() for spec in specs]
    if any(spec.is_example for spec in specs) and all(spec.shape for spec in batched):
        sizes = {spec.example.shape[0] for spec in specs if spec.is_example and spec.example is not None}
        if len(sizes) == 1:
            trials = Trials(network, session, batched, keywords)
            try:
                return trials, program_of(trials)
            except TensorError as error:
                if not is_refusal(error):
                    raise
    trials = Trials(network, session, specs, keywords)
    return trials, program_of(trials)


def _message(network: Network, trials: Trials, made: Programmed, session: Session) -> rpc.ServedProgram:
    program = pb.Program()
    program.CopyFrom(made.template.program)
    operations: dict[int, int] = {}
    contexts: dict[bytes, int] = {}
    for call in program.calls:
        call.operation = operations.setdefault(call.operation, len(operations))
        call.context = _context(call.context, contexts)
    program.context = _context(program.context, contexts)
    names = _names(network, made.template.weights)
    return rpc.ServedProgram(
        inputs=[spec_message(spec.name, spec.dtype, spec.shape) for spec in trials.specs],
        outputs=[spec_message(*info) for info in made.outputs],
        weights=names,
        buffers=[
            name for name, weight in zip(names, made.template.weights, strict=True) if not isinstance(weight, Parameter)
        ],
        sizes=[formula.message() for formula in made.template.formulas],
        operations=[USED[number] for number in operations],
        contexts=[pb.Context.FromString(encoded) for encoded in contexts],
        program=program,
        is_batched=made.is_batched,
        text=network.text,
        recorded_sizes=made.sizes,
        default_dtype=code_of(None if session.default_dtype_known else dispatch(TABLE["get_default_dtype"], (), None)),
    )


def _context(number: int, contexts: dict[bytes, int]) -> int:
    """The number of a context in the program; 0 where nothing is set but gradients and the GPU, which are not kept."""
    if not number:
        return 0
    context = pb.Context.FromString(CONTEXTS[number - 1])
    context.no_grad = context.inference = False
    context.ClearField("cuda_device")
    encoded = context.SerializeToString(deterministic=True)
    return contexts.setdefault(encoded, len(contexts) + 1) if encoded else 0


def _names(network: Network, weights: Sequence[Tensor]) -> list[str]:
    """Of modules, those of the state dict; what else was read from outside is constant_0, constant_1 and so on."""
    taken = set(network.weights.values())
    free = (name for number in range(len(weights) + len(taken)) if (name := f"constant_{number}") not in taken)
    return [network.weights.get(name_of(weight._ref)) or next(free) for weight in weights]

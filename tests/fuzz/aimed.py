"""Calls aimed at tensors that are there: views of views, writes in place, reads, gradients, our own operations.

Knows torch and what a store holds; the strides, sizes and offsets it draws are near the truth or far beyond it.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from operations.lists import words
from torch.autograd.graph import Node

from tests.fuzz import damage
from tests.support.values import Kept
from tserver.engine.networks import KINDS
from tserver.engine.object_store import Parts
from tserver.engine.optimizers import KINDS as OPTIMIZERS
from tserver.engine.passes import Suspended

Live = list[tuple[Kept, torch.Tensor]]
Aimed = tuple[str, list[Any]]
_EDGES = [2**61, 2**62, 2**62 - 8, 2**62 - 1000, 2**63 - 1, -1, -(2**62), 2**31, 2**60, 4096]
_NUMBERS = [0, 1, -1, 2, 7, 1000, 10**11, 2**62, -(2**63), 1.5, float("nan"), float("inf"), -1e30, True]

_ALONE = words("""
Tensor.detach Tensor.data.__get__ Tensor.clone Tensor.contiguous Tensor.t_ Tensor.squeeze_ Tensor.squeeze
Tensor.T.__get__ Tensor.mT.__get__ Tensor.H.__get__ view_as_real view_as_complex Tensor.real.__get__
Tensor.imag.__get__ Tensor.conj Tensor.flatten Tensor.zero_ Tensor.neg_ Tensor.grad.__get__ Tensor.requires_grad_
Tensor.detach_ Tensor.backward Tensor.abs Tensor.exp Tensor.cumsum Tensor.argsort Tensor.retain_grad
Tensor.grad_fn.__get__ Tensor.nonzero Tensor.tanh Tensor.bernoulli_ Tensor.dim_order Tensor.is_contiguous
Tensor.stride Tensor.random_ Tensor.sqrt Tensor.logical_not_
""")
# The share of calls of ours that are about such code.
_CALLERS_CODE = 0.5
_READS = ["tc.read", "tc.numpy", "Tensor.tolist", "Tensor.__repr__", "Tensor.sum", "Tensor.item", "tc.describe"]
_WITH_ANOTHER = words("""
Tensor.copy_ Tensor.add_ Tensor.mul_ Tensor.resize_as_ Tensor.data.__set__ Tensor.grad.__set__ Tensor.expand_as
Tensor.view_as Tensor.__iadd__ Tensor.matmul Tensor.eq_ Tensor.take Tensor.__getitem__ Tensor.masked_select cat
Tensor.clamp_ Tensor.bitwise_and_ Tensor.type_as Tensor.lerp Tensor.real.__set__ Tensor.atan2_ stack
Tensor.heaviside_
""")


def held(objects: dict[int, Any]) -> Live:
    """The tensors among what is held."""
    found: Live = []
    for one, value in objects.items():
        if isinstance(value, torch.Tensor):
            found.append((Kept(one), value))
        elif isinstance(value, Parts):
            parts = value.by_path.items()
            found += [(Kept(one, path), part) for path, part in parts if isinstance(part, torch.Tensor)]
    return found


def requires_grad(objects: dict[int, Any], kept: Kept) -> bool:
    """Whether a tensor is held that requires gradients."""
    found = objects.get(kept.id)
    return isinstance(found, torch.Tensor) and found.requires_grad


def is_leaf(tensor: torch.Tensor) -> bool:
    try:
        return tensor.is_leaf
    except RuntimeError:
        # A view whose base was changed may refuse even to say this.
        return False


def _size(chance: random.Random) -> int:
    return chance.choice(_EDGES) if chance.random() < 0.15 else chance.randrange(7)


def _sizes(chance: random.Random, like: torch.Tensor) -> tuple[int, ...]:
    sizes = list(like.shape) if chance.random() < 0.5 else [_size(chance) for _ in range(chance.randrange(4))]
    if sizes and chance.random() < 0.3:
        sizes[chance.randrange(len(sizes))] = _size(chance)
    return tuple(size for size in sizes if size < 2**63)


def _strides(chance: random.Random, count: int) -> tuple[int, ...]:
    return tuple(chance.choice(_EDGES) if chance.random() < 0.15 else chance.randrange(5) for _ in range(count))


def _offset(chance: random.Random) -> int:
    return chance.choice(_EDGES) if chance.random() < 0.2 else chance.randrange(6)


def _dim(chance: random.Random, like: torch.Tensor) -> int:
    return damage.integer(chance) if chance.random() < 0.05 else chance.randrange(-1, max(1, like.dim()))


def draw(chance: random.Random, live: Live) -> Aimed:
    """Any of these calls."""
    way = chance.choices([_alone, _read, _with_another, _placed, _indexed, _strided], [4, 2, 3, 3, 3, 2])[0]
    target, tensor = chance.choice(live)
    return way(chance, target, tensor, live)


def _alone(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    return chance.choice(_ALONE), [target]


def _read(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    return chance.choice(_READS), [target]


def _with_another(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    name, (other, _) = chance.choice(_WITH_ANOTHER), chance.choice(live)
    if name in ("cat", "stack"):
        return name, [[target, other]]
    return name, [target, other]


def _strided(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    sizes = _sizes(chance, tensor)
    strides = _strides(chance, len(sizes))
    where = [sizes, strides, *([_offset(chance)] if chance.random() < 0.5 else [])]
    other, _ = chance.choice(live)
    choices: list[Aimed] = [
        ("Tensor.as_strided", [target, *where]),
        ("Tensor.as_strided_", [target, *where]),
        ("as_strided_copy", [target, *where]),
        ("Tensor.as_strided_scatter", [target, other, *where]),
        ("as_strided_scatter", [target, other, *where]),
        ("Tensor.new_empty_strided", [target, sizes, strides]),
        ("empty_strided", [sizes, strides]),
        ("Tensor.resize_", [target, sizes]),
        ("Tensor.resize_", [target, *sizes]),
        ("Tensor.expand", [target, *sizes]),
        ("Tensor.view", [target, sizes]),
        ("Tensor.reshape", [target, *sizes]),
        ("Tensor.new_empty", [target, sizes]),
        ("broadcast_to", [target, sizes]),
        ("Tensor.repeat", [target, *(min(size, 5) for size in sizes)]),
        ("Tensor.unfold", [target, _dim(chance, tensor), _size(chance), _size(chance)]),
    ]
    return chance.choice(choices)


def _placed(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    dim, other_dim = _dim(chance, tensor), _dim(chance, tensor)
    choices: list[Aimed] = [
        ("Tensor.narrow", [target, dim, _offset(chance), _size(chance)]),
        ("Tensor.select", [target, dim, _offset(chance)]),
        ("Tensor.diagonal", [target, _offset(chance), dim, other_dim]),
        ("Tensor.transpose", [target, dim, other_dim]),
        ("Tensor.transpose_", [target, dim, other_dim]),
        ("Tensor.swapdims_", [target, dim, other_dim]),
        ("Tensor.unsqueeze", [target, dim]),
        ("Tensor.unsqueeze_", [target, dim]),
        ("Tensor.movedim", [target, dim, other_dim]),
        ("Tensor.split", [target, _size(chance), dim]),
        ("Tensor.chunk", [target, chance.choice([0, 1, 2, 3, 50]), dim]),
        ("Tensor.unbind", [target, dim]),
        ("Tensor.unflatten", [target, dim, [_size(chance), chance.choice([-1, 2])]]),
        ("Tensor.flip", [target, [dim]]),
        ("Tensor.roll", [target, _offset(chance), dim]),
        ("Tensor.view", [target, chance.choice(damage.DTYPES)]),
        ("Tensor.to", [target, chance.choice(damage.DTYPES)]),
        ("Tensor.to", [target, torch.device("meta")]),
        ("Tensor.sort", [target, dim]),
        ("Tensor.max", [target, dim]),
        ("Tensor.prod", [target, dim]),
        ("Tensor.cumprod_", [target, dim]),
        ("Tensor.diff", [target, _size(chance), dim]),
        ("Tensor.requires_grad_", [target, chance.random() < 0.6]),
        ("Tensor.index_select", [target, dim, _indices(chance)]),
        ("Tensor.repeat_interleave", [target, chance.choice([0, 1, 2, 3, 70])]),
    ]
    return chance.choice(choices)


def _indices(chance: random.Random) -> torch.Tensor:
    return torch.tensor(
        [damage.small(chance) if chance.random() < 0.8 else 10**11 for _ in range(chance.randrange(4))]
    ).long()


def _indexed(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    dim, number, indices = _dim(chance, tensor), chance.choice(_NUMBERS), _indices(chance)
    other, (mask, _) = chance.choice(live)[0], chance.choice(live)
    key = slice(damage.small(chance), damage.small(chance), chance.choice([1, 2, None]))
    choices: list[Aimed] = [
        ("Tensor.fill_", [target, number]),
        ("Tensor.fill_", [target, other]),
        ("Tensor.add_", [target, number]),
        ("Tensor.index_fill_", [target, dim, indices, number]),
        ("Tensor.masked_fill_", [target, mask, number]),
        ("Tensor.masked_scatter_", [target, mask, other]),
        ("Tensor.scatter_", [target, dim, mask, other]),
        ("Tensor.scatter_", [target, dim, indices, number]),
        ("Tensor.scatter_add_", [target, dim, mask, other]),
        ("Tensor.scatter_reduce_", [target, dim, indices, other, chance.choice(["sum", "amax", "mean", "prod"])]),
        ("Tensor.gather", [target, dim, mask]),
        ("Tensor.gather", [target, dim, indices]),
        ("Tensor.index_put_", [target, [mask], other]),
        ("Tensor.index_put_", [target, [indices], other, True]),
        ("Tensor.put_", [target, indices, other]),
        ("Tensor.put_", [target, indices, torch.ones(len(indices)), True]),
        ("Tensor.take", [target, indices]),
        ("Tensor.index_add_", [target, dim, indices, other]),
        ("Tensor.index_copy_", [target, dim, indices, other]),
        ("Tensor.__getitem__", [target, key]),
        ("Tensor.__getitem__", [target, (key, number)]),
        ("Tensor.__getitem__", [target, indices]),
        ("Tensor.__setitem__", [target, key, other]),
        ("Tensor.__setitem__", [target, indices, number]),
        ("Tensor.__setitem__", [target, mask, number]),
        ("Tensor.backward", [target, other]),
        ("autograd.grad", [[target], [other], [mask], True, False, True]),
        ("where", [mask, target, other]),
        ("bucketize", [target, other]),
        ("searchsorted", [target, other]),
        ("bincount", [target, other]),
        ("histc", [target, chance.choice([0, 5, 100]), number, 7]),
        ("nn.functional.embedding", [target, other]),
    ]
    return chance.choice(choices)


def own(chance: random.Random, live: Live, objects: dict[int, Any]) -> Aimed:
    """A call of an operation of ours: a network or an optimiser over tensors that are there, or the use of one."""
    if chance.random() < _CALLERS_CODE:
        return _callers_code(chance, live, objects)
    made = [(one, held.held_as) for one, held in objects.items() if hasattr(held, "held_as")]
    tensors = [target for target, tensor in live if is_leaf(tensor)] or [target for target, _ in live]
    some = chance.choices(tensors, k=min(len(tensors), 2)) if tensors else [torch.ones(3, 3), torch.ones(3)]
    match chance.choice(made) if made and chance.random() < 0.7 else (0, ""):
        case one, "network":
            return "tc.forward", [Kept(one), some[0]]
        case one, "optimizer":
            group = {"params": some, "lr": chance.choice(_NUMBERS)}
            choices: list[Aimed] = [
                ("tc.optimizer_step", [Kept(one), [{"lr": chance.choice(_NUMBERS)}]]),
                ("tc.optimizer_step", [Kept(one), []]),
                ("tc.optimizer_state", [Kept(one)]),
                ("tc.optimizer_add_group", [Kept(one), group]),
                ("tc.optimizer_zero_grad", [Kept(one), chance.random() < 0.5]),
                ("tc.optimizer_load_state", [Kept(one), [[0, "step"], [0, "exp_avg"]], some, [{"params": [0]}]]),
            ]
            return chance.choice(choices)
    if chance.random() < 0.5:
        layers: list[dict[str, Any]] = [{"kind": "linear", "weight": some[0], "bias": some[-1]}]
        layers.append({"kind": chance.choice(KINDS)})
        return "tc.network", [layers[: chance.choice([1, 2])]]
    options = {"lr": chance.choice([0.1, 1.0]), **({"fused": True} if chance.random() < 0.3 else {})}
    return "tc.optimizer", [chance.choice(list(OPTIMIZERS)), [{"params": some}], options]


def _parts(objects: dict[int, Any], kind: type[Any]) -> list[Kept]:
    found = [Kept(one) for one, held in objects.items() if isinstance(held, kind)]
    for one, held in objects.items():
        if isinstance(held, Parts):
            found += [Kept(one, path) for path, part in held.by_path.items() if isinstance(part, kind)]
    return found


def _callers_code(chance: random.Random, live: Live, objects: dict[int, Any]) -> Aimed:
    """What stands for a caller's function or hook in a graph, and the passes that are suspended there."""

    def some(most: int) -> list[Any]:
        drawn = [kept for kept, _ in chance.choices(live, k=chance.randrange(1, most + 1))] if live else []
        return [None if chance.random() < 0.1 else kept for kept in drawn]

    with_graph = [kept for kept, tensor in live if tensor.requires_grad]
    target = chance.choice(with_graph or some(1) or [None])
    key, nodes = chance.randrange(1, 6), _parts(objects, Node)
    # The latest ones: most of the others have gone on.
    passes = _parts(objects, Suspended)[-2:]
    node = chance.choice(nodes or [target])
    kind = chance.choice(["gradient", "accumulated", "node_of", "node", "before_node"])
    if passes and chance.random() < 0.6:
        stopped = chance.choice(passes)
        given = Kept(stopped.id, (1, 0))
        answer = chance.choice([[given], [given, None], given, (given,), None, some(2), [target], 3, [[None]], ["a"]])
        if chance.random() < 0.1:
            return "tc.pass_abort", [stopped]
        return "tc.pass_resume", [stopped, answer]
    inputs = [target, *some(2)]
    choices: list[Aimed] = [
        ("tc.function", [chance.choice(["F", "G", "1"]), key, inputs, some(2), some(2), [], some(1)[:0], True]),
        ("tc.function", ["F", key, inputs, [inputs[-1]], inputs, inputs[-1:], [], chance.random() < 0.5]),
        ("tc.function", ["F", key, inputs, some(3), some(1), some(1), some(2), True]),
        ("tc.hook", [target, chance.choice(["gradient", "accumulated", "node_of"]), chance.randrange(1, 50), "h"]),
        ("tc.hook", [node, kind, chance.randrange(1, 50), "h"]),
        ("tc.unhook", [chance.randrange(1, 50)]),
        ("tc.gone", []),
        ("tc.identity", inputs),
        ("tc.edge", [target]),
        ("tc.node", [node]),
        ("tc.saved", [node]),
        ("tc.differentiated_once", [inputs]),
        *[("tc.pass_begin", ["Tensor.backward", [target, target], {"retain_graph": chance.random() < 0.5}])] * 5,
        ("tc.pass_begin", ["Tensor.backward", [target, *some(1)], {"create_graph": True}]),
        ("tc.pass_begin", ["autograd.grad", [[target], with_graph[:2], [target]], {"create_graph": True}]),
        ("tc.pass_begin", ["autograd.backward", [inputs, some(1)], {"inputs": some(1)}]),
    ]
    return chance.choice(choices)


def alias(chance: random.Random, target: Kept, other: Kept) -> Aimed:
    """Another way to a tensor's memory, taken before autograd keeps the tensor."""
    choices: list[Aimed] = [
        ("Tensor.data.__get__", [target]),
        ("Tensor.view", [target, chance.choice(damage.DTYPES)]),
        ("Tensor.data.__set__", [target, other]),
        ("unsafe_chunk", [target, 2]),
        ("Tensor.unsafe_split", [target, 1]),
    ]
    return chance.choice(choices)


def tamper(chance: random.Random, live: Live) -> list[Aimed]:
    """Changes of a tensor that autograd may have kept, which its version may not tell. None is the call before."""
    target, tensor = chance.choice(live)
    other, _ = chance.choice(live)
    sizes = tuple(chance.randrange(5) for _ in range(tensor.dim())) if chance.random() < 0.6 else _sizes(chance, tensor)
    match chance.randrange(9):
        case 0:
            fresh = torch.full([min(size, 9) for size in sizes if size >= 0], 7).to(
                chance.choice([tensor.dtype, *damage.DTYPES])
            )
            return [("Tensor.data.__set__", [target, fresh])]
        case 1:
            return [("Tensor.data.__set__", [target, other])]
        case 2:
            return [("Tensor.detach", [target]), *_changes(chance, tensor, other, sizes)]
        case 3:
            key = slice(0, chance.choice([1, 2]))
            through: list[Aimed] = [("Tensor.data.__get__", [target]), ("Tensor.__getitem__", [None, key])]
            return [*through, *_changes(chance, tensor, other, sizes)]
        case 4:
            return [("Tensor.view", [target, chance.choice(damage.DTYPES)]), *_changes(chance, tensor, other, sizes)]
        case 5:
            # An alias that was taken before, or the very tensor.
            return [(name, [target, *args[1:]]) for name, args in _changes(chance, tensor, other, sizes)]
    return [("Tensor.data.__get__", [target]), *_changes(chance, tensor, other, sizes)]


def _changes(chance: random.Random, tensor: torch.Tensor, other: Kept, sizes: tuple[int, ...]) -> list[Aimed]:
    number = chance.choice(_NUMBERS)
    choices: list[Aimed] = [
        ("Tensor.fill_", [None, number]),
        ("Tensor.fill_", [None, 10**11]),
        ("Tensor.fill_", [None, -1]),
        ("Tensor.zero_", [None]),
        ("Tensor.add_", [None, number]),
        ("Tensor.neg_", [None]),
        ("Tensor.copy_", [None, other]),
        ("Tensor.resize_", [None, sizes]),
        ("Tensor.resize_", [None, 0]),
        ("Tensor.as_strided_", [None, sizes, _strides(chance, len(sizes))]),
        ("Tensor.unsqueeze_", [None, 0]),
        ("Tensor.__setitem__", [None, 0, number]),
        ("Tensor.index_fill_", [None, 0, torch.tensor([0]), number]),
        ("Tensor.random_", [None]),
        ("Tensor.t_", [None]),
    ]
    return [chance.choice(choices)]

"""Sparse tensors to begin with, and calls aimed at those that are there.

Knows torch and what a store holds. Most of what is made is as it should be; the rest torch or the server must refuse.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from operations.lists import words

from tests.fuzz import aimed, damage
from tests.support.values import Kept

Live = list[tuple[Kept, torch.Tensor]]
Aimed = tuple[str, list[Any]]

_SHAPES = [
    (3, 4),
    (4, 3),
    (4, 4),
    (4, 4),
    (4,),
    (3,),
    (2, 3, 4),
    (2, 4, 4),
    (1, 4),
    (0, 4),
    (2**31 - 1, 3),
    (4, 2**31 - 1),
]
_DTYPES = [torch.float32, torch.float32, torch.float32, torch.float64, torch.int64, torch.complex64, torch.bool]
_ALONE = words("""
Tensor.to_dense Tensor.coalesce Tensor.indices Tensor.values Tensor._indices Tensor._values Tensor._nnz sparse.sum
Tensor.is_coalesced Tensor.sparse_dim Tensor.dense_dim Tensor.t Tensor.T.__get__ Tensor.neg Tensor.abs Tensor.sqrt
Tensor.clone Tensor.detach Tensor.data.__get__ Tensor.relu Tensor.sin Tensor.log1p Tensor.isnan Tensor.any Tensor.sum
Tensor.norm Tensor.__repr__ Tensor.sgn Tensor.zero_ Tensor.abs_ Tensor.neg_ Tensor.t_ Tensor.requires_grad_
Tensor.to_sparse zeros_like empty_like ones_like Tensor.float Tensor.half Tensor.conj Tensor.mean Tensor.max tc.read
tc.numpy Tensor.tolist Tensor.item tc.describe Tensor.grad.__get__ Tensor.squeeze Tensor.contiguous Tensor.round
Tensor.expm1 Tensor.erfinv Tensor.backward Tensor.unbind Tensor.nan_to_num Tensor.deg2rad_ Tensor.isposinf
view_as_real Tensor.conj_physical Tensor.__len__ Tensor.detach_ Tensor.frac Tensor.nonzero Tensor.square
""")
_OF_TWO = words("""
sparse.mm sparse.mm mm matmul Tensor.__matmul__ spmm dsmm mv bmm Tensor.add Tensor.sub Tensor.mul Tensor.div add mul
Tensor.add_ Tensor.mul_ Tensor.sub_ Tensor.div_ Tensor.sparse_mask Tensor.__add__ Tensor.__mul__ Tensor.__rsub__
Tensor.backward Tensor.grad.__set__ Tensor.data.__set__ Tensor.copy_ Tensor.is_same_size Tensor.resize_as_ where
nn.functional.linear Tensor.__getitem__ Tensor.type_as Tensor.floor_divide Tensor.eq nn.functional.embedding
Tensor.index_add_ dot outer kron
""")
_REDUCTIONS = ["sum", "mean", "amax", "amin"]


def parts(chance: random.Random) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Indices, values and a size; they do not always fit."""
    shape = list(chance.choice(_SHAPES))
    if chance.random() < 0.05:
        shape = [abs(damage.integer(chance)) for _ in range(chance.randrange(1, 4))]
    dense = [chance.randrange(4) for _ in range(chance.choice([0, 0, 0, 0, 1, 2]))]
    count = chance.choice([0, 1, 2, 5, 5, 9, 40])
    if 0 in shape:
        count = 0
    rows = [[chance.randrange(size) for _ in range(count)] for size in shape]
    indices = torch.tensor(rows, dtype=torch.int64).reshape(len(shape), count)
    values = (torch.rand(count, *dense) * 4 - 1).to(chance.choice(_DTYPES))
    size = shape + dense
    match chance.randrange(14):
        case 0 if indices.numel():
            indices[chance.randrange(len(shape)), chance.randrange(count)] = damage.small(chance) * 10**9
        case 1:
            values = damage.tensor(values, chance)
        case 2:
            size[chance.randrange(len(size))] = abs(damage.small(chance))
        case 3 if indices.numel():
            indices = damage.tensor(indices, chance)
    return indices, values, [min(each, 2**63 - 1) for each in size]


def _of_sparse(live: Live) -> Live:
    return [(kept, tensor) for kept, tensor in live if tensor.layout is torch.sparse_coo]


def draw(chance: random.Random, live: Live) -> Aimed | None:
    """A call on a sparse tensor, if there is one."""
    found = _of_sparse(live)
    if not found:
        return None
    ways = [_alone, _of_two, _placed, _through, _of_three, _fitting, _backward]
    way = chance.choices(ways, [4, 2, 3, 2, 1, 5, 2])[0]
    target, tensor = chance.choice(found)
    return way(chance, target, tensor, live)


def _alone(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    return chance.choice(_ALONE), [target]


def _partner(chance: random.Random, tensor: torch.Tensor, live: Live) -> Any:
    """Another tensor: one that is there, one of fitting columns, or one of the same shape."""
    sizes = [min(size, 6) for size in tensor.shape]
    match chance.randrange(5):
        case 0 if sizes:
            return torch.rand(*sizes[:-2], sizes[-1], 3)
        case 1:
            return torch.rand(sizes)
        case 2 if sizes:
            return torch.rand(sizes[-1])
        case 3:
            return chance.choice([2, 0.5, -1, 0, float("nan"), torch.tensor(2.0)])
    return chance.choice(live)[0]


def _of_two(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    pair = [target, _partner(chance, tensor, live)]
    if chance.random() < 0.3:
        pair.reverse()
    return chance.choice(_OF_TWO), pair


def _of_three(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    other, third = _partner(chance, tensor, live), _partner(chance, tensor, live)
    if isinstance(other, torch.Tensor) and other.dim() > 1 and chance.random() < 0.6:
        third = torch.rand(*[min(size, 6) for size in tensor.shape[:-1]], other.shape[-1])
    choices: list[Aimed] = [
        ("sparse.addmm", [third, target, other]),
        ("addmm", [third, target, other]),
        ("Tensor.addmm", [target, other, third]),
        ("addmv", [third, target, other]),
        ("baddbmm", [third, target, other]),
        ("cat", [[target, other], chance.randrange(-2, 3)]),
        ("stack", [[target, other], chance.randrange(-2, 3)]),
        ("sparse.mm", [target, other, chance.choice(_REDUCTIONS)]),
        ("autograd.grad", [[other], [target], [third], True, False, True]),
        ("addcmul", [third, target, other]),
        ("lerp", [target, other, 0.5]),
    ]
    return chance.choice(choices)


def _fitting(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    """A call whose operands have the sizes and the dtype that it takes."""

    def rand(*sizes: int) -> torch.Tensor:
        return (torch.rand([min(size, 9) for size in sizes]) * 4 - 1).to(tensor.dtype)

    alike = [kept for kept, one in live if one.shape == tensor.shape and one.dtype == tensor.dtype]
    other: Any = chance.choice([chance.choice(alike), rand(*tensor.shape)])
    *outer, rows, columns = (1, 1, *tensor.shape)[-max(2, tensor.dim()) :]
    outer = outer if tensor.dim() > 2 else []
    following = [kept for kept, one in live if one.dim() == 2 and one.shape[0] == columns and one.dtype == tensor.dtype]
    right: Any = chance.choice([chance.choice(following or [target]), *[rand(*outer, columns, 3)] * 2])
    choices: list[Aimed] = [
        *((name, [target, right]) for name in ("sparse.mm", "mm", "matmul", "spmm", "Tensor.__matmul__", "bmm")),
        ("mv", [target, rand(columns)]),
        ("matmul", [target, rand(columns)]),
        ("matmul", [rand(*outer, 2, rows), target]),
        ("nn.functional.linear", [rand(2, columns), target]),
        *((name, [rand(rows, 3), target, right]) for name in ("sparse.addmm", "addmm")),
        *((name, [target, other]) for name in ("add", "sub", "mul", "Tensor.add_", "Tensor.sub_", "Tensor.mul_")),
        *((name, [other, target]) for name in ("add", "sub", "mul", "Tensor.add_", "Tensor.sparse_mask")),
        *((name, [target, 2.5]) for name in ("mul", "div", "Tensor.mul_", "Tensor.div_", "pow")),
        ("mul", [target, rand(*tensor.shape[1:])]),
        ("mul", [target, rand(*tensor.shape[:-1], 1)]),
        ("cat", [[target, other], chance.randrange(tensor.dim() or 1)]),
        ("Tensor.grad.__set__", [chance.choice([other, target]), target]),
        ("autograd.grad", [[target], [other], [other], True, False, True]),
    ]
    return chance.choice(choices)


def _backward(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    """A backward from whatever has a graph, with gradients of either kind."""
    outputs = [one for one in live if one[1].requires_grad and not aimed.is_leaf(one[1])]
    leaves = [one for one in live if one[1].requires_grad and aimed.is_leaf(one[1])]
    if not outputs or not leaves:
        return "Tensor.requires_grad_", [chance.choice(live)[0]]
    output, made = chance.choice(outputs)
    alike = [kept for kept, one in live if one.shape == made.shape and one.dtype == made.dtype]
    small = made.numel() < 1000
    seed: Any = torch.ones(made.shape if small else (), dtype=made.dtype) if chance.random() < 0.6 else None
    seed = chance.choice(alike) if seed is None else seed
    if chance.random() < 0.5:
        return "Tensor.backward", [output, seed, True]
    return "autograd.grad", [[output], [kept for kept, _ in leaves[:6]], [seed], True, chance.random() < 0.3, True]


def _placed(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    def dim() -> int:
        return damage.integer(chance) if chance.random() < 0.05 else chance.randrange(-3, 4)

    order = list(range(tensor.dim()))
    chance.shuffle(order)
    index = torch.tensor([chance.randrange(-1, 5) for _ in range(chance.randrange(4))]).long()
    choices: list[Aimed] = [
        ("sparse.sum", [target, [dim()]]),
        ("sparse.sum", [target, sorted({abs(dim()) for _ in range(2)})]),
        ("Tensor.sum", [target, dim()]),
        ("sparse.softmax", [target, dim()]),
        ("sparse.log_softmax", [target, dim()]),
        ("Tensor.transpose", [target, dim(), dim()]),
        ("Tensor.transpose_", [target, dim(), dim()]),
        ("Tensor.permute", [target, order]),
        ("Tensor.permute", [target, [dim() for _ in order]]),
        ("Tensor.select", [target, dim(), damage.small(chance)]),
        ("Tensor.index_select", [target, dim(), index]),
        ("Tensor.narrow", [target, dim(), damage.small(chance), damage.small(chance)]),
        ("narrow_copy", [target, dim(), damage.small(chance), damage.small(chance)]),
        ("Tensor.unsqueeze", [target, dim()]),
        ("Tensor.unsqueeze_", [target, dim()]),
        ("Tensor.unbind", [target, dim()]),
        ("Tensor.expand", [target, *tensor.shape]),
        ("Tensor.__getitem__", [target, damage.small(chance)]),
        ("Tensor.__getitem__", [target, (slice(None), damage.small(chance))]),
        ("Tensor.__getitem__", [target, index]),
        ("Tensor.to_sparse", [target, damage.small(chance)]),
        ("Tensor.to", [target, chance.choice(damage.DTYPES)]),
        ("Tensor.to", [target, torch.device("meta")]),
        ("Tensor.resize_", [target, [abs(damage.small(chance)) for _ in order]]),
        ("Tensor.norm", [target, chance.choice([0, 1, 2, float("inf"), -1])]),
        ("pow", [target, chance.choice([2, 0.5, -1, 0])]),
        ("Tensor.movedim", [target, dim(), dim()]),
        ("Tensor.flatten", [target]),
        ("Tensor.new_zeros", [target, [2, 3]]),
        ("Tensor.roll", [target, 1, dim()]),
    ]
    return chance.choice(choices)


def _through(chance: random.Random, target: Kept, tensor: torch.Tensor, live: Live) -> Aimed:
    """What would change a sparse tensor behind its back: through any dense tensor, its parts perhaps among them."""
    dense, _ = chance.choice([one for one in live if one[1].layout is torch.strided] or live)
    choices: list[Aimed] = [
        ("Tensor.fill_", [dense, chance.choice([-1, 10**11, 0])]),
        ("Tensor.resize_", [dense, [chance.choice([0, 1, 3, 50])]]),
        ("Tensor.data.__set__", [dense, torch.ones(1)]),
        ("Tensor.as_strided_", [dense, [1], [1]]),
        ("Tensor.t_", [dense]),
        ("Tensor.add_", [dense, target]),
        ("Tensor.copy_", [dense, target]),
        ("Tensor.sparse_mask", [dense, target]),
        ("sparse_coo_tensor", [dense, chance.choice(live)[0]]),
        ("sparse_coo_tensor", [dense, chance.choice(live)[0], list(tensor.shape)]),
        ("tc.constructed", ["sparse.FloatTensor", dense, chance.choice(live)[0], list(tensor.shape)]),
        ("Tensor.to_sparse", [dense]),
        ("Tensor.to_sparse", [dense, chance.randrange(3)]),
    ]
    return chance.choice(choices)

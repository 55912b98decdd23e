"""einops and opt_einsum: python rearranged.py torch"""

import importlib
import sys

import opt_einsum
from einops import asnumpy, einsum, pack, parse_shape, rearrange, reduce, repeat, unpack

torch = importlib.import_module(sys.argv[1])
layers = importlib.import_module(f"einops.layers.{sys.argv[1]}")

x = torch.arange(24.0).reshape(2, 3, 4)
shown = [
    rearrange(x, "a b c -> (a b) c"),
    rearrange(x, "a b (c d) -> d a c b", d=2),
    rearrange([x, x + 1], "l a b c -> a b (l c)"),
    *(reduce(x, "a b c -> a c", how) for how in ("mean", "max", "min", "sum", "prod")),
    *(reduce(x > 3, "a b c -> b", how) for how in ("any", "all")),
    reduce(x, "a b c -> a", "max"),
    repeat(x, "a b c -> a b k c", k=2),
    repeat(x, "a b c -> (a k) b c", k=3),
    einsum(x, x, "a b c, a d c -> a b d"),
]
packed, shapes = pack([x, x[..., 0]], "a b *")
shown += [packed, *unpack(packed, shapes, "a b *")]
for each in shown:
    print(tuple(each.shape), each.dtype, each.tolist())
print(asnumpy(x).sum(), sorted(parse_shape(x, "a b c").items()))

y = x.clone().requires_grad_()
(rearrange(y, "a b c -> c b a") ** 2).sum().backward()
print(y.grad.tolist())

net = torch.nn.Sequential(
    layers.Rearrange("a b c -> a (b c)"), torch.nn.Linear(12, 4), layers.Reduce("a (b c) -> a b", "max", c=2)
)
mixed = layers.EinMix("a b c -> a b d", weight_shape="c d", bias_shape="d", c=4, d=2)
print(net, tuple(net(x).shape), tuple(mixed(x).shape), [tuple(each.shape) for each in mixed.parameters()])
with torch.no_grad():
    for each in mixed.parameters():
        each.fill_(0.5)
print(mixed(x).tolist())

a, b, c = torch.ones(2, 3), torch.arange(12.0).reshape(3, 4), torch.ones(4, 2)
path = opt_einsum.contract_expression("ij,jk,kl->il", a.shape, b.shape, c.shape)
fixed = opt_einsum.contract_expression("ij,jk->ik", a, b.shape, constants=[0])
for each in (
    opt_einsum.contract("ij,jk,kl->il", a, b, c),
    opt_einsum.contract("ij,jk,ki->", a, b, c),
    opt_einsum.contract("ij,kl->lkji", a, b),
    opt_einsum.contract("ii->i", torch.ones(3, 3)),
    path(a, b, c),
    fixed(b),
):
    print(each.tolist())

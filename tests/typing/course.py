"""What people write who learn tensors: a type checker takes every line. It is checked, never run."""

from __future__ import annotations

import numpy as np

import tclient as torch
from tclient import Tensor


def creation() -> tuple[Tensor, ...]:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = torch.zeros(5, 3, dtype=torch.long)
    z = torch.rand((2, 3), device="cuda") if torch.cuda.is_available() else torch.randn(2, 3)
    steps = torch.arange(0, 10, 2), torch.linspace(0, 1, steps=5), torch.eye(3), torch.full([2, 2], 3.5)
    alike = torch.ones_like(x), torch.randn_like(x, dtype=torch.float64), x.new_ones(5, 3, dtype=torch.double)
    shared = torch.from_numpy(np.ones(3)), torch.as_tensor([1, 2]), torch.FloatTensor(2, 3)
    return (x, y, z, *steps, *alike, *shared)


def looking(x: Tensor) -> tuple[int, torch.Size, torch.dtype, torch.device]:
    rows, columns = x.shape
    total: int = x.numel() + x.size(0) + x.size()[0] + x.shape[-1] + len(x) + rows * columns
    print(f"{x.mean().item():.3f}", x, x.T, x.dtype is torch.float32, x.is_cuda, x.requires_grad)
    return total, x.size(), x.dtype, x.device


def arithmetic(x: Tensor, y: Tensor) -> Tensor:
    z = x + y * 2 - 3 / x + x**2 @ y.T
    z += torch.add(x, y, alpha=10)
    z = torch.add(input=x, other=y) + x.add(y).add_(1) + np.float32(2) * x + x * np.float64(3)
    mask = (x > 0) & (y <= 1) | ~(x == y)
    z[mask] = 0
    z[0, :, None] = x[..., ::1][torch.tensor([0, 1])]
    z = torch.where(mask, x, 0.0)
    return -abs(z) // 2 % 3


def shapes(x: Tensor) -> Tensor:
    x = x.view(-1, 2).reshape(4, -1).permute(1, 0).transpose(0, 1).contiguous().unsqueeze(0).squeeze()
    x = torch.cat([x, x], dim=1) + torch.stack((x, x)).sum(dim=(0, 1), keepdim=True)
    first, *_ = x.split(2)
    one, two = x.chunk(2, dim=0)
    u, s, vh = torch.linalg.svd(x)
    return first + one @ two + u @ s.diag() @ vh + torch.einsum("ij,jk->ik", x, x) + torch.flatten(x, 1)


def reductions(x: Tensor) -> float:
    values, indices = x.max(dim=1)
    top = x.topk(3)
    best = torch.sort(x, descending=True).indices.to(torch.int64)
    print(values, indices, top.values, x.argmax(1), best, x.std(0), torch.allclose(x, x), torch.unique(x))
    total = 0
    total += (x.argmax(1) == indices).sum().item()
    unique, counts = torch.unique(x, return_counts=True)
    return float(x.sum()) + x.mean().item() + int(x[0, 0]) + total + unique.numel() + counts.size(0)


def conversions(x: Tensor) -> list[float]:
    array: np.ndarray = x.detach().cpu().numpy()
    x = x.float().to("cpu").to(torch.float16).to(x.device, dtype=torch.float32).double().type(torch.float64)
    x = torch.fft.fft(x).abs() + torch.special.expit(x) + x.to(dtype=torch.int).long()
    numbers: list[float] = x.tolist()
    return numbers if array.size and bool(x.any()) else [value.item() for value in x]


def gradients() -> Tensor:
    w = torch.randn(3, requires_grad=True)
    loss = (w**2).sum()
    loss.backward()
    with torch.no_grad():
        w -= 0.1 * w.grad
        w.grad.zero_()
        w.grad = None
    (gradient,) = torch.autograd.grad((w * 2).sum(), w)
    return gradient

"""Work in other processes, as programs for torch have it: forked and spawned, with arguments, queues and pools."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Net(nn.Module):
    """A class of the program's own, which a spawned process finds by importing it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.register_buffer("scale", torch.full((1,), 3.0))

    def forward(self, x: Any) -> Any:
        """What it computes."""
        return torch.tanh(self.layer(x)) * self.scale


class Rows(Dataset[Any]):
    """A data set that holds a tensor."""

    def __init__(self) -> None:
        self.rows = torch.arange(12.0).reshape(6, 2)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index] * 2, index


def work(queue: Any, net: Net, given: dict[str, Any]) -> None:
    """In another process: what came, and what it computes."""
    queue.put((net(given["x"]).tolist(), type(net.layer.weight).__name__, given["x"].requires_grad))
    queue.put((given["half"].tolist(), str(given["half"].dtype), given["same"] is given["x"]))


def doubled(x: Any) -> list[float]:
    """In a pool: a value comes, a value goes."""
    return list((x * 2).tolist())


def alone(rank: int, scale: Any) -> None:
    """In a process of torch.multiprocessing.spawn."""
    assert (torch.ones(2) * scale).sum().item() == 6.0, rank


TABLE = torch.tensor([10.0, 20.0, 30.0])


def looked_up(index: int) -> float:
    """In a forked pool: a tensor of the program that the function names."""
    return float(TABLE[index].item())


def main() -> None:
    """Run all of it, with each way to begin a process that is named."""
    torch.manual_seed(0)
    net = Net()
    x = torch.ones(3, 2, requires_grad=True)
    for how in sys.argv[1:]:
        context: Any = multiprocessing.get_context(how)
        queue = context.Queue()
        given = {"x": x, "same": x, "half": torch.tensor([0.5], dtype=torch.bfloat16)}
        process = context.Process(target=work, args=(queue, net, given))
        process.start()
        print(queue.get(), queue.get())
        process.join()
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            print(list(pool.map(doubled, [torch.ones(2), torch.tensor([1, 2]), x.detach()[0]])))
    for inputs, indices in DataLoader(Rows(), batch_size=3, num_workers=2):
        print(inputs.tolist(), indices.tolist())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(looked_up, range(3)))
    if "spawn" in sys.argv:
        mp.spawn(alone, args=(torch.tensor(3.0),), nprocs=1)
    print(net.layer.weight.grad, x.grad)


if __name__ == "__main__":
    main()

"""A short tour: the lines of a first course on tensors, run on the server.

Only the import tells that the tensors are somewhere else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _server import run

import tclient as torch


def show(text: str) -> None:
    """Print an expression and its value, as the interactive Python does; text is made by f"{expression = !s}"."""
    expression, _, value = text.partition(" = ")
    print(f">>> {expression}\n{value}")


def chapter(title: str) -> None:
    """Print a heading."""
    print(f"\n{title}\n{'-' * len(title)}")


def main(_out: Path) -> None:
    """Go through the course, chapter by chapter."""
    chapter("Tensors from lists, from numpy, and from factories")
    show(f"{torch.tensor([[1.0, -1.0], [1.0, -1.0]]) = !s}")
    show(f"{torch.tensor(np.array([[1, 2, 3], [4, 5, 6]])) = !s}")
    show(f"{torch.ones([3, 4]) = !s}")
    show(f"{torch.arange(12) = !s}")
    torch.manual_seed(0)  # the numbers of a local torch with this seed
    show(f"{torch.rand([2, 3]) = !s}")
    show(f"{torch.randint(low=0, high=10, size=[2, 4]) = !s}")

    chapter("Asking a tensor")
    x = torch.tensor([[1, 2], [3, 4], [5, 10]], dtype=torch.int32)
    show(f"{x.shape = !s}")
    show(f"{x.size(1) = !s}")
    show(f"{x.dim() = !s}")
    show(f"{x.max() = !s}")
    show(f"{x.max().item() = !s}")
    show(f"{x.numpy() = !s}")

    chapter("Another shape, and turned around")
    show(f"{x.view(2, 3) = !s}")
    show(f"{x.reshape(-1, 6) = !s}")
    show(f"{x.t() = !s}")
    show(f"{torch.zeros(2, 3, 5).permute(2, 0, 1).size() = !s}")

    chapter("Indexing: a view shares its storage with the tensor it was made of")
    show(f"{x[:, 1] = !s}")
    row = x[1]
    x[1, 1] = 100
    show(f"{row = !s}")
    show(f"{x[x > 4] = !s}")

    chapter("Types")
    show(f"{torch.from_numpy(np.ones(3)) = !s}")
    show(f"{x.dtype = !s}")
    show(f"{x.double() = !s}")
    show(f"{torch.tensor([1, 2]).type(torch.float) = !s}")

    chapter("Adding; an underscore changes the tensor in place")
    a = x.new_ones(2, 3, dtype=torch.float)
    b = torch.arange(3)
    show(f"{a + b = !s}")
    show(f"{torch.add(a, b, alpha=10) = !s}")
    a.add_(b)
    show(f"{a = !s}")

    chapter("Devices: cuda is the server's")
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    z = torch.ones_like(a, device=device) + a.to(device)
    show(f"{z = !s}")
    show(f'{z.to("cpu", torch.double) = !s}')

    chapter("A mistake gives torch's own error, and the line where it was made")
    try:
        (a + torch.ones(4)).sum().item()
    except RuntimeError as error:
        print(f"{type(error).__name__}: {error}", *getattr(error, "__notes__", []), sep="\n")


if __name__ == "__main__":
    run(main, __doc__)

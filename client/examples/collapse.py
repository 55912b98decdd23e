"""Without activations a deep network is one linear map.

    W2 (W1 x + b1) + b2  =  (W2 W1) x + (W2 b1 + b2)

Both sides are computed on the server and compared. With tanh between the layers no such map exists.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _pictures import FAINT, INK, NEGATIVE, POSITIVE, panels, save
from _server import run

import tclient as torch
from tclient import nn


def main(out: Path) -> None:
    """Compose the layers of a network by hand, with and without an activation between them."""
    torch.manual_seed(1)
    first, second = nn.Linear(2, 4), nn.Linear(4, 3)
    deep = nn.Sequential(first, second)
    with torch.no_grad():
        weight = second.weight @ first.weight
        bias = second.weight @ first.bias + second.bias
        one = nn.Linear(2, 3)
        one.load_state_dict({"weight": weight, "bias": bias})

        x = torch.randn(5, 2)
        print("two layers without activation, W2(W1 x + b1) + b2:", deep(x), sep="\n")
        print("one layer, (W2 W1) x + (W2 b1 + b2):", one(x), sep="\n")
        difference = (deep(x) - one(x)).abs().max().item()
        print(f"largest difference: {difference:.1e}")
        assert difference < 1e-5

        bent = nn.Sequential(first, nn.Tanh(), second)
        difference = (bent(x) - one(x)).abs().max().item()
        print(f"with tanh between the layers it is {difference:.2f}: the network is no longer one linear map")
        assert difference > 0.01
        draw(out / "collapse.png")


def draw(path: Path) -> None:
    """A network with one input and one output is a curve; without activations the curve is a line."""
    torch.manual_seed(3)
    first, second = nn.Linear(1, 8), nn.Linear(8, 1)
    with torch.no_grad():
        first.weight.mul_(2.5)
        second.weight.mul_(3)
        x = torch.linspace(-3, 3, 301).reshape(-1, 1)
        lines = nn.Sequential(first, second)(x).numpy()
        curves = nn.Sequential(first, nn.Tanh(), second)(x).numpy()
        slope = (second.weight @ first.weight).item()
        offset = (second.weight @ first.bias + second.bias).item()
    inputs = x.numpy()

    figure, (left, right) = panels(2, 10, 4.2)
    left.plot(inputs, lines, color=NEGATIVE, linewidth=5, alpha=0.5, label="two layers, no activation")
    left.plot(inputs, slope * inputs + offset, "--", color=INK, label="W₂W₁x + (W₂b₁ + b₂)")
    left.set_title("Without activations: a line")
    right.plot(inputs, curves, color=POSITIVE, linewidth=3, label="the same layers, tanh between")
    right.plot(inputs, slope * inputs + offset, "--", color=INK, alpha=0.5, label="W₂W₁x + (W₂b₁ + b₂)")
    right.set_title("With an activation: a curve")
    limit = float(np.abs(curves).max()) * 1.8
    for axes in (left, right):
        axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        axes.set(xlabel="x", ylabel="output", ylim=(-limit, limit), xlim=(-3, 3))
        axes.legend(loc="upper right")
    save(figure, path)


if __name__ == "__main__":
    run(main, __doc__)

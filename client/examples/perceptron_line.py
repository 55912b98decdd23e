"""A perceptron splits the plane with a straight line.

Its output is +1 where w·x + b is not negative and -1 elsewhere, so in two dimensions the border is a line, and the
weights are the arrow that stands on it and points to the positive side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _pictures import INK, NEGATIVE, POSITIVE, panels, save
from _server import run

import tclient as torch
from tclient import nn

WEIGHTS = [1.0, 2.0]
BIAS = -1.0


def main(out: Path) -> None:
    """Ask the perceptron on which side some points lie, and draw it."""
    perceptron = nn.Perceptron(WEIGHTS, BIAS)
    print(f"perceptron: +1 where {WEIGHTS[0]:g}·x1 + {WEIGHTS[1]:g}·x2 + {BIAS:g} is not negative, else -1")
    for point in ([3.0, 2.0], [-2.0, -1.0], [1.0, 0.0], [0.0, 0.0]):
        print(f"  ({point[0]:4.1f}, {point[1]:4.1f}) -> {perceptron(torch.tensor(point)).item():+.0f}")

    torch.manual_seed(7)
    points = torch.rand(120, 2) * 8 - 4
    sides = perceptron(points)
    print(
        f"of 120 random points {(sides > 0).sum().item()} are on the positive side, {(sides < 0).sum().item()} are not"
    )
    assert torch.equal(sides > 0, points @ torch.tensor(WEIGHTS) + BIAS >= 0)
    draw(points.numpy(), sides.numpy(), out / "perceptron_line.png")


def draw(points: np.ndarray, sides: np.ndarray, path: Path) -> None:
    """The points, the line w·x + b = 0 between them, and the weights as an arrow."""
    figure, (axes,) = panels(1, 6.4, 5.6)
    x1 = np.array([-4.0, 4.0])
    x2 = -(WEIGHTS[0] * x1 + BIAS) / WEIGHTS[1]
    axes.fill_between(x1, x2, 4, color=POSITIVE, alpha=0.10, linewidth=0)
    axes.fill_between(x1, x2, -4, color=NEGATIVE, alpha=0.10, linewidth=0)
    axes.plot(x1, x2, color=INK, linewidth=2, label="w·x + b = 0")
    axes.scatter(points[sides > 0, 0], points[sides > 0, 1], marker="^", s=42, color=POSITIVE, label="+1")
    axes.scatter(points[sides < 0, 0], points[sides < 0, 1], marker="s", s=34, color=NEGATIVE, label="−1")

    foot = -BIAS * np.array(WEIGHTS) / np.dot(WEIGHTS, WEIGHTS)  # the point of the line that is nearest to the origin
    axes.annotate(
        "", xy=foot + np.array(WEIGHTS) / 1.5, xytext=foot, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 2}
    )
    axes.annotate(
        "w", xy=foot + np.array(WEIGHTS) / 1.5, xytext=(6, 2), textcoords="offset points", fontsize=14, weight="bold"
    )
    axes.set(xlim=(-4, 4), ylim=(-4, 4), xlabel="x1", ylabel="x2", title="A perceptron splits the plane with a line")
    axes.set_aspect("equal")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


if __name__ == "__main__":
    run(main, __doc__)
